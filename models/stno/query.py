"""Query: a frame's features at any resolution (arXiv 2404.06036, section on the query; the kernel is SRNO's first
layer).

For every output pixel, the published form gathers the features of four neighbouring cells weighted by areas, their relative
coordinates and the cell size (4 * 64 + 8 + 2 channels), and applies three 1x1 layers. There is no activation between the
first two, so they are one linear map, and it can be applied to the LR features before they are gathered: four maps, one for
each corner.

The input of the GELU is bilinear in the position inside an interval between the centres of neighbouring LR cells: the area
weights are those of bilinear interpolation, and each relative coordinate is linear. An axis of n cells has n + 1 intervals;
interval j is between the cells j - 1 and j. In the first and the last interval both cells are the same one (the clamped
border): both distances are equal, so both weights are one half, and the coordinates are still linear. The same rule covers
the centre of the last cell, where both distances are zero and the ratio of areas is undefined.

So a frame is rendered in slabs of output rows: the LR rows of a slab are multiplied by the corner matrices, blended along y
at LR width, then along x; then GELU and the last layer. No map is larger than a slab. For inference on CPUs `dcn.query` does
this in one compiled operator; `models.stno.symbolic` does it for graphs whose sizes are symbols.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import dcn
from formulas import exact_type
from models.layers import weight_and_bias
from models.stno import symbolic

SLAB_PIXELS = {"cpu": 1 << 13, "cuda": 1 << 18}  # output pixels at a time: a slab fits a CPU's cache, or fills a GPU
TRAINING_SLAB_PIXELS = {"cpu": 1 << 14, "cuda": 1 << 20}  # the same in training
KEPT_VALUES = 1 << 25  # training: hidden maps up to 128 MB are kept for the backward pass, larger ones are recomputed


class Axis(NamedTuple):
    """Positions of the output pixels of one axis between the LR cells."""

    interval: Tensor  # (outputs,) int64, ascending, 0 .. cells
    fraction: Tensor  # (outputs,) of the device's `exact_type`, position inside the interval, 0 .. 1
    cells: int
    cell_size: float  # of an output pixel, in half LR pixels; at least a quarter LR pixel


class Folded(NamedTuple):
    """The first two layers as one linear map. Corners: upper and lower row, in each left and right column."""

    corners: Tensor  # (2, 2, C, width)
    dy: Tensor  # (2, width): factor of the relative y coordinate to the upper and to the lower row
    dx: Tensor  # (2, width): of the relative x coordinate to the left and to the right column
    constant: Tensor  # (width,): cell size and biases


def locate(outputs: int, cells: int, device: torch.device | None = None) -> Axis:
    """Locate output pixels with exact integers: rounding cannot move an output pixel into a neighbouring interval.

    On a GPU the tensors are created on the device: a copy from the CPU would wait for it.
    """
    # In units of 1 / (2 * outputs) LR pixels
    position = (2 * torch.arange(outputs, device=device) + 1) * cells - outputs
    lower = torch.div(position, 2 * outputs, rounding_mode="floor")
    fraction = (position - lower * 2 * outputs).to(exact_type(device)) / (2 * outputs)
    return Axis(lower + 1, fraction, cells, 2 / outputs * max(outputs / cells / 4, 1) * cells)


def end_shifts(intervals: Tensor, cells: int, factors: Tensor) -> Tensor:
    """Contribution of the relative coordinates at both ends of each interval of an axis: (intervals, end, width).

    The size of an LR pixel is 2. factors (cell, width): of the coordinates to the interval's lower and upper cell.
    """
    # The position of both ends, from the lower cell
    ends = 2 * torch.arange(2, device=factors.device, dtype=factors.dtype)
    to_lower = ends - 2 * (intervals == 0).to(factors).unsqueeze(1)  # the first interval has only its upper cell,
    to_upper = ends - 2 * (intervals != cells).to(factors).unsqueeze(1)  # the last one only its lower cell
    return torch.stack([to_lower, to_upper], dim=-1) @ factors


def take(maps: Tensor, axis: int, index: Tensor) -> Tensor:
    """`maps.index_select(axis, index)`, computed along the first axis, where PyTorch copies full rows: along an inner axis
    `index_select` is many times slower on CPUs.
    """
    outer, inner = maps.shape[:axis], maps.shape[axis + 1 :]
    starts = torch.arange(math.prod(outer), device=maps.device) * maps.shape[axis]
    taken = maps.flatten(0, axis).index_select(0, (starts.unsqueeze(1) + index).flatten())
    return taken.view(*outer, len(index), *inner)


def average_ends_(intervals: range, cells: int, ends: tuple[Tensor, Tensor], axis: int) -> None:
    """In place: in the first and the last interval of an axis both cells are the same one, so both ends become the mean of
    their two corner maps.
    """
    borders = sorted({0, cells} & {intervals[0], intervals[-1]})
    if not borders:
        return
    first, last = borders[0] - intervals[0], borders[-1] - intervals[0]
    index = torch.arange(first, last + 1, max(last - first, 1), device=ends[0].device)
    mean = (ends[0].index_select(axis, index) + ends[1].index_select(axis, index)) / 2
    for end in ends:
        end.index_copy_(axis, index, mean)


class Slab(NamedTuple):
    """Output rows start .. stop - 1, and the intervals that they fall into."""

    start: int
    stop: int
    intervals: range


def plan_slabs(outputs: int, cells: int, rows: int) -> list[Slab]:
    """Slabs of at most `rows` rows. An interval that fits is not split, so that its maps are computed once."""
    intervals = locate(outputs, cells).interval
    counts = torch.bincount(intervals, minlength=cells + 1).tolist()
    of_row = intervals.tolist()
    slabs, start, stop = [], 0, 0

    def add(begin: int, end: int) -> None:
        slabs.append(Slab(begin, end, range(of_row[begin], of_row[end - 1] + 1)))

    for count in counts:
        if stop > start and stop + count - start > rows:
            add(start, stop)
            start = stop
        stop += count
        while stop - start > rows:
            add(start, start + rows)
            start += rows
    if stop > start:
        add(start, stop)
    return slabs


class Query(nn.Module):
    """Features (N, C, h, w) -> colours (N, 3, H, W) at any size.

    The parameters keep the shapes of the published layers.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.gather = nn.Conv2d(4 * channels + 10, width, 1)
        self.mix = nn.Conv2d(width, width, 1)
        self.colour = nn.Conv2d(width, 3, 1)
        self.shortcut = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, 3, 1))
        self.symbolic = False  # during export, sizes are symbols of the graph

    def forward(self, features: Tensor, size: tuple[int, int], slab_pixels: int | None = None) -> Tensor:
        """slab_pixels: output pixels processed at a time (at least one row); None: by device. The compiled operator ignores
        it.
        """
        if self.symbolic:
            return symbolic.query(features, size, self.fold, self.colour, self.shortcut)
        height, width = size
        y, x = (locate(n, int(side), features.device) for n, side in zip(size, features.shape[-2:], strict=True))
        training = torch.is_grad_enabled()
        device = "cpu" if features.device.type == "cpu" else "cuda"
        limit = slab_pixels or (TRAINING_SLAB_PIXELS if training else SLAB_PIXELS)[device]
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(self.mix.weight.dtype)
            folded = self.fold(y.cell_size, x.cell_size)
            cells = features.permute(0, 2, 3, 1).contiguous()
            out = F.interpolate(self._shortcut(cells), size=size, mode="bilinear", align_corners=False)
            if dcn.query.usable(cells):
                return out.add_(self._compiled(cells, folded, y, x))
            frames_at_once = max(1, limit // (height * width))
            slabs = plan_slabs(height, y.cells, max(1, limit // width))
            recompute = training and len(features) * height * width * len(folded.constant) > KEPT_VALUES
            render = self._recomputed if recompute else self._slab
            parts = []
            for group in cells.split(frames_at_once):
                rows = [render(group, folded, y, x, slab) for slab in slabs]
                parts.append(torch.cat(rows, dim=1))
            return out + torch.cat(parts).permute(0, 3, 1, 2)

    def fold(self, cell_y: float | Tensor, cell_x: float | Tensor) -> Folded:
        """The first two layers as one, for output pixels of this size (`Axis.cell_size`).

        Published column order: (dy, dx) of the four corners, the four corners' features, cell y, cell x.
        """
        (weight, bias), (mix, mix_bias) = weight_and_bias(self.gather), weight_and_bias(self.mix)
        mix = mix.flatten(1)
        columns = (mix @ weight.flatten(1)).T
        relative = columns[:8].unflatten(0, (2, 2, 2))  # upper / lower, left / right, dy / dx
        corners = columns[8:-2].unflatten(0, (2, 2, self.channels))
        cell = columns[-2] * cell_y + columns[-1] * cell_x
        constant = cell + mix @ bias + mix_bias
        return Folded(corners, relative[:, :, 0].sum(1), relative[:, :, 1].sum(0), constant)

    def _shortcut(self, features: Tensor) -> Tensor:
        """Features (N, h, w, C) -> colours (N, 3, h, w). The 1x1 convolutions are computed as matrix products."""
        first, _, last = self.shortcut
        assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)
        hidden = F.relu(F.linear(features, first.weight.flatten(1), first.bias))
        return F.linear(hidden, last.weight.flatten(1), last.bias).permute(0, 3, 1, 2).contiguous()

    def _compiled(self, features: Tensor, folded: Folded, y: Axis, x: Axis) -> Tensor:
        """Features (N, h, w, C) -> (N, 3, H, W) without the shortcut, by the compiled operator."""
        shift_y = end_shifts(torch.arange(y.cells + 1), y.cells, folded.dy) + folded.constant
        shift_x = end_shifts(torch.arange(x.cells + 1), x.cells, folded.dx)
        corners = folded.corners.flatten(0, 1).transpose(0, 1)
        positions = [dcn.query.Positions(axis.interval, axis.fraction.float()) for axis in (y, x)]
        weight, bias = weight_and_bias(self.colour)
        return dcn.query.render(features, corners, shift_y, shift_x, weight.flatten(1), bias, *positions)

    def _recomputed(self, *arguments: Any) -> Tensor:
        """`_slab` with its hidden maps recomputed in the backward pass."""
        return checkpoint(self._slab, *arguments, use_reentrant=False, preserve_rng_state=False)

    def _slab(self, features: Tensor, folded: Folded, y: Axis, x: Axis, slab: Slab) -> Tensor:
        """Features (N, h, w, C) -> the slab's output rows (N, rows, W, 3), without the shortcut."""
        rows = slice(slab.start, slab.stop)
        (upper, upper_step), (lower, lower_step) = self._interval_maps(features, folded, slab.intervals, y, x)
        row, column = y.interval[rows] - slab.intervals[0], x.interval
        fraction_y = y.fraction[rows].to(features).view(-1, 1, 1)
        fraction_x = x.fraction.to(features).view(-1, 1)
        value = torch.lerp(take(upper, 1, row), take(lower, 1, row), fraction_y)
        step = torch.lerp(take(upper_step, 1, row), take(lower_step, 1, row), fraction_y)
        hidden = torch.addcmul(take(value, 2, column), take(step, 2, column), fraction_x)
        return F.linear(F.gelu(hidden), self.colour.weight.flatten(1), self.colour.bias)

    def _interval_maps(
        self, features: Tensor, folded: Folded, rows_of: range, y: Axis, x: Axis
    ) -> list[tuple[Tensor, Tensor]]:
        """For both ends of each y interval: the value at the left of every x interval, and the step to its right.

        Each (N, intervals, w + 1, width).
        """
        intervals = torch.arange(rows_of[0], rows_of[-1] + 1, device=features.device)
        columns = torch.arange(x.cells + 1, device=features.device)
        near = (columns - 1).clamp_min(0), columns.clamp_max(x.cells - 1)
        cells = (intervals - 1).clamp_min(0), intervals.clamp_max(y.cells - 1)
        rows = [take(features, 1, cell) for cell in cells]
        maps = [[take(rows[i], 2, near[j]) @ folded.corners[i, j] for j in (0, 1)] for i in (0, 1)]
        for j in (0, 1):
            average_ends_(rows_of, y.cells, (maps[0][j], maps[1][j]), axis=1)
        shift_x = end_shifts(columns, x.cells, folded.dx)
        shift_y = end_shifts(intervals, y.cells, folded.dy) + folded.constant
        ends = []
        for i in (0, 1):
            left, right = maps[i]
            average_ends_(range(x.cells + 1), x.cells, (left, right), axis=2)
            step = right - left + (shift_x[:, 1] - shift_x[:, 0])
            ends.append((left + (shift_x[:, 0] + shift_y[:, i].unsqueeze(1)), step))
        return ends
