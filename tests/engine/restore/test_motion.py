"""Motion between LR frames: known shifts, still scenes with noise, moving objects."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.restore import motion
from tests.engine.restore.test_temporal_filter import texture


def shifted(luma: Tensor, x: float, y: float) -> Tensor:
    """luma(p - (x, y)) for an image (h, w), exact by its Fourier transform."""
    (h, w), phase = luma.shape, 2j * torch.pi
    factors = torch.exp(-phase * (torch.fft.fftfreq(h)[:, None] * y + torch.fft.fftfreq(w) * x))
    return torch.fft.ifft2(torch.fft.fft2(luma) * factors).real


def noisy(luma: Tensor, seed: int, level: float = 2 / 255) -> Tensor:
    return luma + level * torch.randn(luma.shape, generator=torch.Generator().manual_seed(seed))


def luma_of(height: int, width: int) -> Tensor:
    return F.avg_pool2d(texture(2 * height, 2 * width), 2).mean(0)


def test_motion_of_a_known_shift() -> None:
    luma = texture(64, 80).mean(0)
    for gain in (1.0, 0.02):  # of the contrast
        found = motion.motion(luma * gain, luma.roll((2, -3), (0, 1)) * gain)[:, 12:-12, 12:-12]
        assert found[0].mean() == pytest.approx(-3, abs=0.02) and found[1].mean() == pytest.approx(2, abs=0.02)


def test_no_motion_where_there_is_nothing_to_measure() -> None:
    luma = texture(64, 80).mean(0)
    assert motion.motion(luma[:12], luma[:12]).abs().max() == 0  # smaller than DIS takes
    assert motion.motion(torch.zeros(32, 32), torch.zeros(32, 32)).abs().max() == 0
    assert motion.motion(torch.full((32, 32), torch.nan), torch.zeros(32, 32)).abs().max() == 0


def test_a_drifting_scene_has_one_motion() -> None:
    """The flow is as noisy as the frames; the translation is accurate to a few thousandths of a pixel, everywhere."""
    luma = luma_of(64, 80)
    first, second = noisy(luma, 1), noisy(shifted(luma, 0.04, -0.02), 2)
    expected = torch.tensor([0.04, -0.02]).view(2, 1, 1)
    dense = torch.from_numpy(motion.flow(first.clamp(0, 1).numpy(), second.clamp(0, 1).numpy())).permute(2, 0, 1)
    found = motion.motion(first, second)
    assert (dense - expected)[:, 8:-8, 8:-8].square().mean().sqrt() > 0.02
    assert (found - expected).square().mean().sqrt() < 0.01


def test_an_object_keeps_its_own_motion() -> None:
    """A square that moves by 2 pixels in a still scene."""
    ground, square = luma_of(64, 80), luma_of(24, 24).flip(0) * 0.8
    frames = []
    for x in (28, 30):
        frame = ground.clone()
        frame[20:44, x : x + 24] = square
        frames.append(noisy(frame, x, 1 / 255))
    found = motion.motion(*frames)
    assert found[0, 26:38, 34:46].mean() == pytest.approx(2, abs=0.1)
    assert found[:, :10].abs().flatten().quantile(0.95) < 0.01
