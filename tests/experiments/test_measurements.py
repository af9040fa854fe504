"""Scripts of experiments/ that measure and draw: wrong input is one line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from data.clips import ArrayClip
from errors import InputError
from experiments import curves, scales, spacing
from tests.data.folders import frames

LOG = str(Path(curves.__file__).parent / "logs" / "mtdo_s_1.jsonl")


def black(height: int, width: int) -> ArrayClip:
    return ArrayClip("a", np.zeros((1, height, width, 3), np.uint8))


@pytest.mark.parametrize("scale", [1.1, 1.15, 2.8, 3.0, 4.35])
def test_crops_are_multiples_of_the_scale(scale: float) -> None:
    gt, low = scales.whole_pixels(black(450, 500), scale)
    assert all(abs(large - small * scale) < 1e-6 for large, small in zip(gt.size, low.size, strict=True))


@pytest.mark.parametrize(("scale", "side"), [(2.345, 500), (2.5, 4)])
def test_scales_that_fit_no_crop(scale: float, side: int) -> None:
    with pytest.raises(InputError, match=f"--scales {scale}: 'a' has no size that it divides"):
        scales.whole_pixels(black(side, side), scale)


def test_spacing_needs_two_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames(tmp_path / "clips" / "a", 1, size=(64, 64))
    monkeypatch.setattr(sys, "argv", ["spacing.py", "--datapath", str(tmp_path / "clips")])
    with pytest.raises(InputError, match="clip 'a' has one frame"):
        spacing.main()


@pytest.mark.parametrize(
    ("words", "message"),
    [(["a.png", LOG, "--smooth", "0"], "--smooth 0"), ([LOG, LOG], "expected the PNG to write, before the logs")],
)
def test_curves_of_wrong_usage(words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["curves.py", *words])
    with pytest.raises(InputError, match=message):
        curves.main()
