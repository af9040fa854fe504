"""Detection of lossy sources."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from data.clips import FolderClip, VideoClip
from data.video.writer import VideoWriter
from engine.upscale import quality, run
from engine.upscale.request import Request
from tests.engine.small import moving_clip


def noisy(count: int = 4) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 8, (count, 64, 96, 3))
    return np.clip(moving_clip(count, 64, 96).frames + noise, 0, 255).astype(np.uint8)


def video(path, **options) -> VideoClip:
    with VideoWriter(path, fps=25, **options) as writer:
        for frame in noisy():
            writer.write(frame)
    return VideoClip(path)


@pytest.mark.parametrize("asked", [20, 50, 60, 85, 95])
def test_jpeg_quality_from_the_quantization_table(tmp_path, asked):
    Image.fromarray(noisy()[0]).save(tmp_path / "a.jpg", quality=asked)
    assert abs(quality.jpeg_quality(tmp_path / "a.jpg") - asked) <= 1
    assert quality.loss(FolderClip(tmp_path)) == f"JPEG of quality {quality.jpeg_quality(tmp_path / 'a.jpg')}"


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("a.png", {}, None), ("a.jpg", {"quality": 99}, None), ("a.webp", {"quality": 80}, "lossy WebP"),
        ("a.webp", {"lossless": True}, None), ("a.tif", {}, None),
    ],
)  # fmt: skip
def test_images(tmp_path, name, options, expected):
    Image.fromarray(noisy()[0]).save(tmp_path / name, **options)
    assert quality.loss(FolderClip(tmp_path)) == expected


def test_videos(tmp_path):
    assert quality.loss(video(tmp_path / "a.mkv", codec="ffv1")) is None
    assert quality.loss(video(tmp_path / "b.mp4", codec="h264", lossless=True)) is None
    assert str(quality.loss(video(tmp_path / "c.mp4", codec="h264", crf=30))).startswith("h264 at 0.")


def test_option_overrides_the_detection(tmp_path, capsys):
    clip = video(tmp_path / "c.mp4", crf=30)
    asked = [Request(tmp_path / "c.mp4", tmp_path / "out", quality=name) for name in ("clean", "compressed")]
    assert [run.is_lossy(clip, request) for request in asked] == [False, True]
    assert not run.is_lossy(clip, Request(tmp_path / "c.mp4", tmp_path / "out", weight=tmp_path / "w.safetensors"))
    assert capsys.readouterr().out == ""
