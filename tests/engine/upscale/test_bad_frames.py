"""Unreadable frames: the others of a folder are finished, in every format; other outputs are refused before the work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data.clips import FolderClip
from data.media import read_image, write_image
from engine.upscale.request import Request
from engine.upscale.run import upscale
from errors import InputError
from tests.engine.small import moving_clip, small_mtdo

KINDS = [(".png", np.uint8), (".png", np.uint16), (".jpg", np.uint8), (".bmp", np.uint8), (".webp", np.uint8),
         (".tif", np.uint8), (".tif", np.uint16), (".tif", np.int16)]  # fmt: skip


def folder(path: Path, suffix: str, dtype=np.uint8, frames: int = 6) -> Path:
    clip = moving_clip(frames, 16, 24)
    for index in range(frames):
        array = clip.array(index).astype(dtype) * dtype(257 if dtype == np.uint16 else 1)
        write_image(path / f"f{index:03d}{suffix}", array, quality=100)
    return path


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) * 2 // 3], "empty": b"", "text": b"no picture at all\n" * 9}[how])


@pytest.mark.parametrize(("suffix", "dtype"), KINDS)
@pytest.mark.parametrize("how", ["cut", "empty"])
def test_other_frames_are_finished(weight, tmp_path, capsys, suffix, dtype, how):
    source, out = folder(tmp_path / "in", suffix, dtype), tmp_path / "out"
    damage(source / f"f003{suffix}", how)
    with pytest.raises(InputError, match=r"f003.*; the first: .*cannot be read"):
        upscale(Request(source, out, weight, precision="fp32"))
    written = {path.stem for path in out.iterdir()}
    assert written == {f"f{index:03d}" for index in (0, 1, 2, 4, 5)}
    assert capsys.readouterr().out.count("skipped: ") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_windows_close_the_gap(weight, tmp_path):
    source = folder(tmp_path / "in", ".png")
    damage(source / "f000.png", "text")
    damage(source / "f003.png", "cut")
    with pytest.raises(InputError, match=r"2 unreadable frame\(s\) were left out \('f000.png', 'f003.png'\)"):
        upscale(Request(source, tmp_path / "out", weight, precision="fp32", scenes=False))
    good = FolderClip([source / f"f{index:03d}.png" for index in (1, 2, 4, 5)], allow_gaps=True)
    with torch.no_grad():
        expected = small_mtdo()(good.window(1, 3)[None])[0].clamp(0, 1).mul(255).round().permute(1, 2, 0).numpy()
    assert np.abs(read_image(tmp_path / "out" / "f002.png") - expected).max() <= 1


@pytest.mark.parametrize(
    "options", [{"out": "out.mp4"}, {"out": "out.tif"}, {"out": "out", "fps": "x2"}, {"out": "out", "compare": True}]
)
def test_outputs_without_a_place_for_missing_frames_are_refused(weights, tmp_path, options):
    source = folder(tmp_path / "in", ".png")
    damage(source / "f002.png", "cut")
    damage(source / "f004.png", "empty")
    out, options = tmp_path / options["out"], {key: value for key, value in options.items() if key != "out"}
    with pytest.raises(InputError, match=r"f002.png: cannot be read.*; 2 of 6 frames cannot be read$"):
        upscale(Request(source, out, weights["stno"], precision="fp32", scenes=False, **options))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_clips_and_frames_that_failed_are_reported_together(weight, tmp_path):
    for name in ("a", "b", "c"):
        folder(tmp_path / "in" / name, ".jpg", frames=3)
    damage(tmp_path / "in" / "a" / "f001.jpg", "cut")
    for index in range(3):
        damage(tmp_path / "in" / "b" / f"f{index:03d}.jpg", "empty")
    with pytest.raises(
        InputError,
        match=r"1 of 3 clips were not upscaled \('b'\).*; 1 unreadable frame\(s\) were left out \('f001.jpg'\)",
    ):
        upscale(Request(tmp_path / "in", tmp_path / "out", weight, precision="fp32"))
    made = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png"))
    assert made == ["a/f000.png", "a/f002.png", "c/f000.png", "c/f001.png", "c/f002.png"]
