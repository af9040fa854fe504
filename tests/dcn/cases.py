"""Random arguments for the operator in many configurations."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Case(NamedTuple):
    """Settings of one call; `channels` is per pair of convolution group and deformable group."""

    batch: int = 2
    size: tuple[int, int] = (7, 6)
    channels: int = 2
    outs: int = 3
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    deform_groups: int = 2
    groups: int = 1
    mask: bool = True

    def out_size(self) -> list[int]:
        settings = zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in settings]

    def tensors(
        self, dtype: torch.dtype = torch.float64, spread: float = 2.0, seed: int = 0
    ) -> dict[str, Tensor | None]:
        """Keyword arguments input, offset (std `spread` px), weight, bias, mask."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        channels = self.channels * self.groups * self.deform_groups
        points = self.kernel[0] * self.kernel[1] * self.deform_groups
        made = {
            "input": normal(self.batch, channels, *self.size),
            "offset": normal(self.batch, 2 * points, *self.out_size()) * spread,
            "weight": normal(self.outs * self.groups, channels // self.groups, *self.kernel) * 0.3,
            "bias": normal(self.outs * self.groups),
            "mask": normal(self.batch, points, *self.out_size()).sigmoid() if self.mask else None,
        }
        return {name: None if tensor is None else tensor.to(dtype) for name, tensor in made.items()}

    def settings(self) -> dict[str, tuple[int, int]]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}


SWEEP = [
    Case(),
    Case(mask=False, deform_groups=1, batch=1),
    Case(stride=(2, 1), padding=(0, 2), dilation=(1, 2), kernel=(2, 3)),
    Case(kernel=(1, 1), padding=(0, 0), groups=2),
    Case(kernel=(5, 3), stride=(2, 3), padding=(4, 2), groups=2, deform_groups=4, channels=1),
    Case(channels=8, deform_groups=1, groups=1),
    Case(channels=4, deform_groups=3, outs=5),
    Case(channels=32, deform_groups=1, size=(4, 3), batch=1),
    Case(size=(1, 1), batch=3),
]
