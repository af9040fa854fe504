"""Folders of frames in some of the known layouts, and videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.media import write_image
from data.video.writer import VideoWriter

RANDOM = np.random.default_rng(0)


def frames(folder: Path, count: int = 3, size=(16, 24), suffix: str = ".png", digits: int = 3, first: int = 0) -> Path:
    for number in range(first, first + count):
        write_image(folder / f"{number:0{digits}d}{suffix}", RANDOM.integers(0, 255, (*size, 3), np.uint8))
    return folder


def video(path: Path, count: int = 4, size=(16, 24)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, fps=25, lossless=True, codec="ffv1") as writer:
        for _ in range(count):
            writer.write(RANDOM.integers(0, 255, (*size, 3), np.uint8))
    return path


def jilin(root: Path, splits=("training_set", "test_set"), lr: bool = True, clips=("003", "001", "010")) -> Path:
    for split in splits:
        for clip in clips:
            frames(root / split / "GT" / clip)
            if lr:
                frames(root / split / "LR4x" / clip, size=(4, 6))
                frames(root / split / "Bicubic4x" / clip)
    return root


def names(layout) -> list[str]:
    return [pair.name for pair in layout]
