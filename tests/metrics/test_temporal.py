"""tOF and warping error on known motion."""

import math

import numpy as np
import pytest
import torch

from errors import InputError
from metrics import TemporalMeter, tof, warping_error
from metrics.temporal import _sample, flow, visible_pixels

SIZE = 96


def waves(dx: float, dy: float) -> torch.Tensor:
    """A smooth analytic scene moved by (dx, dy) pixels, exact for fractions too: (3, SIZE, SIZE)."""
    y, x = torch.meshgrid(torch.arange(SIZE) - float(dy), torch.arange(SIZE) - float(dx), indexing="ij")
    scene = sum(
        torch.sin(x * fx + y * fy + phase) for fx, fy, phase in ((0.31, 0.1, 0), (-0.12, 0.27, 1), (0.2, 0.4, 2))
    )
    return (0.5 + 0.15 * scene).expand(3, -1, -1)


def clip(dx: float, dy: float, frames: int = 3) -> torch.Tensor:
    return torch.stack([waves(t * dx, t * dy) for t in range(frames)])


def test_flow_finds_a_known_shift():
    a, b = ((255 * waves(s, -0.5 * s)[0]).round().byte().numpy() for s in (0, 1.5))
    middle = flow(a, b)[20:-20, 20:-20]
    assert np.abs(middle - [1.5, -0.75]).mean() < 0.05


def test_tof_of_the_truth_is_zero():
    gt = clip(1.2, 0.4)
    assert tof(gt, gt).tolist() == [0.0, 0.0]


def test_tof_is_the_mean_flow_error():
    """The prediction moves by (2, 0), the truth by (1, 0.5): |error| is 1 and 0.5, with a mean of 0.75 over components."""
    values = tof(clip(2, 0), clip(1, 0.5))
    assert values.shape == (2,) and values.dtype == torch.float64
    assert values.tolist() == pytest.approx([0.75, 0.75], rel=0.08)


def test_tof_of_a_frozen_prediction_is_the_motion():
    gt = clip(1.0, 1.0)
    frozen = gt[:1].expand(3, -1, -1, -1)
    assert tof(frozen, gt).tolist() == pytest.approx([1.0, 1.0], rel=0.08)


def test_warping_error_of_the_truth_is_rounding_only():
    gt = clip(1.5, -0.5)
    assert max(warping_error(gt, gt).tolist()) < 0.45  # an 8-bit step is 0.39 percent; bilinear sampling adds a little
    assert max(warping_error(gt.flip(1) * 0 + 0.5, gt).tolist()) == 0.0


def test_warping_error_of_flicker_is_its_amplitude():
    """A still scene whose brightness alternates by 10 of 255 has an error of 100 * 10 / 255 percent."""
    gt = clip(0, 0, frames=4)
    flicker = torch.tensor([0.0, 10.0, 0.0, 10.0]).view(4, 1, 1, 1) / 255
    steady = (gt * 255).round() / 255
    assert warping_error(steady + flicker, gt).tolist() == pytest.approx([100 * 10 / 255] * 3, abs=0.01)


def test_warping_error_of_a_frozen_prediction():
    """With f = (2, 0) the frozen frame is compared with itself shifted by two pixels; recomputed with slices."""
    gt = clip(2, 0, frames=2)
    frozen = ((gt[:1] * 255).round() / 255).expand(2, -1, -1, -1)
    inner = frozen[0][:, 16:-16, 16:-16]
    further = frozen[0][:, 16:-16, 18:-14]
    expected = 100 * (further - inner).abs().mean().item()
    assert warping_error(frozen, gt).item() == pytest.approx(expected, rel=0.05)


def test_occluded_pixels_are_not_visible():
    still = np.zeros((20, 30, 2), np.float32)
    right = still.copy()
    right[..., 0] = 4
    seen = visible_pixels(right, -right)
    assert seen[:, :26].all() and not seen[:, 26:].any()
    assert not visible_pixels(right, still).any()
    assert visible_pixels(still, still).all()


def test_sampling_is_bilinear():
    ramp = np.arange(12, dtype=np.float32).reshape(3, 4)[..., None]
    x, y = np.array([[0.5, 2.25, 9.0]], np.float32), np.array([[0.0, 1.5, -3.0]], np.float32)
    assert _sample(ramp, x, y)[0, :, 0].tolist() == [0.5, 8.25, 3.0]


def test_warping_error_at_a_scene_cut_is_nan_or_in_range():
    gt = torch.stack([waves(0, 0), torch.zeros(3, SIZE, SIZE)])
    value = warping_error(gt, gt).item()
    assert math.isnan(value) or 0 <= value <= 100


def test_meter_equals_the_clip_functions():
    gt = clip(1, 0, frames=4)
    pred = (gt + 0.02 * torch.randn(gt.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    meter = TemporalMeter()
    gaps = [meter.add(p, g, 1 - p) for p, g in zip(pred, gt, strict=True)]
    assert gaps[0] is None
    assert [gap["tof"] for gap in gaps[1:]] == tof(pred, gt).tolist()
    assert [gap["warping_error"] for gap in gaps[1:]] == warping_error(pred, gt).tolist()
    assert [gap["gt_warping_error"] for gap in gaps[1:]] == warping_error(gt, gt).tolist()
    assert [gap["bicubic_tof"] for gap in gaps[1:]] == tof(1 - pred, gt).tolist()
    assert [gap["bicubic_warping_error"] for gap in gaps[1:]] == warping_error(1 - pred, gt).tolist()


def test_bad_input():
    with pytest.raises(InputError, match="at least two frames"):
        tof(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))
    with pytest.raises(InputError, match="at least 16"):
        tof(torch.zeros(2, 3, 8, 32), torch.zeros(2, 3, 8, 32))
    with pytest.raises(InputError, match="NaN"):
        warping_error(torch.full((2, 3, 32, 32), math.nan), torch.zeros(2, 3, 32, 32))
    meter = TemporalMeter()
    meter.add(torch.zeros(3, 32, 32), torch.zeros(3, 32, 32))
    with pytest.raises(InputError, match="in one clip"):
        meter.add(torch.zeros(3, 32, 40), torch.zeros(3, 32, 40))
