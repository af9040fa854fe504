"""Folders of pictures for tests of upscaling."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.media import write_image
from engine.upscale.request import Request
from engine.upscale.run import upscale
from tests.engine.small import moving_clip


def make(source: Path, out: Path, weight: Path, **more) -> list[Path]:
    return upscale(Request(source, out, weight, precision="fp32", **more))


def frames(folder: Path, count: int = 3, suffix: str = ".png") -> Path:
    for index in range(count):
        write_image(folder / f"{index:03d}{suffix}", moving_clip(count, 16, 24).array(index))
    return folder


def photograph(path: Path, size: tuple[int, int] = (16, 24), seed: int = 0) -> Path:
    coarse = np.random.default_rng(seed).integers(0, 255, (size[0] // 4, size[1] // 4, 3))
    write_image(path, np.kron(coarse, np.ones((4, 4, 1))).astype(np.uint8))
    return path


def listed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def series(folder: Path, names: list[str], seed: int = 0) -> None:
    """Write frames of one moving pattern with these names; `seed` selects the pattern."""
    clip = moving_clip(len(names), 16, 24)
    for index, name in enumerate(names):
        write_image(folder / f"{name}.png", np.roll(clip.array(index), 7 * seed, axis=0 if seed % 2 else 1))
