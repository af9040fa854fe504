"""STNO's query as published, with 266 channels at every output pixel: the reference for the folded form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.stno.query import Query


def plain_query(query: Query, features: Tensor, size: tuple[int, int]) -> Tensor:
    """Features (N, C, h, w) -> colours (N, 3, H, W)."""
    height, width = features.shape[-2:]
    rows, columns = _axis(size[0], height), _axis(size[1], width)
    relative, areas, values = [], [], []
    for upper_lower in (0, 1):
        for left_right in (0, 1):
            cell_y, distance_y = rows[upper_lower]
            cell_x, distance_x = columns[left_right]
            values.append(features[:, :, cell_y][:, :, :, cell_x])
            dy, dx = distance_y[:, None].expand(size), distance_x.expand(size)
            relative.append(torch.stack([dy, dx]).to(features))
            other_y, other_x = rows[1 - upper_lower][1].abs(), columns[1 - left_right][1].abs()
            areas.append(_share(other_y, distance_y.abs())[:, None] * _share(other_x, distance_x.abs()))
    cells = [2 / out * max(out / side / 4, 1) * side for out, side in zip(size, (height, width), strict=True)]
    count = len(features)
    grid = torch.cat(
        [
            torch.cat(relative).expand(count, -1, -1, -1),
            *(value * area.to(features) for value, area in zip(values, areas, strict=True)),
            features.new_tensor(cells).view(1, 2, 1, 1).expand(count, 2, *size),
        ],
        dim=1,
    )
    colours = query.colour(F.gelu(query.mix(query.gather(grid))))
    return colours + F.interpolate(query.shortcut(features), size=size, mode="bilinear", align_corners=False)


def _axis(outputs: int, cells: int) -> list[tuple[Tensor, Tensor]]:
    """Clamped cell index and relative coordinate (float64; a cell is 2 wide) of the lower and the upper neighbour."""
    index = torch.arange(outputs)
    lower = torch.div((2 * index + 1) * cells - outputs, 2 * outputs, rounding_mode="floor")
    position = (index.double() + 0.5) * cells / outputs - 0.5
    clamped = [(lower + step).clamp(0, cells - 1) for step in (0, 1)]
    return [(cell, 2 * (position - cell)) for cell in clamped]


def _share(part: Tensor, rest: Tensor) -> Tensor:
    """part / (part + rest); one half where both are zero."""
    total = part + rest
    return torch.where(total > 1e-9, part / total.clamp_min(1e-9), 0.5)
