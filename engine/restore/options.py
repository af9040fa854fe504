"""Options of restoration."""

from __future__ import annotations

from dataclasses import dataclass

from engine.restore import tiles


@dataclass(frozen=True)
class Options:
    """Options of restoration. docs/upscale.md measures the effect of precision and tiles."""

    precision: str = "fp32"
    tile: int | None = None  # side in LR pixels; None: the full frame
    overlap: int = tiles.OVERLAP  # LR pixels that neighbouring tiles share
    ensemble: bool = False  # mean over the eight flips and rotations of the frames
    chunk: int = 8  # space-time: gaps in one chunk of key frames
    context: int = 4  # space-time: further key frames on each side of a chunk
    workers: int | None = None  # parallel workers (windows on a CPU); None: the fastest number, one for a single frame


DEFAULT = Options()
