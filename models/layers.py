"""Layers shared by the networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from formulas import keys_cubic


class ConvPReLU(nn.Module):
    """3x3 convolution (stride 1, padding 1, bias), then a PReLU with ONE learnable slope."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w)."""
        return self.act(self.conv(x))


class ResidualBlock(nn.Module):
    """Convolution, PReLU, convolution, plus the input, PReLU. Both PReLUs share one learnable slope."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) -> (B, channels, h, w)."""
        return self.act(add_(self.conv2(self.act(self.conv1(x))), x))


class Upsampler(nn.Sequential):
    """Upsampling by 2, 3, 4 or 8: convolutions and pixel shuffles without activations."""

    def __init__(self, channels: int, scale: int) -> None:
        steps = {2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}[scale]
        layers: list[nn.Module] = []
        for step in steps:
            layers += [nn.Conv2d(channels, channels * step**2, 3, padding=1), nn.PixelShuffle(step)]
        super().__init__(*layers)


def add_(x: Tensor, y: Tensor) -> Tensor:
    """x + y. Without gradients the sum is written into x, which must be a temporary of the caller, never an input."""
    return x + y if torch.is_grad_enabled() else x.add_(y)


def gelu_(x: Tensor) -> Tensor:
    """Exact GELU. Without gradients the result is written into x, a temporary of the caller."""
    return F.gelu(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)


def leaky_relu_(x: Tensor, slope: float) -> Tensor:
    """Leaky ReLU. Without gradients the result is written into x, a temporary of the caller."""
    return F.leaky_relu(x, slope, inplace=not torch.is_grad_enabled())


def interleave_channels(x: Tensor) -> Tensor:
    """Frames (B, N, C, h, w) with the memory layout in which `flatten(1, 2)` is a channels-last image (B, N*C, h, w)
    without a copy: the N*C channels of a pixel are adjacent in memory.
    """
    return x.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)


def weight_and_bias(layer: nn.Conv2d | nn.Linear) -> tuple[Tensor, Tensor]:
    """The parameters of a layer that has a bias."""
    assert layer.bias is not None
    return layer.weight, layer.bias


def in_full_precision(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """`layer(x)` in the precision of the layer's weights, regardless of x and autocast.

    For the last convolution: rounding a frame in [0, 1] to bfloat16 limits its PSNR to 61 dB.
    """
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.to(layer.weight.dtype))


def upsample2(x: Tensor) -> Tensor:
    """Bilinear x2 with align_corners=True."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def _extended(size: int, before: int, after: int, device: torch.device) -> Tensor:
    """Indices that extend 0..size-1 by symmetric padding: the border sample is repeated, as in MATLAB."""
    index = torch.arange(-before, size + after, device=device) % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)


def _mirrored(size: int, reach: int, device: torch.device) -> Tensor:
    """`_extended` by `reach` on both sides if size >= reach or size is 1. It needs no remainder, so `torch.export`
    accepts a symbolic size.
    """
    index = torch.arange(-reach, size + reach, device=device)
    index = torch.where(index < 0, -1 - index, index)
    return torch.minimum(index, (2 * size - 1) - index).clamp(min=0)


def pad_to_multiple(frames: Tensor, multiple: int) -> Tensor:
    """Pad (..., h, w) at the right and the bottom until both sides are multiples of `multiple`.

    Reflection padding (the border sample is not repeated) if the side is long enough, otherwise symmetric padding.
    """
    for axis in (-2, -1):
        size = frames.shape[axis]
        missing = -size % multiple
        if not missing:
            continue
        if missing < size:
            extra = torch.arange(size - 2, size - 2 - missing, -1, device=frames.device)
        else:
            extra = _extended(size, 0, missing, frames.device)[size:]
        frames = torch.cat([frames, frames.index_select(axis, extra)], axis)
    return frames


def _bicubic_taps(scale: int) -> list[list[float]]:
    """Five weights for each of the `scale` phases of an integer upscaling factor."""
    return [[keys_cubic(abs((phase + 0.5) / scale - 0.5 - tap)) for tap in range(-2, 3)] for phase in range(scale)]


def bicubic_upscale(x: Tensor, scale: int) -> Tensor:
    """Upscale (..., h, w) by an integer factor as MATLAB's bicubic `imresize` -> (..., scale*h, scale*w), not clamped.

    Written as multiplications and additions, which autocast and TF32 do not change: the result keeps the precision of `x`.
    """
    for axis in (-1, -2):
        size = x.shape[axis]
        x = x.index_select(axis, _mirrored(size, 2, x.device))
        phases = []
        for weights in _bicubic_taps(scale):
            taps = [(x.narrow(axis, tap, size), weight) for tap, weight in enumerate(weights) if weight]
            phase = taps[0][0] * taps[0][1]
            for part, weight in taps[1:]:
                phase = phase.add_(part, alpha=weight)
            phases.append(phase)
        x = torch.stack(phases, x.dim() + axis + 1).flatten(axis - 1, axis)
    return x
