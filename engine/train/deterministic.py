"""Training that gives the same bits in every run, on GPUs too (`train.deterministic`), at lower speed.

PyTorch's deterministic mode does most of it. The backward passes of three functions that the networks use have no deterministic form on
GPUs and raise an error; in this mode gathers, matrix products and comparisons replace them, which are deterministic. The
deformable convolution has its own deterministic form (docs/dcn.md).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from formulas import keys_cubic

CUBIC = -0.75  # PyTorch's bicubic kernel


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Enable PyTorch's deterministic mode, and replace its functions by those below for GPU tensors."""
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS requires it before its first use
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        with Replaced():
            yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


class Replaced(TorchFunctionMode):
    """Calls the functions of this module for tensors of `device`."""

    def __init__(self, device: str = "cuda") -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        replacement = REPLACEMENTS.get(func)
        if replacement is not None and args and args[0].device.type == self.device:
            return replacement(*args, **kwargs)
        return func(*args, **kwargs)


def grid_sample(
    input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> Tensor:
    """As `F.grid_sample` of (N, C, h, w) at (N, H, W, 2), bilinear or bicubic, padded with zeros or the border."""
    if mode not in ("bilinear", "bicubic") or padding_mode not in ("zeros", "border"):
        raise NotImplementedError(f"grid_sample with {mode}, {padding_mode} has no deterministic form here")
    sizes = input.shape[3], input.shape[2]  # as the grid: x, y
    clip = padding_mode == "border" and mode == "bilinear"
    taps = [
        _taps(_pixels(grid[..., axis], size, bool(align_corners), clip), size, mode, padding_mode)
        for axis, size in enumerate(sizes)
    ]
    flat, total = input.flatten(2), input.new_zeros(())
    for row, row_weight in taps[1]:
        for column, column_weight in taps[0]:
            index = (row * sizes[0] + column).flatten(1).unsqueeze(1).expand(-1, input.shape[1], -1)
            total = total + flat.gather(2, index).unflatten(2, grid.shape[1:3]) * (
                row_weight * column_weight
            ).unsqueeze(1)
    return total


def _pixels(position: Tensor, size: int, align_corners: bool, clip: bool) -> Tensor:
    """Convert positions in [-1, 1] to pixels."""
    pixels = (position + 1) / 2 * (size - 1) if align_corners else ((position + 1) * size - 1) / 2
    return pixels.clamp(0, size - 1) if clip else pixels


def _taps(pixels: Tensor, size: int, mode: str, padding_mode: str) -> list[tuple[Tensor, Tensor]]:
    """Indices and weights of the pixels of one axis that contribute to a sample."""
    first = pixels.detach().floor()
    fraction = pixels - first
    if mode == "bilinear":
        weights = [(0, 1 - fraction), (1, fraction)]
    else:
        weights = [(tap, keys_cubic((fraction - tap).abs(), CUBIC)) for tap in (-1, 0, 1, 2)]
    taps = []
    for tap, weight in weights:
        index = first + tap
        if padding_mode == "zeros":
            weight = torch.where((index >= 0) & (index < size), weight, 0.0)
        taps.append((index.clamp(0, size - 1).long(), weight))
    return taps


def interpolate(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", **settings: Any
) -> Tensor:
    """As `F.interpolate`; bicubic as two matrix products. PyTorch has a deterministic form of bilinear itself."""
    if mode != "bicubic" or size is None:
        return F.interpolate(input, size, scale_factor, mode, **settings)

    def matrix(old: int, new: int) -> Tensor:
        unit = torch.eye(old, device=input.device, dtype=input.dtype).view(1, old, old, 1)
        return F.interpolate(unit, (new, 1), mode=mode, **settings)[0, :, :, 0].T

    return matrix(input.shape[2], size[0]) @ input @ matrix(input.shape[3], size[1]).T


def max_pool2d(
    input: Tensor, kernel_size: int, stride: int | None = None, padding: int = 0, *others: Any, **settings: Any
) -> Tensor:
    """As `F.max_pool2d`, with square kernels; the gradient of equal maxima goes to the first one, as in PyTorch."""
    if any(others) or settings.get("dilation", 1) != 1 or settings.get("ceil_mode") or settings.get("return_indices"):
        raise NotImplementedError("max_pool2d with dilation, ceil_mode or indices has no deterministic form here")
    step = stride or kernel_size
    padded = F.pad(input, [padding] * 4, value=float("-inf"))
    height, width = ((side - kernel_size) // step + 1 for side in padded.shape[-2:])
    best: Tensor | None = None
    for y in range(kernel_size):
        for x in range(kernel_size):
            part = padded[..., y : y + step * (height - 1) + 1 : step, x : x + step * (width - 1) + 1 : step]
            best = part if best is None else torch.where((part > best) | part.isnan(), part, best)
    assert best is not None
    return best


REPLACEMENTS: dict[Any, Callable[..., Tensor]] = {
    F.grid_sample: grid_sample,
    F.interpolate: interpolate,
    F.max_pool2d: max_pool2d,
    torch.max_pool2d: max_pool2d,
}
