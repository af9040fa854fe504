"""Lossy compression of the low resolution for training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data.clips import ArrayClip
from data.compress import CompressedClip, Compression, compress, through_codec, through_jpeg
from engine.config import config_from_mapping
from engine.sources import open_source
from errors import InputError
from tests.engine.conftest import tiny_mapping
from tests.engine.small import moving_clip


def frames(seed: int = 0, count: int = 4, height: int = 38, width: int = 52) -> np.ndarray:
    """A clip of smooth moving waves with some texture."""
    texture = np.random.default_rng(seed).normal(0, 6, (height, width, 1))
    pictures = np.stack(list(moving_clip(count, height, width).frames))
    return np.clip(pictures + texture, 0, 255).astype(np.uint8)


def error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.square(a.astype(float) - b).mean()))


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_codecs_lose_more_at_higher_crf(codec):
    clip = frames(height=48, width=64)
    fine, coarse = through_codec(clip, codec, 15), through_codec(clip, codec, 35)
    assert fine.shape == clip.shape and fine.dtype == np.uint8
    assert 0 < error(fine, clip) < error(coarse, clip) < 25


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_compression_is_reproducible(codec):
    """Without `SAME_BYTES` x264 is not reproducible on machines with AVX-512."""
    clip = frames(count=31, height=144, width=176)
    first = through_codec(clip, codec, 23)
    assert all(np.array_equal(through_codec(clip, codec, 23), first) for _ in range(3))


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_clips_come_back_in_order(codec, count):
    """x265 gives random decoding times to streams of one or two frames."""
    clip = frames(count=count, height=64, width=80)
    for _ in range(3):
        done = through_codec(clip, codec, 18)
        errors = np.array([[error(shown, true) for true in clip] for shown in done])
        assert len(done) == count and (errors.argmin(axis=1) == np.arange(count)).all()


def test_jpeg_loses_more_at_lower_quality():
    clip = frames()
    assert 0 < error(through_jpeg(clip, 95), clip) < error(through_jpeg(clip, 30), clip) < 25


@pytest.mark.parametrize("video", [0.0, 1.0])
def test_frames_keep_their_position_and_size(video):
    """With odd sides and shifted blocks every result is closest to its own source frame, without displacement."""
    clip = frames(height=37, width=51)
    done = compress(clip, Compression(share=1, video=video, jpeg=(80, 80), crf=(18, 18)), "a")
    assert done.shape == clip.shape
    for index, frame in enumerate(done):
        inner = frame[4:-4, 4:-4]
        moved = {
            (t, y, x): error(inner, clip[t, 4 + y : 33 + y, 4 + x : 47 + x])
            for t in range(4) for y in (-1, 0, 1) for x in (-1, 0, 1)
        }  # fmt: skip
        assert min(moved, key=lambda key: moved[key]) == (index, 0, 0)


def test_block_grid_moves_from_frame_to_frame():
    still = np.repeat(frames(count=1), 3, axis=0)
    settings = Compression(share=1, video=0, jpeg=(40, 40))
    moving, fixed = compress(still, settings, "a"), compress(still, replace(settings, shift=False), "a")
    assert error(moving[0], moving[1]) > 1 and error(fixed[0], fixed[1]) == 0
    assert np.array_equal(
        fixed, through_jpeg(np.pad(still, ((0, 0), (0, 10), (0, 12), (0, 0)), "edge"), 40)[:, :38, :52]
    )


def test_clips_are_selected_by_share_and_name():
    clip, half = frames(count=1), Compression(share=0.5, video=0)
    changed = [not np.array_equal(compress(clip, half, f"clip{n}"), clip) for n in range(60)]
    assert 18 <= sum(changed) <= 42
    assert np.array_equal(compress(clip, half, "x"), compress(clip, half, "x"))
    assert compress(clip, Compression(), "x") is clip


def test_camera_blurs_sharpens_and_adds_noise():
    clip = frames(count=2)
    lossless = Compression(share=1, video=0, jpeg=(100, 100), shift=False)
    plain = [compress(clip, lossless, f"{n}") for n in range(12)]

    def changes(**camera: float) -> list[float]:
        """Edge contrast relative to the clip without `camera`, for the clips that `camera` changes."""
        done = [compress(clip, replace(lossless, **camera), f"{n}") for n in range(12)]
        steps = [
            (np.diff(a[..., 0].astype(float)).std(), np.diff(b[..., 0].astype(float)).std())
            for a, b in zip(done, plain, strict=True)
        ]
        return [a / b for a, b in steps if abs(a / b - 1) > 0.01]

    assert changes(blur=1.0) and max(changes(blur=1.0)) < 1
    assert changes(sharpen=1.0) and min(changes(sharpen=1.0)) > 1
    assert changes(noise=12.0) and min(changes(noise=12.0)) > 1


def test_clips_of_a_source_are_compressed(tmp_path):
    mapping = tiny_mapping(tmp_path)
    clean = open_source(config_from_mapping(mapping), "val")[0]
    mapping["data"]["val"] |= {"compression": {"share": 1, "video": 0, "jpeg": [20, 20]}}
    lossy = open_source(config_from_mapping(mapping), "val")[0]
    assert isinstance(lossy.lr, CompressedClip) and lossy.lr.size == clean.lr.size
    assert error(lossy.lr.array(0), clean.lr.array(0)) > 0.5
    assert np.array_equal(lossy.gt.array(0), clean.gt.array(0))
    assert lossy.lr.identity(0) != clean.lr.identity(0)


@pytest.mark.parametrize(("settings", "message"), [
    ({"jpeg": (0, 50)}, "compression.jpeg"),
    ({"crf": (30, 20)}, "compression.crf"),
    ({"codecs": ("vp9",)}, "compression.codecs"),
    ({"share": 2}, "compression.share"),
    ({"noise": -1}, "compression.noise"),
])  # fmt: skip
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Compression(**settings)


def test_deep_clips_are_refused():
    with pytest.raises(InputError, match="8 bits, not 16"):
        CompressedClip(ArrayClip("deep", np.zeros((2, 8, 8, 3), np.uint16)), Compression(share=1))
