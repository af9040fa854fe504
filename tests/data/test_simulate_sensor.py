"""The simulated sensor: noise, optics, contrast, compression and bit depth, measured in the frames."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.degrade import imresize
from data.media import write_image
from data.simulate import simulated_layout
from errors import InputError
from metrics import psnr
from tests.data.simulated import BARE, CLEAN, STEADY, clips


def test_noise_has_the_requested_strength_and_correlation(tmp_path: Path):
    write_image(tmp_path / "grey.png", np.full((300, 300, 3), 128, np.uint8))
    settings = {"stills": [str(tmp_path)], "motion": STEADY, "objects": BARE}
    sensor = {"noise": [5, 5], "correlation": 0.6, "flicker": 0, "shot": 0.5}
    (clip,) = clips(sensor=sensor, **settings)
    frames = np.stack([clip.array(index) for index in range(5)]).astype(float)
    assert frames.std() == pytest.approx(5, rel=0.02)
    assert np.corrcoef(frames.reshape(-1, 3).T)[0, 2] == pytest.approx(0.6, abs=0.02)
    assert np.abs(np.corrcoef(frames.reshape(5, -1)) - np.eye(5)).max() < 0.02


def test_colour_noise_is_coarse_and_does_not_change_luma(tmp_path: Path):
    write_image(tmp_path / "grey.png", np.full((300, 300, 3), 128, np.uint8))
    settings = {"stills": [str(tmp_path)], "motion": STEADY, "objects": BARE}
    sensor = {**CLEAN, "bits": 16, "colour_noise": [4, 4], "colour_blur": 1.5}
    (clip,) = clips(sensor=sensor, **settings)
    frames = np.stack([clip.array(index) for index in range(3)]).astype(float) / 257
    luma = frames @ [0.299, 0.587, 0.114]
    red = frames[..., 0] - luma
    assert np.abs(luma - 128).max() < 0.1
    assert red.std() == pytest.approx(4, rel=0.02)
    neighbours = np.corrcoef(red[:, :, 1:].ravel(), red[:, :, :-1].ravel())[0, 1]
    assert neighbours == pytest.approx(np.exp(-1 / (4 * 1.5**2)), abs=0.02)  # of Gaussian-filtered white noise


def test_jpeg_compression_equals_a_jpeg_file_of_that_quality():
    """Frames equal those of a JPEG file of the clip's quality, bit for bit; the quality is drawn for each clip."""
    plain, packed = clips(clips=3), clips(clips=3, sensor={"jpeg": [20, 60]})
    qualities = [clip.scene.quality for clip in packed]
    assert len(set(qualities)) > 1 and all(20 <= quality <= 60 for quality in qualities)
    for clip, other, quality in zip(plain, packed, qualities, strict=True):
        _, stored = cv2.imencode(".jpg", clip.array(1)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        np.testing.assert_array_equal(other.array(1)[..., ::-1], cv2.imdecode(stored, cv2.IMREAD_COLOR))
        assert 1 < np.abs(other.array(1).astype(int) - clip.array(1)).mean() < 10


@pytest.mark.parametrize("sensor", [{"jpeg": [0, 50]}, {"jpeg": [20, 101]}, {"jpeg": [20, 60], "bits": 16}])
def test_impossible_compression_is_refused(sensor: dict):
    with pytest.raises(InputError, match="jpeg"):
        clips(sensor=sensor)


def test_contrast_stretches_the_still_about_its_mean(tmp_path: Path):
    rng = np.random.default_rng(0)
    write_image(tmp_path / "noise.png", rng.integers(108, 149, (300, 300, 3), dtype=np.uint8))
    settings = {"stills": [str(tmp_path)], "motion": STEADY, "objects": BARE, "sensor": CLEAN}
    (plain,), (strong,) = clips(**settings, contrast=[1, 1 + 1e-9]), clips(**settings, contrast=[2, 2])
    one, two = plain.array(0).astype(float), strong.array(0).astype(float)
    assert two.mean() == pytest.approx(one.mean(), abs=0.5)
    assert two.std() == pytest.approx(2 * one.std(), rel=0.05)


def test_optics_have_a_gaussian_response(tmp_path: Path):
    x = np.arange(400)
    wave = 128 + 100 * np.sin(2 * np.pi * 0.1 * x)[None, :, None]  # ground 2: 0.2 cycles per pixel of the frame
    write_image(tmp_path / "wave.png", np.rint(np.broadcast_to(wave, (400, 400, 3))).astype(np.uint8))
    settings = {"stills": [str(tmp_path)], "motion": STEADY, "objects": BARE, "turn": False, "ground": [2, 2]}
    contrast = {}
    for mtf in (0.0, 0.5, 0.8):
        (clip,) = clips(sensor={**CLEAN, "mtf": mtf, "bits": 16}, **settings)
        contrast[mtf] = clip.array(0)[20:-20, 20:-20].astype(float).std() / 257
    for mtf in (0.5, 0.8):
        expected = np.exp(-2 * (np.pi * 0.2 * mtf) ** 2)
        assert contrast[mtf] / contrast[0.0] == pytest.approx(expected, rel=0.03)


def test_sixteen_bits(tmp_path: Path):
    dark = np.random.default_rng(0).integers(200, 1800, (300, 300, 1)).astype(np.uint16)  # 11 bits, one band
    write_image(tmp_path / "pan.tif", dark)
    (clip,) = clips(stills=[str(tmp_path / "pan.tif")], sensor={"bits": 16}, motion=STEADY, objects=BARE)
    frame = clip.array(0)
    assert frame.dtype == np.uint16 and frame.shape == (96, 128, 3) and clip.bit_depth == 16
    assert frame.min() < 20000 and frame.max() > 45000 and len(np.unique(frame)) > 5000
    (eight,) = clips(stills=[str(tmp_path / "pan.tif")], motion=STEADY, objects=BARE)
    assert np.abs(eight.array(0).astype(float) - frame / 257).max() <= 0.51


def test_default_clips_are_as_difficult_as_real_ones():
    """Bicubic x4 gives 20.3 and 26.2 dB on two real Jilin-1 clips."""
    values = []
    for pair in simulated_layout({"clips": 4, "frames": 3}, "test"):
        assert pair.gt is not None
        gt, low = pair.gt.frame(1), pair.lr.frame(1)
        values.append(float(psnr(imresize(low, 4), gt, crop=4)))
    assert min(values) > 20 and max(values) < 27
