"""The interpolation operator: two key frames and a time -> flows and the intermediate LR frame (arXiv 2404.06036, section
on the operator).

Three decoders refine the result from 1/8 to full LR size. Flows are in pixels of their level, as (x, y), in the order t->0,
1->0, t->1, 0->1. Frame 0 is warped with t->0 and frame 1 with t->1; only the propagation uses 1->0 and 0->1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.flow import Flows, warp
from models.stno.config import STNOConfig
from models.stno.galerkin import InterFrame

FLOW_CHANNELS = 8  # four flows of two channels


class Encoded(NamedTuple):
    """Features of a pair of key frames that do not depend on the time. Each field: first frame, second frame."""

    frames: tuple[Tensor, Tensor]  # mean-free
    mean: Tensor
    half: tuple[Tensor, Tensor]
    quarter: tuple[Tensor, Tensor]
    eighth: tuple[Tensor, Tensor]
    appearance: tuple[Tensor, Tensor]
    motion: tuple[Tensor, Tensor]


def _pair(x: Tensor) -> tuple[Tensor, Tensor]:
    """The halves of a batch: the first frames of all pairs, and the second ones."""
    first, second = x.chunk(2)
    return first, second


def upsample_flows(flows: Tensor) -> Tensor:
    """Flows of one level for the next finer one: twice the size, twice the length."""
    return 2 * F.interpolate(flows, scale_factor=2, mode="bilinear", align_corners=False)


def conv_prelu(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, then PReLU with one slope for each channel."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.PReLU(outputs))


class SideBlock(nn.Module):
    """Residual block; its last `side` channels pass an additional convolution after each of the first two."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.conv1 = conv_prelu(channels, channels)
        self.side1 = conv_prelu(side, side)
        self.conv2 = conv_prelu(channels, channels)
        self.side2 = conv_prelu(side, side)
        self.conv3 = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.PReLU(channels)

    def _refine_side(self, x: Tensor, conv: nn.Module) -> Tensor:
        return torch.cat([x[:, : -self.side], conv(x[:, -self.side :])], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        out = self._refine_side(self.conv1(x), self.side1)
        out = self._refine_side(self.conv2(out), self.side2)
        return self.act(self.conv3(out) + x)


def head(inputs: int, width: int, side: int, outputs: int) -> nn.Sequential:
    """A decoder's head: (N, inputs, h, w) -> (N, outputs, 2h, 2w). width: channels inside.   side: see `SideBlock`."""
    return nn.Sequential(
        conv_prelu(inputs, width), SideBlock(width, side), nn.ConvTranspose2d(width, outputs, 4, stride=2, padding=1)
    )


class Pyramid(nn.Module):
    """Features at 1/2, 1/4 and 1/8 of the size."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(conv_prelu(inputs, outputs, stride=2), conv_prelu(outputs, outputs))
            for inputs, outputs in zip([3, *widths[:-1]], widths, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, h, w) -> features at 1/2, 1/4 and 1/8 of the size."""
        features = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return features


class EighthDecoder(nn.Module):
    """1/8 -> 1/4: the first flows, from features and the Galerkin block's appearance and motion."""

    def __init__(self, config: STNOConfig) -> None:
        super().__init__()
        _, outputs, channels = config.pyramid
        self.inter_frame = InterFrame(channels, config.embedding, config.heads, config.hidden)
        inputs = 4 * config.embedding + 2 * channels + 1
        self.head = head(inputs, config.head_widths[0], config.side_channels, FLOW_CHANNELS + outputs)

    def forward(
        self,
        features: tuple[Tensor, Tensor],
        appearance: tuple[Tensor, Tensor],
        motion: tuple[Tensor, Tensor],
        time: Tensor,
    ) -> Tensor:
        """Two feature maps (B, c, h, w), their appearance and motion from `inter_frame`, time (B, 1, 1, 1) ->
        (B, 8 + outputs, 2h, 2w).
        """
        time_map = time.expand(-1, -1, *features[0].shape[-2:])
        moved = [time * motion[0], (1 - time) * motion[1]]
        return self.head(torch.cat([*moved, features[0], appearance[0], features[1], appearance[1], time_map], dim=1))


class QuarterDecoder(nn.Module):
    """1/4 -> 1/2: flow residuals, from warped features and a second Galerkin block."""

    def __init__(self, config: STNOConfig) -> None:
        super().__init__()
        outputs, channels, _ = config.pyramid
        self.inter_frame = InterFrame(channels, config.embedding, config.heads, config.hidden)
        inputs = 3 * channels + 4 * config.embedding + 4
        self.head = head(inputs, config.head_widths[1], config.side_channels, FLOW_CHANNELS + outputs)

    def forward(self, features: Tensor, pair: tuple[Tensor, Tensor], flow_t0: Tensor, flow_t1: Tensor) -> Tensor:
        """Features (B, c, h, w) of the coarser level, the maps of both frames (B, c, h, w) and their flows ->
        (B, 8 + outputs, 2h, 2w).
        """
        first, second = warp(pair[0], flow_t0), warp(pair[1], flow_t1)
        look0, look1, motion0, motion1 = self.inter_frame(first, second)
        return self.head(torch.cat([features, first, look0, second, look1, flow_t0, motion0, flow_t1, motion1], dim=1))


class HalfDecoder(nn.Module):
    """1/2 -> 1: flow residuals, blending mask and residual features."""

    def __init__(self, config: STNOConfig) -> None:
        super().__init__()
        outputs = FLOW_CHANNELS + 1 + config.frame_features
        self.head = head(3 * config.pyramid[0] + 4, config.head_widths[2], config.side_channels, outputs)

    def forward(self, features: Tensor, pair: tuple[Tensor, Tensor], flow_t0: Tensor, flow_t1: Tensor) -> Tensor:
        """Features (B, c, h, w), the maps of both frames and their flows -> (B, 9 + outputs, 2h, 2w)."""
        warped = [warp(pair[0], flow_t0), warp(pair[1], flow_t1)]
        return self.head(torch.cat([features, *warped, flow_t0, flow_t1], dim=1))


class InterpolationOperator(nn.Module):
    """Pairs of key frames -> flows and intermediate frames at any time. Features that do not depend on the time are
    computed once for each pair.
    """

    def __init__(self, config: STNOConfig) -> None:
        super().__init__()
        self.pyramid = Pyramid(config.pyramid)
        self.from_eighth = EighthDecoder(config)
        self.from_quarter = QuarterDecoder(config)
        self.from_half = HalfDecoder(config)
        self.merge = conv_prelu(3 + config.frame_features, 3)

    def encode(self, first: Tensor, second: Tensor) -> Encoded:
        """Two LR frames (B, 3, h, w), h and w multiples of 8 -> features that do not depend on the time."""
        both = torch.stack([first, second])
        mean = both.mean(dim=(0, 2, 3, 4)).view(-1, 1, 1, 1)
        frames = (both - mean).flatten(0, 1)
        half, quarter, eighth = map(_pair, self.pyramid(frames))
        look0, look1, motion0, motion1 = self.from_eighth.inter_frame(*eighth)
        return Encoded(_pair(frames), mean, half, quarter, eighth, (look0, look1), (motion0, motion1))

    def decode(self, pair: Encoded, time: Tensor) -> tuple[Tensor, Flows]:
        """Time (B, 1, 1, 1) in (0, 1) -> intermediate frame (B, 3, h, w), not clamped, and the flows at full LR size."""
        out = self.from_eighth(pair.eighth, pair.appearance, pair.motion, time)
        flows, features = out[:, :FLOW_CHANNELS], out[:, FLOW_CHANNELS:]
        out = self.from_quarter(features, pair.quarter, flows[:, 0:2], flows[:, 4:6])
        flows, features = out[:, :FLOW_CHANNELS] + upsample_flows(flows), out[:, FLOW_CHANNELS:]
        out = self.from_half(features, pair.half, flows[:, 0:2], flows[:, 4:6])
        flows = out[:, :FLOW_CHANNELS] + upsample_flows(flows)
        named = Flows(*flows.split(2, dim=1))
        mask = torch.sigmoid(out[:, FLOW_CHANNELS : FLOW_CHANNELS + 1])
        frame = mask * warp(pair.frames[0], named.t_0) + (1 - mask) * warp(pair.frames[1], named.t_1) + pair.mean
        return self.merge(torch.cat([frame, out[:, FLOW_CHANNELS + 1 :]], dim=1)), named

    def forward(self, first: Tensor, second: Tensor, time: Tensor) -> tuple[Tensor, Flows]:
        """Two frames (B, 3, h, w) and a time (B, 1, 1, 1) -> intermediate frame and flows."""
        return self.decode(self.encode(first, second), time)
