"""Optical flow between key frames and intermediate frames, and warping."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Flows(NamedTuple):
    """Four flow fields in LR pixels, (x, y) in the channel dimension. `a_b` is the flow from a to b: frame a at p looks
    like frame b at p + flow.
    """

    t_0: Tensor
    one_0: Tensor
    t_1: Tensor
    zero_1: Tensor


def warp(x: Tensor, flow: Tensor, mode: str = "bilinear") -> Tensor:
    """Backward warping: sample x (N, C, h, w) at pixel + flow (N, 2, h, w), flow as (x, y); the border is repeated.

    Always in float32 or float64, because bfloat16 cannot represent the pixel positions of a large map.
    """
    height, width = flow.shape[-2:]
    with torch.autocast(x.device.type, enabled=False):
        flow = flow.float() if flow.dtype in (torch.bfloat16, torch.float16) else flow
        ys = torch.arange(height, dtype=flow.dtype, device=flow.device).view(1, -1, 1)
        xs = torch.arange(width, dtype=flow.dtype, device=flow.device)
        grid_x = (flow[:, 0] + xs) * (2 / max(width - 1, 1)) - 1
        grid_y = (flow[:, 1] + ys) * (2 / max(height - 1, 1)) - 1
        grid = torch.stack([grid_x, grid_y], dim=-1)
        return F.grid_sample(x.to(flow.dtype), grid, mode=mode, padding_mode="border", align_corners=True)
