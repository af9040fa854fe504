"""MSD: multi-scale deformable alignment of a neighbour's features to the centre's. MTDO paper, section on MAECM."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcn import DCNv2Pack
from models.layers import add_, leaky_relu_


class MSD(nn.Module):
    """Offsets from convolutions of three sizes, then one modulated deformable convolution.

    The first convolution takes [neighbour, centre]. It is linear, so its two halves are computed separately and added:
    the neighbour's half is the same in every window with this frame, the centre's half for every neighbour.
    """

    def __init__(self, channels: int, deformable_groups: int) -> None:
        super().__init__()
        self.pair = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.scale3 = nn.Conv2d(channels, channels, 3, padding=1)
        self.scale5 = nn.Conv2d(channels, channels, 5, padding=2)
        self.scale7 = nn.Conv2d(channels, channels, 7, padding=3)
        self.merge = nn.Conv2d(3 * channels, channels, 3, padding=1)
        self.dcn = DCNv2Pack(channels, channels, deformable_groups=deformable_groups)

    def neighbour_half(self, features: Tensor) -> Tensor:
        """(M, C, h, w) -> (M, C, h, w): the part of the first convolution that does not depend on the centre."""
        weight = self.pair.weight[:, : features.shape[1]]
        return F.conv2d(features.to(weight.dtype), weight, padding=1)

    def centre_half(self, centre: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w): the part that depends on the centre only."""
        weight = self.pair.weight[:, centre.shape[1] :]
        return F.conv2d(centre.to(weight.dtype), weight, self.pair.bias, padding=1)

    def forward(self, features: Tensor, neighbour_half: Tensor, centre: Tensor) -> Tensor:
        """Features (B, K, C, h, w), their `neighbour_half`, the centre's (B, C, h, w) -> aligned (B, K, C, h, w)."""
        batch, frames = features.shape[:2]
        pair = leaky_relu_(neighbour_half + self.centre_half(centre)[:, None], 0.1).flatten(0, 1)
        scales = [leaky_relu_(conv(pair), 0.1) for conv in (self.scale3, self.scale5, self.scale7)]
        offset_features = add_(leaky_relu_(self.merge(torch.cat(scales, 1)), 0.1), pair)
        aligned = leaky_relu_(self.dcn(features.flatten(0, 1), offset_features.to(features.dtype)), 0.1)
        return aligned.unflatten(0, (batch, frames))
