"""Multi-scale SSIM against piq and in closed form."""

import pytest
import torch

from errors import InputError
from metrics import MS_SSIM_SIDE, ms_ssim, planes
from tests.metrics.optional import package


def frames(height: int, width: int, noise: float = 0.05) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth noisy frame and a disturbed version of it."""
    generator = torch.Generator().manual_seed(height + width)
    gt = torch.nn.functional.avg_pool2d(torch.rand(3, height, width, generator=generator), 3, 1, 1)
    return (gt + noise * torch.randn(gt.shape, generator=generator)).clamp(0, 1), gt


@pytest.mark.parametrize("channel", ["y", "rgb"])
def test_equals_piq_for_multiples_of_sixteen(channel):
    piq = package("piq")
    pred, gt = frames(176, 192)
    shown, truth = (planes(frame, channel=channel)[None] for frame in (pred, gt))
    assert ms_ssim(pred, gt, channel=channel).item() == pytest.approx(
        piq.multi_scale_ssim(shown, truth, data_range=255.0).item(), abs=1e-9
    )


def test_identical_frames_give_one_and_noise_lowers_it():
    pred, gt = frames(171, 165)
    assert ms_ssim(gt, gt).item() == pytest.approx(1.0, abs=1e-12)
    assert ms_ssim(frames(171, 165, 0.2)[0], gt) < ms_ssim(pred, gt) < 1


def test_batch_and_crop_equal_single_cropped_frames():
    pred, gt = frames(176, 192)
    both = ms_ssim(torch.stack([pred, gt]), torch.stack([gt, gt]), crop=4)
    assert both.shape == (2,)
    inner = (..., slice(4, -4), slice(4, -4))
    assert both[0].item() == ms_ssim(pred[inner], gt[inner]).item()


def test_small_frames_are_refused_in_one_line():
    pred, gt = frames(MS_SSIM_SIDE - 1, 200)
    with pytest.raises(InputError, match="161 pixels a side"):
        ms_ssim(pred, gt)
