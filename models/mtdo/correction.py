"""MAECM: temporal and spatial attention over the aligned frames (TSA), then their correction (MACU).

MTDO paper, section on MAECM; TSA in the manner of EDVR (Wang et al., CVPRW 2019).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import ResidualBlock, add, leaky_relu


def _pools(x: Tensor) -> Tensor:
    """Maximum and average over 3x3, stride 2; padding zeros count in the average. (B, C, h, w) -> (B, 2C, h/2, w/2)."""
    return torch.cat([F.max_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 3, 2, 1)], 1)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _lrelu(x: Tensor) -> Tensor:
    return leaky_relu(x, 0.1)


class TSA(nn.Module):
    """Fusion of the aligned frames: weighted by their likeness to the centre, then spatial attention on two levels."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()

        def conv(inputs: int, kernel: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, channels, kernel, padding=kernel // 2)

        self.embed = conv(channels, 3)
        self.reference = conv(channels, 3)
        self.fuse = conv(channels * frames, 1)
        self.enter = conv(channels * frames, 1)
        self.halve = conv(2 * channels, 1)
        self.level_enter = conv(channels, 1)
        self.level_halve = conv(2 * channels, 3)
        self.level_leave = conv(channels, 3)
        self.middle = conv(channels, 3)
        self.rise = conv(channels, 1)
        self.attention = conv(channels, 3)
        self.shift_first = conv(channels, 1)
        self.shift_second = conv(channels, 1)

    def forward(self, aligned: Tensor) -> Tensor:
        """Aligned features (B, N, C, h, w) -> T (B, C, h, w); h and w multiples of 4."""
        weighted = self.weigh_frames(aligned)
        attention = self.spatial_attention(weighted)
        shift = self.shift_second(_lrelu(self.shift_first(attention)))
        return _lrelu(self.fuse(weighted)) * torch.sigmoid(attention) * 2 + shift

    def weigh_frames(self, aligned: Tensor) -> Tensor:
        """Multiply each frame by the sigmoid of its embedding's product with the centre's: -> (B, N*C, h, w)."""
        batch, frames = aligned.shape[:2]
        embedded = self.embed(aligned.flatten(0, 1)).unflatten(0, (batch, frames))
        reference = self.reference(aligned[:, frames // 2])[:, None]
        likeness = (embedded * reference).sum(2, keepdim=True)  # (B, N, 1, h, w)
        return (aligned * torch.sigmoid(likeness)).flatten(1, 2)

    def spatial_attention(self, weighted: Tensor) -> Tensor:
        """(B, N*C, h, w) -> (B, C, h, w), before the sigmoid."""
        half = _lrelu(self.halve(_pools(_lrelu(self.enter(weighted)))))  # (B, C, h/2, w/2)
        quarter = _lrelu(self.level_halve(_pools(_lrelu(self.level_enter(half)))))  # (B, C, h/4, w/4)
        level = _double(_lrelu(self.level_leave(quarter)))
        half = add(_lrelu(self.middle(half)), level)
        return self.attention(_double(_lrelu(self.rise(half))))


class PlainFusion(nn.Module):
    """What stands in for TSA when it is off: one 1x1 convolution over all aligned frames."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.fuse = nn.Conv2d(channels * frames, channels, 1)

    def forward(self, aligned: Tensor) -> Tensor:
        """Aligned features (B, N, C, h, w) -> T (B, C, h, w)."""
        return _lrelu(self.fuse(aligned.flatten(1, 2)))


class MACU(nn.Sequential):
    """Correction: residual blocks on what route 3 and TSA disagree about."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__(*[ResidualBlock(channels) for _ in range(blocks)])

    def forward(self, fused: Tensor, routed: Tensor | None) -> Tensor:
        """T and R3 (None counts as zero), each (B, C, h, w) -> M (B, C, h, w)."""
        return fused + super().forward(fused if routed is None else fused - routed)
