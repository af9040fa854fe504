"""Configuration of STNO."""

from __future__ import annotations

from dataclasses import dataclass, field

from errors import InputError
from models.base import SpaceTimeConfig

BOUNDS = {
    "channels": (1, 512), "blocks": (0, 256), "embedding": (1, 1024), "heads": (1, 64), "hidden": (1, 8192),
    "side_channels": (1, 1024), "frame_features": (1, 1024), "query_width": (1, 4096), "slab_pixels": (0, 2**31),
}  # fmt: skip


@dataclass
class STNOConfig(SpaceTimeConfig):
    """Sizes and switches of STNO. The defaults are the paper's (9,368,146 parameters)."""

    name: str = "stno"
    channels: int = 64  # of the propagation and of the query's input
    blocks: int = 30  # residual blocks per branch
    embedding: int = 128  # of the Galerkin blocks, divided over the heads
    heads: int = 8
    hidden: int = 512  # of the Galerkin blocks' feed-forward
    pyramid: list[int] = field(default_factory=lambda: [36, 54, 72])  # widths at 1/2, 1/4, 1/8
    head_widths: list[int] = field(default_factory=lambda: [144, 162, 108])  # of the decoders from 1/8, 1/4, 1/2
    side_channels: int = 24  # of the heads' residual blocks
    frame_features: int = 29  # channels added to the intermediate frame before the last convolution of the operator
    query_width: int = 256
    residual: str = "none"  # "bicubic": the upscaled key or intermediate LR frame is added to the output; paper: "none"
    times_mode: str = "exact"  # each time has its own key-frame recurrence; "shared": all use that of the first time
    slab_pixels: int = (
        0  # output pixels that the query processes at a time; 0: by device; the compiled query ignores it
    )

    def __post_init__(self) -> None:
        for key, (least, most) in BOUNDS.items():
            if not least <= getattr(self, key) <= most:
                raise InputError(f"network.{key} is {getattr(self, key)}, expected an integer from {least} to {most}")
        for key in ("pyramid", "head_widths"):
            widths = getattr(self, key)
            if len(widths) != 3 or min(widths) < 1 or max(widths) > 1024:
                raise InputError(f"network.{key} is {widths}, expected three widths from 1 to 1024, e.g. [36, 54, 72]")
        if self.embedding % self.heads or self.embedding // self.heads < 2:
            raise InputError(
                f"network.embedding is {self.embedding}, must be two or more times network.heads ({self.heads})"
            )
        if self.side_channels >= min(self.head_widths):
            raise InputError(
                f"network.side_channels is {self.side_channels}, must be below all head_widths {self.head_widths}"
            )
        one_of("network.residual", self.residual, ("none", "bicubic"))
        one_of("network.times_mode", self.times_mode, ("exact", "shared"))


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {value!r}, expected one of {', '.join(choices)}")
