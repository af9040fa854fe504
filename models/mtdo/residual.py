"""Residual blocks that reconstruct the frame, an alternative to HAT."""

from __future__ import annotations

from torch import Tensor, nn

from models.layers import ResidualBlock, Upsampler, add_
from models.mtdo.upsampler import FoldedUpsampler


class ResidualReconstruction(nn.Module):
    """`reconstruction: residual`: residual blocks, then the upsampler of HAT."""

    def __init__(self, channels: int, blocks: int, scale: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*[ResidualBlock(channels) for _ in range(blocks)])
        self.upsample = Upsampler(channels, scale)
        self.conv_last = nn.Conv2d(channels, 3, 3, padding=1)
        self.folded_upsampler = FoldedUpsampler(self.upsample, self.conv_last, scale)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, scale*h, scale*w)."""
        return self.folded_upsampler(add_(self.body(features), features))
