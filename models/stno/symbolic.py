"""The query and the bicubic residual for sizes that are symbols of an exported graph.

`Query` plans slabs of output rows from numbers. Here the same sums are formed over full maps, and every size may be a
symbol. Both forms are separable: along an axis, an output pixel has a lower and an upper LR cell, each with a weight and a
distance (models/stno/query.py). Full maps take memory, so frames are rendered one at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from formulas import keys_cubic

Fold = Callable[[Tensor, Tensor], Any]  # sizes of an output pixel along y and x -> `models.stno.query.Folded`


class AxisCells(NamedTuple):
    """The LR cells of the output pixels of one axis."""

    lower: Tensor  # (outputs,) int64: the cell before the pixel's centre, -1 .. cells - 1
    fraction: Tensor  # (outputs,): distance from that cell's centre, 0 .. 1
    cells: Any  # number of LR cells
    cell_size: Tensor  # size of an output pixel, as in `models.stno.query.Axis`

    def neighbour(self, step: int) -> Tensor:
        """The cell `step` after the lower one, clamped to the axis."""
        return (self.lower + step).clamp(min=0).minimum(torch.zeros_like(self.lower) + (self.cells - 1))

    def weights(self) -> Tensor:
        """Weights of the lower and the upper cell (2, outputs): bilinear; one half each if both are the same cell."""
        border = (self.lower < 0) | (self.lower >= self.cells - 1)
        upper = torch.where(border, torch.full_like(self.fraction, 0.5), self.fraction)
        return torch.stack([1 - upper, upper])

    def distances(self) -> Tensor:
        """Relative coordinates to the lower and the upper cell (2, outputs); the size of a cell is 2."""
        twice = 2 * self.fraction
        first, last = self.lower < 0, self.lower >= self.cells - 1
        return torch.stack([torch.where(first, twice - 2, twice), torch.where(last, twice, twice - 2)])


def locate(outputs: Any, cells: Any, like: Tensor) -> AxisCells:
    """As `models.stno.query.locate`: exact integers decide about the cells."""
    # From cell -1, in units of 1 / (2 * outputs) cells
    position = (2 * torch.arange(outputs, device=like.device) + 1) * cells + outputs
    step = torch.div(position, 2 * outputs, rounding_mode="floor")
    fraction = (position - step * (2 * outputs)).double() / (2 * outputs)
    size = torch.zeros((), dtype=torch.float64, device=like.device) + cells
    size = 2 * torch.maximum(size / outputs, torch.full_like(size, 0.25))
    return AxisCells(step - 1, fraction.to(like), cells, size.to(like))


def blend(maps: list[Tensor], cells: list[Tensor], weights: Tensor, axis: int) -> Tensor:
    """Sum over i of maps[i] at cells[i], times weights[i], along `axis`."""
    shape = [1] * maps[0].dim()
    shape[axis] = -1
    return reduce(torch.add, [x.index_select(axis, cells[i]) * weights[i].view(shape) for i, x in enumerate(maps)])


def query(features: Tensor, size: tuple[Any, Any], fold: Fold, colour: nn.Conv2d, shortcut: nn.Module) -> Tensor:
    """`Query.forward` without slabs: features (N, C, h, w) -> colours (N, 3, H, W). fold, colour, shortcut: of the `Query`."""
    y, x = (locate(side, cells, features) for side, cells in zip(size, features.shape[-2:], strict=True))
    folded, shortcuts = fold(y.cell_size, x.cell_size), shortcut(features)
    frames = [_query_frame(frame, folded, colour, y, x) for frame in features]
    return torch.stack([frame + _bilinear(short, y, x) for frame, short in zip(frames, shortcuts, strict=True)])


def _query_frame(features: Tensor, folded: Any, colour: nn.Conv2d, y: AxisCells, x: AxisCells) -> Tensor:
    """(C, h, w) -> (3, H, W), without the shortcut."""
    pixels = features.permute(1, 2, 0)
    rows, columns = [y.neighbour(0), y.neighbour(1)], [x.neighbour(0), x.neighbour(1)]
    sides = [blend([pixels @ folded.corners[i, j] for i in (0, 1)], rows, y.weights(), 0) for j in (0, 1)]
    hidden = blend(sides, columns, x.weights(), 1) + (x.distances().T @ folded.dx)
    hidden = hidden + (y.distances().T @ folded.dy + folded.constant).unsqueeze(1)
    return F.linear(F.gelu(hidden), colour.weight.flatten(1), colour.bias).permute(2, 0, 1)


def _bilinear(image: Tensor, y: AxisCells, x: AxisCells) -> Tensor:
    """(3, h, w) -> (3, H, W)."""
    rows, columns = [y.neighbour(0), y.neighbour(1)], [x.neighbour(0), x.neighbour(1)]
    return blend([blend([image] * 2, rows, y.weights(), 1)] * 2, columns, x.weights(), 2)


def bicubic(images: Tensor, size: tuple[Any, Any]) -> Tensor:
    """As F.interpolate(size=size, mode="bicubic", align_corners=False) on (N, 3, h, w)."""
    for axis, outputs in ((2, size[0]), (3, size[1])):
        place = locate(outputs, images.shape[axis], images)
        taps = [place.neighbour(step) for step in (-1, 0, 1, 2)]
        distances = torch.stack([place.fraction - step for step in (-1, 0, 1, 2)]).abs()
        images = blend([images] * 4, taps, keys_cubic(distances, a=-0.75), axis)  # a of PyTorch
    return images
