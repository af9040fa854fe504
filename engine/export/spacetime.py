"""STNO as a graph of free sizes: what `engine.export --free` writes.

The network plans in Python what depends on sizes: the query its slabs of output rows, the Galerkin blocks their chunks of
tokens. Here the same sums are formed over whole maps, and sizes are numbers of the graph. The query is the separable form
of `models.stno.query`: along an axis, an output pixel sees a lower and an upper cell, each with a weight and a distance.
Whole maps cost memory: one output frame of `query_width` channels at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.stno import galerkin, propagation
from models.stno.interpolation import Flows
from models.stno.query import Query

CUBIC = -0.75  # PyTorch's kernel


class Places(NamedTuple):
    """Where the outputs of one axis fall among its cells."""

    lower: Tensor  # (outputs,) int64: the cell before, -1 .. cells - 1
    fraction: Tensor  # (outputs,): how far beyond it, 0 .. 1
    cells: Any  # their number
    cell_size: Tensor  # of an output pixel, as in `models.stno.query.Axis`

    def near(self, step: int) -> Tensor:
        """The cell `step` after the lower one, within the axis."""
        return (self.lower + step).clamp(min=0).minimum(torch.zeros_like(self.lower) + (self.cells - 1))

    def shares(self) -> Tensor:
        """Weights of lower and upper cell (2, outputs): bilinear, one half each where both are the same one."""
        border = (self.lower < 0) | (self.lower >= self.cells - 1)
        upper = torch.where(border, torch.full_like(self.fraction, 0.5), self.fraction)
        return torch.stack([1 - upper, upper])

    def distances(self) -> Tensor:
        """Relative coordinates to lower and upper cell (2, outputs); a cell is 2."""
        twice = 2 * self.fraction
        first, last = self.lower < 0, self.lower >= self.cells - 1
        return torch.stack([torch.where(first, twice - 2, twice), torch.where(last, twice, twice - 2)])


def places(outputs: Any, cells: Any, like: Tensor) -> Places:
    """As `models.stno.query.locate`: integers decide on the cells."""
    position = (
        2 * torch.arange(outputs, device=like.device) + 1
    ) * cells + outputs  # beyond cell -1, in 1 / (2 * outputs)
    step = torch.div(position, 2 * outputs, rounding_mode="floor")
    fraction = (position - step * (2 * outputs)).double() / (2 * outputs)
    size = torch.zeros((), dtype=torch.float64, device=like.device) + cells
    size = 2 * torch.maximum(size / outputs, torch.full_like(size, 0.25))
    return Places(step - 1, fraction.to(like), cells, size.to(like))


def blend(maps: list[Tensor], at: list[Tensor], weights: Tensor, axis: int) -> Tensor:
    """Sum over i of maps[i] at cells at[i], times weights[i], along `axis`."""
    shape = [1] * maps[0].dim()
    shape[axis] = -1
    return reduce(torch.add, [map_.index_select(axis, at[i]) * weights[i].view(shape) for i, map_ in enumerate(maps)])


def query(network: Query, features: Tensor, y: Places, x: Places) -> Tensor:
    """Features (C, h, w) of one frame -> colours (3, H, W); as `Query.forward`, without slabs."""
    folded = network.fold(y.cell_size, x.cell_size)
    pixels = features.permute(1, 2, 0)
    rows, columns = [y.near(0), y.near(1)], [x.near(0), x.near(1)]
    sides = [blend([pixels @ folded.corners[i, j] for i in (0, 1)], rows, y.shares(), 0) for j in (0, 1)]
    hidden = blend(sides, columns, x.shares(), 1) + (x.distances().T @ folded.dx)
    hidden = hidden + (y.distances().T @ folded.dy + folded.constant).unsqueeze(1)
    colours = F.linear(F.gelu(hidden), network.colour.weight.flatten(1), network.colour.bias).permute(2, 0, 1)
    short = network.shortcut(features.unsqueeze(0))[0]
    return colours + blend([blend([short] * 2, rows, y.shares(), 1)] * 2, columns, x.shares(), 2)


def bicubic(image: Tensor, y: Places, x: Places) -> Tensor:
    """As F.interpolate(mode="bicubic", align_corners=False) on (3, h, w)."""
    for axis, place in ((1, y), (2, x)):
        taps = [place.near(step) for step in (-1, 0, 1, 2)]
        image = blend([image] * 4, taps, cubic_weights(place.fraction), axis)
    return image


def cubic_weights(t: Tensor) -> Tensor:
    """Keys' kernel at the distances t + 1, t, 1 - t, 2 - t: (4, outputs)."""

    def inner(d: Tensor) -> Tensor:
        return ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1

    def outer(d: Tensor) -> Tensor:
        return ((CUBIC * d - 5 * CUBIC) * d + 8 * CUBIC) * d - 4 * CUBIC

    return torch.stack([outer(t + 1), inner(t), inner(1 - t), outer(2 - t)])


class FreeSpaceTime(nn.Module):
    """STNO for T key frames and K times: frames (1, T, 3, h, w), times (K,), size (2,) int64 -> (1, T + (T-1) * K, 3, H, W).

    h and w are multiples of 8, from 16 on; size is (H, W), any.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor, times: Tensor, size: Tensor) -> Tensor:
        sides = size.tolist()
        for side in sides:
            torch._check(side >= 1)
        keys, inserted, between = self.features(frames.transpose(0, 1), times.unsqueeze(0))
        y, x = (places(side, cells, frames) for side, cells in zip(sides, frames.shape[-2:], strict=True))
        out = []
        for i in range(len(keys)):
            steps = [(frames[:, i], keys[i])]
            if i + 1 < len(keys):
                steps += [(between[i, k], inserted[i, k]) for k in range(len(times))]
            out += [self.render(image[0], features[0], y, x) for image, features in steps]
        return torch.stack(out).unsqueeze(0)

    def render(self, image: Tensor, features: Tensor, y: Places, x: Places) -> Tensor:
        """One LR frame (3, h, w) and its features (C, h, w) -> (3, H, W)."""
        restored = query(self.network.query, features, y, x)
        return restored + bicubic(image, y, x) if self.network.config.residual == "bicubic" else restored

    def features(self, frames: Tensor, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `STNO.features`, but the time whose key frames are taken is chosen in the graph: frames (T, 1, 3, h, w)."""
        network, count = self.network, times.shape[1]
        between, flows = network._interpolate(frames, times, clamp=True)
        if network.config.times_mode == "shared" or count == 1:
            return *network.propagation(frames, between, flows), between
        single = []
        for k in range(count):
            one = slice(k, k + 1)
            single.append(network.propagation(frames, between[:, one], Flows(*(flow[:, one] for flow in flows))))
        chosen = (times[0] - 0.5).abs().argmin(0, keepdim=True)
        keys = torch.stack([keys for keys, _ in single]).index_select(0, chosen)[0]
        return keys, torch.cat([inserted for _, inserted in single], dim=1), between


def attend(
    self: galerkin.GalerkinAttention, tokens: Tensor, other: Tensor, coordinates: Tensor
) -> tuple[Tensor, Tensor]:
    """`GalerkinAttention.forward` in one piece."""
    key, value = (self._split(x) for x in self.key_value(other).chunk(2, dim=-1))
    key = self.key_norm(key).transpose(-1, -2) / other.shape[1]
    moved = key @ self.coordinate_norm(self._split(self.coordinate(coordinates)))
    return self._answer(tokens, coordinates, key @ self.value_norm(value), moved)


def feed(self: galerkin.FeedForward, tokens: Tensor, height: int, width: int) -> Tensor:
    """`FeedForward.forward` in one piece."""
    maps = self.depthwise(self.expand(tokens).transpose(1, 2).unflatten(2, (height, width)))
    return self.reduce(F.gelu(maps.flatten(2).transpose(1, 2)))


def grid(height: int, width: int, like: Tensor) -> Tensor:
    """`galerkin.coordinate_grid` without linspace, which the exporter writes for one size."""
    ys, xs = (2 * torch.arange(side, device=like.device).to(like) / (side - 1) - 1 for side in (height, width))
    return torch.stack([xs.expand(height, -1), ys.unsqueeze(1).expand(-1, width)], dim=-1).flatten(0, 1)


@contextmanager
def whole_maps() -> Iterator[None]:
    """The parts of STNO that plan in Python do their work in one piece, and no parameter is read as a number."""
    parts = [
        (galerkin.GalerkinAttention, "forward", attend),
        (galerkin.FeedForward, "forward", feed),
        (galerkin, "coordinate_grid", grid),
        (propagation, "prelu", lambda x, act: act(x)),
    ]
    kept = [getattr(owner, name) for owner, name, _ in parts]
    try:
        for owner, name, part in parts:
            setattr(owner, name, part)
        yield
    finally:
        for (owner, name, _), part in zip(parts, kept, strict=True):
            setattr(owner, name, part)
