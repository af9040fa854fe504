"""MTDM, multi-level temporal differences: adjacent (ATDM), skipped (STDM) and cross (CTDM).

MTDO paper, section on MTDM.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import ConvPReLU, ResidualBlock, upsample2


class FrameDifference(nn.Module):
    """ATDM and STDM: features of the differences between frames, on two resolutions.

    `differences` is their number: N-1 between adjacent frames (ATDM), (N-1)/2 between every second frame (STDM).
    """

    def __init__(self, channels: int, differences: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.difference = ConvPReLU(3, channels)
        self.gather = ConvPReLU(channels * differences, wide)
        self.centre = ConvPReLU(3, wide)
        self.refine_low = nn.Sequential(ResidualBlock(wide), ConvPReLU(wide, channels))
        self.refine_high = nn.Sequential(ResidualBlock(wide), ConvPReLU(wide, channels))

    def encode(self, difference: Tensor) -> Tensor:
        """Differences (M, 3, h, w) -> (M, C, h/2, w/2). Each is independent of the window that it stands in."""
        return F.avg_pool2d(self.difference(difference), 2)

    def forward(self, encoded: Tensor, centre: Tensor) -> Tensor:
        """Encoded differences (B, K, C, h/2, w/2) and the centre frame (B, 3, h, w) -> D_A or D_S (B, C, h, w)."""
        gathered = self.gather(encoded.flatten(1, 2))  # (B, 2C, h/2, w/2)
        low = upsample2(self.refine_low(gathered))
        high = 0.5 * self.centre(centre) + 0.5 * upsample2(gathered)
        return 0.5 * self.refine_high(high) + 0.5 * low


class CrossDifference(nn.Module):
    """CTDM: what changes when the aligned frames are read in reversed order."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.compress = ConvPReLU(channels * frames, channels)
        self.refine = ConvPReLU(channels, channels)

    def forward(self, aligned: Tensor) -> tuple[Tensor, Tensor]:
        """Aligned features (B, N, C, h, w) -> forward and backward difference D_F, D_B = -D_F, each (B, C, h, w)."""
        weight, bias = self.compress.conv.weight, self.compress.conv.bias
        turned = weight.unflatten(1, (aligned.shape[1], -1)).flip(1).flatten(1, 2)  # as if the frames were reversed
        both = F.conv2d(aligned.flatten(1, 2), torch.cat([weight, turned]), torch.cat([bias, bias]), padding=1)
        in_order, reverse = self.refine(torch.cat(self.compress.act(both).chunk(2, 1))).chunk(2)
        forward = in_order - reverse
        return forward, -forward
