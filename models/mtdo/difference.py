"""MTDM, multi-level temporal differences: adjacent (ATDM), skipped (STDM) and cross (CTDM).

MTDO paper, section on MTDM.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import ConvPReLU, ResidualBlock, upsample2, weight_and_bias


class FrameDifference(nn.Module):
    """ATDM and STDM: features of the differences between frames, at two resolutions.

    Differences are those of neighbours among every `step`-th frame of the window: step 1 is ATDM with N-1 adjacent pairs,
    step 2 is STDM with (N-1)/2 pairs. `pairs` and `encode` define them for the forward pass and for streaming alike.
    """

    def __init__(self, channels: int, frames: int, step: int) -> None:
        super().__init__()
        self.pairs = list(pairwise(range(0, frames, step)))  # positions in the window
        wide = 2 * channels
        self.difference = ConvPReLU(3, channels)
        self.gather = ConvPReLU(channels * len(self.pairs), wide)
        self.centre = ConvPReLU(3, wide)
        self.refine_low = nn.Sequential(ResidualBlock(wide), ConvPReLU(wide, channels))
        self.refine_high = nn.Sequential(ResidualBlock(wide), ConvPReLU(wide, channels))

    def encode(self, first: Tensor, second: Tensor) -> Tensor:
        """Frames of pairs, each (M, 3, h, w) -> features of their differences (M, C, h/2, w/2).

        A pair's features do not depend on the window, so streaming keeps them from one window to the next.
        """
        difference = (first - second).to(self.difference.conv.weight.dtype)
        return F.avg_pool2d(self.difference(difference.contiguous(memory_format=torch.channels_last)), 2)

    def encode_window(self, frames: Tensor) -> Tensor:
        """Frames (B, N, 3, h, w) -> features of all pairs (B, K, C, h/2, w/2)."""
        first, second = (torch.stack([frames[:, i] for i in places], 1) for places in zip(*self.pairs, strict=True))
        return self.encode(first.flatten(0, 1), second.flatten(0, 1)).unflatten(0, first.shape[:2])

    def forward(self, encoded: Tensor, centre: Tensor) -> Tensor:
        """Encoded differences (B, K, C, h/2, w/2) and the centre frame (B, 3, h, w) -> D_A or D_S (B, C, h, w)."""
        gathered = self.gather(encoded.flatten(1, 2))  # (B, 2C, h/2, w/2)
        low = upsample2(self.refine_low(gathered))
        high = 0.5 * self.centre(centre) + 0.5 * upsample2(gathered)
        return 0.5 * self.refine_high(high) + 0.5 * low


class CrossDifference(nn.Module):
    """CTDM: the change of the features when the aligned frames are read in reversed order."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.compress = ConvPReLU(channels * frames, channels)
        self.refine = ConvPReLU(channels, channels)

    def forward(self, aligned: Tensor) -> tuple[Tensor, Tensor]:
        """Aligned features (B, N, C, h, w) -> forward and backward difference D_F, D_B = -D_F, each (B, C, h, w)."""
        weight, bias = weight_and_bias(self.compress.conv)
        reversed_weight = weight.unflatten(1, (aligned.shape[1], -1)).flip(1).flatten(1, 2)  # instead of the frames
        both = F.conv2d(aligned.flatten(1, 2), torch.cat([weight, reversed_weight]), torch.cat([bias, bias]), padding=1)
        in_order, in_reverse = self.refine(torch.cat(self.compress.act(both).chunk(2, 1))).chunk(2)
        forward = in_order - in_reverse
        return forward, -forward
