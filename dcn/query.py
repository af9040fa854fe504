"""STNO's query as one compiled operator for inference on CPUs, which writes only the colours to memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dcn.choice import serves


class Positions(NamedTuple):
    """Positions of the outputs along an axis of n cells: interval (outputs,) int64, ascending, 0 .. n; fraction (outputs,) float32."""

    interval: Tensor
    fraction: Tensor


def usable(like: Tensor) -> bool:
    """Whether `render` supports tensors like this one: float32 on a CPU, compiled, without gradient or tracing."""
    return serves(like, torch.float32)


def render(
    features: Tensor,
    corners: Tensor,
    shift_y: Tensor,
    shift_x: Tensor,
    colour: Tensor,
    bias: Tensor,
    y: Positions,
    x: Positions,
) -> Tensor:
    """Colours at any positions between the cells: colour @ GELU(hidden) + bias (`models.stno.query` defines hidden).

    features (N, h, w, C); corners (C, 4, width), for the upper left, upper right, lower left and lower right cell of an interval;
    shift_y (h + 1, 2, width) at an interval's upper and lower end, shift_x (w + 1, 2, width) at its left and right end; colour (3,
    width), bias (3,). All float32. -> (N, 3, H, W). In the first and the last interval of an axis both cells are the same one, and
    their corners count one half each. There is no gradient: call it only if `usable`. Raises RuntimeError (one line) for invalid
    arguments.
    """
    return torch.ops.dcn.query(features, corners, shift_y, shift_x, colour, bias, *y, *x)
