"""MAECM: temporal and spatial attention over the aligned frames (TSA), then their correction (MACU).

MTDO paper, section on MAECM. TSA is that of EDVR (Wang et al., CVPRW 2019), and its layers have the published names.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import ResidualBlock, add_, leaky_relu_


def _pools(x: Tensor) -> Tensor:
    """Maximum and average over 3x3, stride 2; the average counts padding. (B, C, h, w) -> (B, 2C, h/2, w/2)."""
    return torch.cat([F.max_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 3, 2, 1)], 1)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _lrelu(x: Tensor) -> Tensor:
    return leaky_relu_(x, 0.1)


class TSA(nn.Module):
    """Fusion of the aligned frames: weights from their similarity to the centre, then spatial attention at two levels."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()

        def conv(inputs: int, kernel: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, channels, kernel, padding=kernel // 2)

        self.tAtt_1 = conv(channels, 3)  # embedding of every frame
        self.tAtt_2 = conv(channels, 3)  # embedding of the centre
        self.fea_fusion = conv(channels * frames, 1)
        self.sAtt_1 = conv(channels * frames, 1)
        self.sAtt_2 = conv(2 * channels, 1)  # at half size; _L1 to _L3: at a quarter
        self.sAtt_L1 = conv(channels, 1)
        self.sAtt_L2 = conv(2 * channels, 3)
        self.sAtt_L3 = conv(channels, 3)
        self.sAtt_3 = conv(channels, 3)
        self.sAtt_4 = conv(channels, 1)
        self.sAtt_5 = conv(channels, 3)
        self.sAtt_add_1 = conv(channels, 1)
        self.sAtt_add_2 = conv(channels, 1)

    def forward(self, aligned: Tensor) -> Tensor:
        """Aligned features (B, N, C, h, w) -> T (B, C, h, w); h and w multiples of 4."""
        weighted = self.weight_frames(aligned)
        attention = self.spatial_attention(weighted)
        shift = self.sAtt_add_2(_lrelu(self.sAtt_add_1(attention)))
        return _lrelu(self.fea_fusion(weighted)) * torch.sigmoid(attention) * 2 + shift

    def weight_frames(self, aligned: Tensor) -> Tensor:
        """Multiply each frame by the sigmoid of the product of its embedding with the centre's: -> (B, N*C, h, w)."""
        batch, frames = aligned.shape[:2]
        embedded = self.tAtt_1(aligned.flatten(0, 1)).unflatten(0, (batch, frames))
        reference = self.tAtt_2(aligned[:, frames // 2])[:, None]
        similarity = (embedded * reference).sum(2, keepdim=True)  # (B, N, 1, h, w)
        return (aligned * torch.sigmoid(similarity)).flatten(1, 2)

    def spatial_attention(self, weighted: Tensor) -> Tensor:
        """(B, N*C, h, w) -> (B, C, h, w), before the sigmoid."""
        half = _lrelu(self.sAtt_2(_pools(_lrelu(self.sAtt_1(weighted)))))  # (B, C, h/2, w/2)
        quarter = _lrelu(self.sAtt_L2(_pools(_lrelu(self.sAtt_L1(half)))))  # (B, C, h/4, w/4)
        level = _double(_lrelu(self.sAtt_L3(quarter)))
        half = add_(_lrelu(self.sAtt_3(half)), level)
        return self.sAtt_5(_double(_lrelu(self.sAtt_4(half))))


class PlainFusion(nn.Module):
    """`tsa: false`: one 1x1 convolution over all aligned frames."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.fea_fusion = nn.Conv2d(channels * frames, channels, 1)

    def forward(self, aligned: Tensor) -> Tensor:
        """Aligned features (B, N, C, h, w) -> T (B, C, h, w)."""
        return _lrelu(self.fea_fusion(aligned.flatten(1, 2)))


class MACU(nn.Sequential):
    """Correction: residual blocks on the difference of TSA and route 3."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__(*[ResidualBlock(channels) for _ in range(blocks)])

    def forward(self, fused: Tensor, routed: Tensor | None) -> Tensor:  # type: ignore[override]  # two inputs
        """T and R3 (None counts as zero), each (B, C, h, w) -> M (B, C, h, w)."""
        return fused + super().forward(fused if routed is None else fused - routed)
