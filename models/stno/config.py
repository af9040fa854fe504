"""Configuration of STNO."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from errors import InputError
from models.base import SpaceTimeConfig
from settings import Between, convert_fields

Width = Annotated[int, Between(1, 1024)]  # channels
Pixels = Annotated[int, Between(0, 2**31)]
TimesMode = Literal["exact", "shared"]


@dataclass
class STNOConfig(SpaceTimeConfig):
    """Sizes and switches of STNO. The defaults are the paper's (9,368,146 parameters)."""

    name: Literal["stno"] = "stno"
    channels: Annotated[int, Between(1, 512)] = 64  # of the propagation and of the query's input
    blocks: Annotated[int, Between(0, 256)] = 30  # residual blocks per branch
    embedding: Width = 128  # of the Galerkin blocks, divided over the heads
    heads: Annotated[int, Between(1, 64)] = 8
    hidden: Annotated[int, Between(1, 8192)] = 512  # of the Galerkin blocks' feed-forward
    pyramid: list[Width] = field(default_factory=lambda: [36, 54, 72])  # widths at 1/2, 1/4, 1/8
    head_widths: list[Width] = field(default_factory=lambda: [144, 162, 108])  # of the decoders from 1/8, 1/4, 1/2
    side_channels: Width = 24  # of the heads' residual blocks
    frame_features: Width = 29  # channels added to the intermediate frame before the last convolution of the operator
    query_width: Annotated[int, Between(1, 4096)] = 256
    residual: Literal["none", "bicubic"] = "none"  # bicubic: the upscaled LR frame is added to the output; paper: none
    times_mode: TimesMode = "exact"  # a key-frame recurrence for each time; shared: that of the first time
    slab_pixels: Pixels = 0  # output pixels that the query renders at a time; 0: by device; not for the compiled query

    def __post_init__(self) -> None:
        convert_fields(self, "network.")
        for key in ("pyramid", "head_widths"):
            widths = getattr(self, key)
            if len(widths) != 3:
                raise InputError(f"network.{key} is {widths}, expected three widths, such as [36, 54, 72]")
        if self.embedding % self.heads or self.embedding // self.heads < 2:
            raise InputError(
                f"network.embedding is {self.embedding}, must be two or more times network.heads ({self.heads})"
            )
        if self.side_channels >= min(self.head_widths):
            raise InputError(
                f"network.side_channels is {self.side_channels}, must be below all head_widths {self.head_widths}"
            )
