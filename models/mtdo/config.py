"""Configuration of MTDO. The defaults are the paper's."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import lcm
from typing import Annotated, Literal

from errors import InputError
from models.base import WindowConfig
from settings import Between, convert_fields

Width = Annotated[int, Between(1, 1024)]  # channels
Blocks = Annotated[int, Between(0, 256)]
Scale = Literal[2, 3, 4, 8]
Difference = Literal["paper", "as_shipped", "off"]
MOST_BLOCKS = 256  # hybrid blocks over all groups, several times as many as any published HAT has


def _require(valid: bool, key: str, value: object, expected: str) -> None:
    if not valid:
        raise InputError(f"network.{key} is {value!r}; expected {expected}: change it in the config")


@dataclass
class HATConfig:
    """Sizes of the Hybrid Attention Transformer (Chen et al., CVPR 2023) that reconstructs the frame."""

    embed: Width = 180  # channels of a token
    depths: list[Annotated[int, Between(1, 64)]] = field(default_factory=lambda: [6] * 6)  # hybrid blocks in each group
    heads: Annotated[int, Between(1, 64)] = 6
    window: Annotated[int, Between(2, 32)] = 16  # side of an attention window; h and w are padded to multiples of it
    overlap: Annotated[float, Between(0, 1)] = 0.5  # OCAB: keys reach overlap * window / 2 beyond a window
    mlp_ratio: Annotated[float, Between(0, 16)] = 2.0
    compress: Width = 3  # the convolution branch works on embed / compress channels
    squeeze: Width = 30  # its channel attention on embed / squeeze
    conv_weight: Annotated[float, Between(-1000, 1000)] = 0.01  # weight of the convolution branch
    drop_path: Annotated[float, Between(0, 0.999999)] = 0.1  # rate of the last hybrid block; it rises linearly from 0

    def __post_init__(self) -> None:
        convert_fields(self, "network.hat.")
        _require(self.embed % self.heads == 0, "hat.embed", self.embed, f"a multiple of hat.heads = {self.heads}")
        _require(self.compress <= self.embed, "hat.compress", self.compress, f"at most hat.embed = {self.embed}")
        _require(self.squeeze <= self.embed, "hat.squeeze", self.squeeze, f"at most hat.embed = {self.embed}")
        _require(self.window % 2 == 0, "hat.window", self.window, "an even number")
        margin = self.overlap * self.window / 2
        _require(margin.is_integer(), "hat.overlap", self.overlap,
                 f"a number for which overlap * {self.window} / 2 is an integer")  # fmt: skip
        _require(1 <= sum(self.depths) <= MOST_BLOCKS, "hat.depths", self.depths,
                 f"groups with 1 to {MOST_BLOCKS} blocks in total")  # fmt: skip
        _require(self.mlp_ratio * self.embed >= 1, "hat.mlp_ratio", self.mlp_ratio, "at least 1 / hat.embed")


@dataclass
class MTDOConfig(WindowConfig):
    """Sizes and switches of MTDO. A module whose output would not be used (ATDM without route 1) is not built."""

    name: Literal["mtdo"] = "mtdo"
    frames: Annotated[int, Between(3, 99)] = 5  # N, odd: the window of frames, the centre one is super-resolved
    scale: Scale = 4
    channels: Annotated[int, Between(1, 512)] = 64
    deformable_groups: Annotated[int, Between(1, 512)] = 8
    feature_blocks: Blocks = 5  # residual blocks of the per-frame features
    correction_blocks: Blocks = 5  # residual blocks of MACU
    wide: bool = False  # HAT also takes the aligned features and makes the frame from its own channels (docs/mtdo.md)
    residual: Literal["none", "bicubic"] = "none"  # bicubic: add the bicubic upscaled centre frame
    atdm: bool = True  # off: its feature is zero
    stdm: bool = True  # off: its feature is zero
    ctdm: Difference = "paper"  # as_shipped: as the published code (difference zero, frames reversed); off
    route1: bool = True  # off: R12 is route 2
    route2: bool = True  # off: R12 is route 1; both off: zero
    route3: bool = True  # off: zero
    tsa: bool = True  # off: the aligned frames are fused by one 1x1 convolution without attention
    macu: bool = True  # off: M = T + R3
    reconstruction: Literal["hat", "residual"] = "hat"  # residual: plain residual blocks instead of HAT
    reconstruction_blocks: Annotated[int, Between(1, 256)] = 16  # of reconstruction: residual
    hat: HATConfig = field(default_factory=HATConfig)

    def __post_init__(self) -> None:
        convert_fields(self, "network.")
        _require(self.frames % 2 == 1, "frames", self.frames, "an odd number")
        _require(self.channels % self.deformable_groups == 0, "channels", self.channels,
                 f"a multiple of deformable_groups = {self.deformable_groups}")  # fmt: skip
        _require(not self.wide or self.reconstruction == "hat", "wide", self.wide, "false without reconstruction: hat")

    def idle_keys(self) -> dict[str, str]:
        unused = "hat" if self.reconstruction == "residual" else "reconstruction_blocks"
        return {unused: f"the reconstruction is '{self.reconstruction}'"}

    @property
    def multiple(self) -> int:
        """h and w are padded to multiples of this: TSA halves them twice, HAT needs full windows."""
        return lcm(4, self.hat.window) if self.reconstruction == "hat" else 4
