"""Tiles: overlapping parts of a frame whose results are blended, so that memory is bounded at any frame size.

A tile starts at a multiple of `Network.multiple`, so that attention windows and pyramid levels have the same positions as in
the full frame, and at a position that is an integer number of output pixels. The remaining difference from the full frame comes
from the tile's smaller receptive field and from global operations: HAT's channel attention (a mean over the frame) and
STNO's Galerkin attention. docs/upscale.md measures it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd, lcm, prod

import torch
from torch import Tensor

OVERLAP = 32  # LR pixels that neighbouring tiles share
UNUSED = 1 / 4  # share of the overlap at a tile's edge that is discarded, because it depends on the tile's padding
SMALLEST = 64  # LR pixels: smaller tiles are mostly overlap


@dataclass(frozen=True)
class Span:
    """Part of one axis: LR pixels start .. stop - 1, output pixels out_start .. out_stop - 1."""

    start: int
    stop: int
    out_start: int
    out_stop: int


@dataclass(frozen=True)
class Tile:
    """One tile of a frame."""

    y: Span
    x: Span

    def crop(self, frames: Tensor) -> Tensor:
        """(..., h, w) -> the tile's part of it, a view."""
        return frames[..., self.y.start : self.y.stop, self.x.start : self.x.stop]

    @property
    def out_size(self) -> tuple[int, int]:
        return self.y.out_stop - self.y.out_start, self.x.out_stop - self.x.out_start


def plan(
    size: tuple[int, int], out_size: tuple[int, int], tile: int | None, multiple: int, overlap: int = OVERLAP
) -> list[Tile]:
    """Tiles of about `tile` x `tile` LR pixels that cover a frame of `size`; None or a large `tile`: one tile, the full
    frame.

    An axis is not divided if no multiple is an integer number of output pixels, as for a scale of 93/77.
    """
    ys, xs = (
        plan_axis(length, out, tile or max(size), multiple, overlap) for length, out in zip(size, out_size, strict=True)
    )
    return [Tile(y, x) for y in ys for x in xs]


def plan_axis(length: int, out: int, tile: int, multiple: int, overlap: int) -> list[Span]:
    """Spans of about `tile` LR pixels that cover `length`. Each overlaps the next one by at least `overlap`, and no other."""
    step = lcm(multiple, length // gcd(length, out))
    margin = -(-overlap // step) * step
    stride = max((tile - margin) // step * step, margin)
    reach = stride + margin
    if max(reach, tile) >= length:
        return [Span(0, length, 0, out)]
    spans = []
    for start in range(0, length - overlap, stride):
        stop = min(start + reach, length)
        spans.append(Span(start, stop, start * out // length, stop * out // length))
    return spans


def weights(spans: Sequence[Span]) -> list[Tensor]:
    """Blending weights of each span's output pixels, (out_stop - out_start,) float32; the sum over all spans is one.

    In the overlap of two spans, one weight falls and the other rises as a smoothstep; in the outer quarter of a span's
    overlap its weight is zero.
    """
    result = [torch.ones(span.out_stop - span.out_start, dtype=torch.float64) for span in spans]
    for number, (before, after) in enumerate(pairwise(spans)):
        shared = before.out_stop - after.out_start
        position = (torch.arange(shared, dtype=torch.float64) + 0.5) / shared
        ramp = ((position - UNUSED) / (1 - 2 * UNUSED)).clamp(0, 1)
        ramp = ramp * ramp * (3 - 2 * ramp)
        result[number][-shared:] *= 1 - ramp
        result[number + 1][:shared] *= ramp
    return [weight.float() for weight in result]


class Canvas:
    """Collects the tiles of one or more frames: (n, 3, H, W) on the CPU."""

    def __init__(self, tiles: Sequence[Tile], out_size: tuple[int, int]) -> None:
        self.tiles, self.out_size = tiles, out_size
        ys, xs = dict.fromkeys(tile.y for tile in tiles), dict.fromkeys(tile.x for tile in tiles)
        self.rows = dict(zip(ys, weights(list(ys)), strict=True))
        self.columns = dict(zip(xs, weights(list(xs)), strict=True))

    def blend(self, parts: Sequence[Tensor]) -> Tensor:
        """Results (n, 3, ., .) in the order of the tiles -> full frames."""
        if len(parts) == 1:
            return parts[0]
        # Separable weights that sum to one at every pixel, so no normalisation is needed.
        canvas = parts[0].new_zeros(*parts[0].shape[:2], *self.out_size)
        for tile, part in zip(self.tiles, parts, strict=True):
            y, x = tile.y, tile.x
            place = canvas[..., y.out_start : y.out_stop, x.out_start : x.out_stop]
            rows, columns = (weight.to(part, non_blocking=True) for weight in (self.rows[y], self.columns[x]))
            place += part * (rows[:, None] * columns)
        return canvas


def halved(
    tiles: Sequence[Tile], size: tuple[int, int], out_size: tuple[int, int], multiple: int, overlap: int = OVERLAP
) -> tuple[int, list[Tile]] | None:
    """Smaller tiles after an out-of-memory error, and their side; None if there are none, or if they would be mostly overlap.

    Further arguments as of `plan`.
    """
    side, pixels = max(max(_lengths(tile)) for tile in tiles), _largest(tiles)
    while (side := side // 2) >= max(2 * overlap, 1):
        smaller = plan(size, out_size, side, multiple, overlap)
        if _largest(smaller) < pixels:  # an axis that cannot be divided keeps its length at any `side`
            return side, smaller
    return None


def _lengths(tile: Tile) -> tuple[int, int]:
    return tile.y.stop - tile.y.start, tile.x.stop - tile.x.start


def _largest(tiles: Sequence[Tile]) -> int:
    """LR pixels of the largest tile."""
    return max(prod(_lengths(tile)) for tile in tiles)
