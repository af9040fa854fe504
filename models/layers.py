"""The few blocks that the networks share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    """Convolution, PReLU, convolution, plus the input, PReLU; both PReLUs are the same one-slope parameter."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) -> (B, channels, h, w)."""
        return self.act(add(self.conv2(self.act(self.conv1(x))), x))


class Upsampler(nn.Sequential):
    """Convolutions and pixel shuffles that enlarge a map 2, 3, 4 or 8 times; no activation between them."""

    def __init__(self, channels: int, scale: int) -> None:
        steps = {2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}[scale]
        layers: list[nn.Module] = []
        for step in steps:
            layers += [nn.Conv2d(channels, channels * step**2, 3, padding=1), nn.PixelShuffle(step)]
        super().__init__(*layers)


def add(x: Tensor, y: Tensor) -> Tensor:
    """x + y, written into x where no gradient is wanted: x must be the caller's own fresh tensor, never an input."""
    return x + y if torch.is_grad_enabled() else x.add_(y)


def gelu(x: Tensor) -> Tensor:
    """Exact GELU, written into x where no gradient is wanted: x must be the caller's own fresh tensor, as for `add`."""
    return F.gelu(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)


def leaky_relu(x: Tensor, slope: float) -> Tensor:
    """Leaky ReLU, written into x where no gradient is wanted: x must be the caller's own fresh tensor, as for `add`."""
    return F.leaky_relu(x, slope, inplace=not torch.is_grad_enabled())


def side_by_side(x: Tensor) -> Tensor:
    """Frames (B, N, C, h, w) as they are, but in memory all channels of a pixel lie side by side, so that `flatten(1, 2)` is a
    channels-last picture (B, N*C, h, w) without a copy.
    """
    return x.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)


def in_full(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """`layer(x)` in the layer's own precision, whatever the precision of x and of autocast.

    For the last convolution: a frame in [0, 1] rounded to bfloat16 is 59 dB away from itself.
    """
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.to(layer.weight.dtype))


def upsample2(x: Tensor) -> Tensor:
    """Bilinear x2 with align_corners=True."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def _extended(size: int, before: int, after: int, device: torch.device) -> Tensor:
    """Indices that extend 0..size-1 by symmetric repetition (the border sample is repeated), as MATLAB does."""
    index = torch.arange(-before, size + after, device=device) % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)


def pad_to_multiple(frames: Tensor, multiple: int) -> Tensor:
    """Pad (..., h, w) at the right and at the bottom until both sides are multiples of `multiple`.

    By reflection (the border sample is not repeated) where the side is long enough, else by symmetric repetition.
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
    """Five weights for each of the `scale` phases of an integer enlargement (Keys' kernel, a = -0.5)."""

    def keys(t: float) -> float:
        t = abs(t)
        if t <= 1:
            return 1.5 * t**3 - 2.5 * t**2 + 1
        return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0

    return [[keys((phase + 0.5) / scale - 0.5 - tap) for tap in range(-2, 3)] for phase in range(scale)]


def bicubic_upscale(x: Tensor, scale: int) -> Tensor:
    """MATLAB's bicubic enlargement of (..., h, w) by an integer factor -> (..., scale*h, scale*w); nothing is clamped.

    Plain multiplications and additions: autocast and TF32 leave them alone, so the result keeps the precision of `x`.
    """
    for axis in (-1, -2):
        size = x.shape[axis]
        x = x.index_select(axis, _extended(size, 2, 2, x.device))
        phases = []
        for weights in _bicubic_taps(scale):
            taps = [(x.narrow(axis, tap, size), weight) for tap, weight in enumerate(weights) if weight]
            phase = taps[0][0] * taps[0][1]
            for part, weight in taps[1:]:
                phase = phase.add_(part, alpha=weight)
            phases.append(phase)
        x = torch.stack(phases, x.dim() + axis + 1).flatten(axis - 1, axis)
    return x
