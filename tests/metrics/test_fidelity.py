"""PSNR and SSIM against scikit-image, plain NumPy and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from errors import InputError
from metrics import PSNR_CEILING, default_crop, fidelity, mean, psnr, ssim


def textured(seed: int, *shape: int) -> torch.Tensor:
    """Frames in 8-bit steps with structure at several scales, for which SSIM is informative."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((*shape[:-2], shape[-2] // 4 + 1, shape[-1] // 4 + 1), generator=generator)
    smooth = coarse.repeat_interleave(4, -2).repeat_interleave(4, -1)[..., : shape[-2], : shape[-1]]
    mixed = 0.8 * smooth + 0.2 * torch.rand(shape, generator=generator)
    return (mixed * 255).round() / 255


def degraded(gt: torch.Tensor, seed: int) -> torch.Tensor:
    """Blurred, noisy frames with a few values outside [0, 1], like the output of a network."""
    noise = 0.05 * torch.randn(gt.shape, generator=torch.Generator().manual_seed(seed))
    return 0.6 * gt + 0.4 * gt.roll(1, -1) + noise


def standard_y(frame: torch.Tensor) -> np.ndarray:
    """MATLAB's rgb2ycbcr on rounded 8-bit values, from its definition."""
    rgb = np.rint(np.clip(frame.numpy().astype(np.float64), 0, 1) * 255) / 255
    return 65.481 * rgb[0] + 128.553 * rgb[1] + 24.966 * rgb[2] + 16


def paper_y(frame: torch.Tensor) -> np.ndarray:
    rgb = frame.numpy().astype(np.float64) * 255
    return 0.299 * rgb[2] + 0.587 * rgb[1] + 0.114 * rgb[0]


def numpy_psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 20 * math.log10(255 / math.sqrt(np.mean((a - b) ** 2)))


def gaussian_ssim(a: np.ndarray, b: np.ndarray) -> float:
    return structural_similarity(
        a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=None
    )


@pytest.mark.parametrize(
    ("size", "crop"), [((11, 11), 0), ((12, 31), 0), ((40, 53), 0), ((40, 53), 4), ((64, 64), 4), ((21, 23), 5)]
)
def test_standard_agrees_with_scikit_image(size, crop):
    gt = textured(1, 3, *size)
    pred = degraded(gt, 2)
    inner = np.s_[..., crop : size[0] - crop, crop : size[1] - crop]
    a, b = standard_y(pred)[inner], standard_y(gt)[inner]
    assert psnr(pred, gt, crop=crop).item() == pytest.approx(numpy_psnr(a, b), abs=1e-6)
    assert ssim(pred, gt, crop=crop).item() == pytest.approx(gaussian_ssim(a, b), abs=1e-6)


def test_luma_is_not_rounded_and_grey_frames_have_219_levels():
    """docs/metrics.md: how much other programs differ, which round the luma or measure grey values."""
    gt = textured(21, 3, 256, 256)
    pred = gt + 0.005 * torch.randn(gt.shape, generator=torch.Generator().manual_seed(22))
    rounded = numpy_psnr(np.rint(standard_y(pred)), np.rint(standard_y(gt)))
    ours = psnr(pred, gt).item()
    assert ours - rounded == pytest.approx(10 * math.log10(1 + 10 ** (ours / 10) / (6 * 255**2)), rel=0.02)
    grey, shown = (frame[:1].expand(3, -1, -1) for frame in (gt, pred))
    above = psnr(shown, grey) - psnr(shown, grey, channel="rgb")
    assert above.item() == pytest.approx(20 * math.log10(255 / 219), abs=1e-9)


def test_standard_rgb_agrees_with_scikit_image():
    gt = textured(3, 3, 45, 38)
    pred = degraded(gt, 4)
    a, b = (np.rint(np.clip(x.numpy().astype(np.float64), 0, 1) * 255) for x in (pred, gt))
    assert psnr(pred, gt, channel="rgb").item() == pytest.approx(numpy_psnr(a, b), abs=1e-6)
    by_plane = [gaussian_ssim(a[c], b[c]) for c in range(3)]
    assert ssim(pred, gt, channel="rgb").item() == pytest.approx(np.mean(by_plane), abs=1e-6)


@pytest.mark.parametrize("size", [(1, 7), (5, 9), (40, 53)])
def test_paper_mtdo_equals_the_published_calls(size):
    gt = textured(5, 3, *size)
    pred = degraded(gt, 6)
    a, b = paper_y(pred), paper_y(gt)
    published = structural_similarity(a, b, data_range=b.max() - b.min(), channel_axis=0)
    assert psnr(pred, gt, "paper_mtdo").item() == pytest.approx(numpy_psnr(a, b), abs=1e-6)
    assert ssim(pred, gt, "paper_mtdo").item() == pytest.approx(published, abs=1e-6)


def test_paper_mtdo_rgb_is_the_mean_over_planes():
    gt = textured(7, 3, 24, 30)
    pred = degraded(gt, 8)
    a, b = (x.numpy().astype(np.float64) * 255 for x in (pred, gt))
    by_plane = [structural_similarity(a[c], b[c], data_range=b[c].max() - b[c].min(), channel_axis=0) for c in range(3)]
    assert psnr(pred, gt, "paper_mtdo", channel="rgb").item() == pytest.approx(numpy_psnr(a, b), abs=1e-6)
    assert ssim(pred, gt, "paper_mtdo", channel="rgb").item() == pytest.approx(np.mean(by_plane), abs=1e-6)


def test_protocols_differ_in_rounding_and_luma():
    """An error below half a step is rounded away in "standard"; blue weighs more in the published luma."""
    gt = torch.full((3, 16, 16), 100 / 255)
    below_rounding = gt + 0.4 / 255
    assert psnr(below_rounding, gt).item() == math.inf
    assert psnr(below_rounding, gt, "paper_mtdo").item() == pytest.approx(20 * math.log10(255 / 0.4), abs=1e-4)
    bluer = gt.clone()
    bluer[2] += 10 / 255
    assert psnr(bluer, gt).item() == pytest.approx(20 * math.log10(255 / (10 * 24.966 / 255)), abs=1e-6)
    assert psnr(bluer, gt, "paper_mtdo").item() == pytest.approx(20 * math.log10(255 / 2.99), abs=1e-4)


def test_leading_dimensions_are_kept_and_frames_are_independent():
    gt = textured(9, 2, 4, 3, 20, 24)
    pred = degraded(gt, 10)
    for measure in (psnr, ssim):
        values = measure(pred, gt)
        assert values.shape == (2, 4) and values.dtype == torch.float64
        assert values[1, 2].item() == measure(pred[1, 2], gt[1, 2]).item()
        assert measure(pred[:, :0], gt[:, :0]).shape == (2, 0)


def test_fidelity_equals_single_calls():
    gt = textured(11, 2, 3, 24, 24)
    pred = degraded(gt, 12)
    for protocol, crop in (("standard", 3), ("paper_mtdo", 0)):
        at_once = fidelity(pred, gt, protocol, crop)
        assert list(at_once) == ["psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"]
        for key, measure, channel in (("psnr_y", psnr, "y"), ("ssim_rgb", ssim, "rgb")):
            assert torch.equal(at_once[key], measure(pred, gt, protocol, crop, channel))


def test_identical_frames_and_their_mean():
    gt = textured(13, 3, 16, 16)
    assert psnr(gt, gt).item() == math.inf
    assert ssim(gt, gt).item() == pytest.approx(1, abs=1e-12)
    assert mean([math.inf, 30.0]) == (PSNR_CEILING + 30) / 2
    assert mean([math.nan, None, 25.0]) == 25.0
    assert mean([]) is None and mean([math.nan]) is None


@pytest.mark.parametrize("protocol", ["standard", "paper_mtdo"])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_constant_frames_give_finite_ssim(protocol, level):
    gt = torch.full((3, 16, 16), level)
    assert ssim(gt, gt, protocol).item() == pytest.approx(1)
    assert 0 <= ssim((gt - 0.5).abs(), gt, protocol).item() < 1


@settings(max_examples=30)
@given(
    st.integers(11, 30),
    st.integers(11, 30),
    st.integers(0, 2**20),
    st.sampled_from([torch.float16, torch.float32, torch.float64]),
)
def test_ssim_is_symmetric_and_bounded(height, width, seed, dtype):
    a, b = textured(seed, 3, height, width).to(dtype), textured(seed + 1, 3, height, width).to(dtype)
    forth, back = ssim(a, b).item(), ssim(b, a).item()
    assert forth == pytest.approx(back, abs=1e-12) and -1 <= forth <= 1
    assert psnr(a, b).item() == pytest.approx(psnr(b, a).item(), abs=1e-9)


def test_default_crop():
    assert [default_crop("standard", s) for s in (4, 2.4, 1)] == [4, 3, 1]
    assert default_crop("paper_mtdo", 4) == 0


FRAME = torch.zeros(3, 24, 24)


@pytest.mark.parametrize(
    ("pred", "gt", "options", "says"),
    [
        (FRAME, torch.zeros(3, 24, 20), {}, "differ in shape"),
        (FRAME[:1], FRAME[:1], {}, "expected (..., 3, H, W)"),
        (FRAME[0], FRAME[0], {}, "expected (..., 3, H, W)"),
        (FRAME * math.nan, FRAME, {}, "prediction has NaN"),
        (FRAME, FRAME * math.inf, {}, "ground truth has NaN or infinite"),
        (FRAME, FRAME + 200, {}, "expected values in [0, 1]"),
        (FRAME.byte(), FRAME, {}, "float tensor"),
        (FRAME, FRAME, {"crop": 12}, "leaves no pixels"),
        (FRAME, FRAME, {"crop": 7}, "smaller than the SSIM window"),
        (FRAME, FRAME, {"crop": -1}, "0 or more"),
        (FRAME, FRAME, {"crop": 2.0}, "integer"),
        (FRAME, FRAME, {"crop": 4, "protocol": "paper_mtdo"}, "crops no border"),
        (FRAME, FRAME, {"protocol": "papr"}, "standard, paper_mtdo"),
        (FRAME, FRAME, {"channel": "yuv"}, "y, rgb"),
        (FRAME[..., :8], FRAME[..., :8], {}, "smaller than the SSIM window"),
        (FRAME[..., :6], FRAME[..., :6], {"protocol": "paper_mtdo"}, "smaller than the SSIM window"),
    ],
)
def test_bad_input_is_refused_in_one_line(pred, gt, options, says):
    with pytest.raises(InputError) as error:
        ssim(pred, gt, **options)
    assert says in str(error.value) and "\n" not in str(error.value)
