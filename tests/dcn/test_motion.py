"""Motion-compensated addition: the compiled operator against grid_sample and interpolate in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import dcn

pytestmark = pytest.mark.usefixtures("compiled")


def expected(total: Tensor, weights: Tensor, image: Tensor, motion: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The sums after the addition, in float64, for an image of the size of `total`."""
    size = total.shape[-2:]
    factor = torch.tensor([size[1] / motion.shape[2], size[0] / motion.shape[1]], dtype=torch.float64).view(2, 1, 1)
    both = torch.cat([motion.double() * factor, weight.double()])[None]
    large = F.interpolate(both, size, mode="bilinear")[0]
    rows, columns = (torch.arange(length, dtype=torch.float64) + 0.5 for length in size)
    position = torch.stack(torch.meshgrid(columns, rows, indexing="xy")) + large[:2]
    grid = (position * 2 / torch.tensor([size[1], size[0]]).view(2, 1, 1) - 1).permute(1, 2, 0)
    moved = F.grid_sample(image.double()[None], grid[None], mode="bicubic", padding_mode="border", align_corners=False)[
        0
    ]
    return total + large[2:] * moved, weights + large[2:]


def arguments(size: tuple[int, int], motion_size: tuple[int, int], speed: float) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        "total": torch.rand(3, *size, generator=draw),
        "weights": torch.rand(1, *size, generator=draw),
        "image": torch.rand(3, *size, generator=draw),
        "motion": speed * torch.randn(2, *motion_size, generator=draw),
        "weight": torch.rand(1, *motion_size, generator=draw),
    }


@pytest.mark.parametrize("speed", [0.0, 0.7, 30.0])  # 30 pixels: beyond every border
@pytest.mark.parametrize(
    ("size", "motion_size"), [((40, 52), (10, 13)), ((23, 37), (23, 37)), ((9, 5), (4, 2)), ((3, 2), (1, 1))]
)
def test_equals_grid_sample(size: tuple[int, int], motion_size: tuple[int, int], speed: float) -> None:
    given = arguments(size, motion_size, speed)
    total, weights = expected(**given)
    assert dcn.motion.usable(given["image"]) or torch.is_grad_enabled()
    dcn.motion.add_moved(**given)
    assert (given["total"] - total).abs().max() < 2e-5
    assert (given["weights"] - weights).abs().max() < 1e-6


def test_image_of_another_size_is_enlarged() -> None:
    """Without motion the result is bicubic interpolation."""
    image = torch.rand(3, 12, 17, generator=torch.Generator().manual_seed(1))
    total, weights = torch.zeros(3, 30, 51), torch.zeros(1, 30, 51)
    dcn.motion.add_moved(total, weights, image, torch.zeros(2, 3, 3), torch.ones(1, 3, 3))
    large = F.interpolate(image[None].double(), (30, 51), mode="bicubic")[0]
    assert (total - large).abs().max() < 2e-6
    assert torch.equal(weights, torch.ones(1, 30, 51))


def test_result_does_not_depend_on_thread_count() -> None:
    results = []
    for threads in (1, 2, 3):
        given, before = arguments((70, 40), (35, 20), 2.0), torch.get_num_threads()
        torch.set_num_threads(threads)
        dcn.motion.add_moved(**given)
        torch.set_num_threads(before)
        results.append(given["total"])
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e30])
def test_extreme_motion_changes_its_pixel_only(value: float) -> None:
    given = arguments((12, 16), (6, 8), 0.5)
    given["motion"][:, 2, 3] = value
    dcn.motion.add_moved(**given)
    assert given["total"][:, 0, 0].isfinite().all() and given["weights"].isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": torch.rand(1, 4, 4)}, r"add_moved: image must be \(3, h, w\)"),
        ({"image": torch.rand(3, 4, 4).double()}, "add_moved: image is Double, expected float32"),
        ({"weights": torch.rand(1, 5, 6)}, "weights must have the size of total"),
        ({"weight": torch.rand(1, 5, 6)}, "weight must have the size of motion"),
        ({"total": torch.rand(4, 6, 3).permute(2, 0, 1)}, "total and weights must be contiguous"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        dcn.motion.add_moved(**(arguments((4, 6), (2, 3), 1.0) | change))
