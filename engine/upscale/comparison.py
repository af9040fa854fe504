"""The comparison video of `--compare`: bicubic on the left, the network on the right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np


def comparison_path(out: Path) -> Path:
    """Path of the comparison video of an output."""
    return out.with_name(f"{out.stem if out.suffix else out.name}_compare.mp4")


def pairs(left: Iterable[np.ndarray], right: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Frames (H, W, C) of both, side by side at full width: (H, 2W, C)."""
    return (np.concatenate(pair, axis=1) for pair in zip(left, right, strict=True))
