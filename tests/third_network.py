"""Two networks added as docs/architecture.md, "How a network is added", describes: all the code that this takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import Architecture
from models.base import SpaceTimeConfig, SpaceTimeNetwork, WindowConfig, WindowNetwork
from models.layers import bicubic_upscale


@dataclass
class ThreeConfig(WindowConfig):
    name: str = "three"
    frames: int = 3
    scale: int = 2
    channels: int = 4


class Three(WindowNetwork):
    """Three convolutions on the frames of a window, plus the bicubic centre frame."""

    def __init__(self, config: ThreeConfig) -> None:
        super().__init__()
        self.config, channels = config, config.channels
        self.first = nn.Conv2d(3 * config.frames, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.third = nn.Conv2d(channels, 3 * config.scale**2, 3, padding=1)

    def forward(self, frames: Tensor) -> Tensor:
        features = F.relu(self.second(F.relu(self.first(frames.flatten(1, 2)))))
        residual = F.pixel_shuffle(self.third(features), self.config.scale)
        return residual.to(frames.dtype) + bicubic_upscale(frames[:, self.config.frames // 2], self.config.scale)

    def bytes_per_pixel(self, span: int, times: int = 0) -> float:
        return 4.0 * (3 * span + 2 * self.config.channels + 4 * 3 * self.config.scale**2)


@dataclass
class BlendConfig(SpaceTimeConfig):
    name: str = "blend"


class Blend(SpaceTimeNetwork):
    """One convolution on the frames and on their linear blends, upscaled to any size."""

    def __init__(self, config: BlendConfig) -> None:
        super().__init__()
        self.config = config
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)

    def forward(
        self,
        frames: Tensor,
        times: Sequence[float] | Tensor = (0.5,),
        size: tuple[int, int] | None = None,
        *,
        outputs: Sequence[int] | None = None,
    ) -> Tensor:
        batch, gaps = len(frames), frames.shape[1] - 1
        weights = torch.as_tensor(times, dtype=frames.dtype, device=frames.device).expand(batch, -1)
        steps = torch.cat([weights.new_zeros(batch, 1), weights], 1)[:, :, None, None, None]  # the key frame first
        blends = [torch.lerp(frames[:, k : k + 1], frames[:, k + 1 : k + 2], steps) for k in range(gaps)]
        images = torch.cat([*blends, frames[:, -1:]], 1)
        images = images if outputs is None else images[:, list(outputs)]
        out = images + self.convolution(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        out = F.interpolate(out.flatten(0, 1).float(), size=self.output_size(frames.shape[-2:], size), mode="bicubic")
        return out.unflatten(0, images.shape[:2])

    def bytes_per_pixel(self, span: int, times: int = 0) -> float:
        return 4.0 * 3 * 20 * span * (1 + times)


LINES = {"three": Architecture(ThreeConfig, Three), "blend": Architecture(BlendConfig, Blend)}
