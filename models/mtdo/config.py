"""Configuration of MTDO. The defaults are the paper's."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import lcm

from errors import InputError
from models.base import WindowConfig


def _require(valid: bool, key: str, value: object, expected: str) -> None:
    if not valid:
        raise InputError(f"network.{key} is {value!r}; expected {expected}: change it in the config")


def _require_between(key: str, value: int, least: int, most: int) -> None:
    _require(least <= value <= most, key, value, f"an integer from {least} to {most}")


def _require_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, key, value, "one of " + ", ".join(choices))


@dataclass
class HATConfig:
    """Sizes of the Hybrid Attention Transformer (Chen et al., CVPR 2023) that reconstructs the frame."""

    embed: int = 180  # channels of a token
    depths: list[int] = field(default_factory=lambda: [6] * 6)  # hybrid blocks in each group
    heads: int = 6
    window: int = 16  # side of an attention window; h and w are padded to multiples of it
    overlap: float = 0.5  # the overlapping block's keys reach overlap * window / 2 beyond each side of the window
    mlp_ratio: float = 2.0
    compress: int = 3  # the convolution branch works on embed / compress channels
    squeeze: int = 30  # its channel attention on embed / squeeze
    conv_weight: float = 0.01  # weight of the convolution branch
    drop_path: float = 0.1  # rate of the last hybrid block; it rises linearly from 0

    def __post_init__(self) -> None:
        for key, most in {"embed": 1024, "heads": 64, "compress": 1024, "squeeze": 1024}.items():
            _require_between(f"hat.{key}", getattr(self, key), 1, most)
        _require(self.embed % self.heads == 0, "hat.embed", self.embed, f"a multiple of hat.heads = {self.heads}")
        _require(self.compress <= self.embed, "hat.compress", self.compress, f"at most hat.embed = {self.embed}")
        _require(self.squeeze <= self.embed, "hat.squeeze", self.squeeze, f"at most hat.embed = {self.embed}")
        _require(
            2 <= self.window <= 32 and self.window % 2 == 0, "hat.window", self.window, "an even number from 2 to 32"
        )
        margin = self.overlap * self.window / 2
        _require(0 <= self.overlap <= 1 and margin.is_integer(), "hat.overlap", self.overlap,
                 f"a number from 0 to 1 for which overlap * {self.window} / 2 is an integer")  # fmt: skip
        depths_valid = 1 <= len(self.depths) <= 64 and all(1 <= depth <= 64 for depth in self.depths)
        _require(depths_valid, "hat.depths", self.depths, "1 to 64 groups, each of 1 to 64 blocks")
        _require(
            1 <= self.mlp_ratio * self.embed <= 16 * self.embed, "hat.mlp_ratio", self.mlp_ratio, "a number up to 16"
        )
        _require(0 <= self.drop_path < 1, "hat.drop_path", self.drop_path, "a number from 0 to below 1")


@dataclass
class MTDOConfig(WindowConfig):
    """Sizes and switches of MTDO. A module whose output would not be used (ATDM without route 1) is not built."""

    name: str = "mtdo"
    frames: int = 5  # N, odd: the window of frames, the centre one is super-resolved
    scale: int = 4
    channels: int = 64
    deformable_groups: int = 8
    feature_blocks: int = 5  # residual blocks of the per-frame features
    correction_blocks: int = 5  # residual blocks of MACU
    wide: bool = False  # HAT also takes the aligned features and makes the frame from its own channels (docs/mtdo.md)
    residual: str = "none"  # bicubic: add the bicubic upscaled centre frame
    atdm: bool = True  # off: its feature is zero
    stdm: bool = True  # off: its feature is zero
    ctdm: str = "paper"  # as_shipped: the published code's behaviour (difference exactly zero, frames reversed); off
    route1: bool = True  # off: R12 is route 2
    route2: bool = True  # off: R12 is route 1; both off: zero
    route3: bool = True  # off: zero
    tsa: bool = True  # off: the aligned frames are fused by one 1x1 convolution without attention
    macu: bool = True  # off: M = T + R3
    reconstruction: str = "hat"  # residual: plain residual blocks instead of HAT
    reconstruction_blocks: int = 16  # of reconstruction: residual
    hat: HATConfig = field(default_factory=HATConfig)

    def __post_init__(self) -> None:
        _require_choice("name", self.name, ("mtdo",))
        _require(3 <= self.frames <= 99 and self.frames % 2 == 1, "frames", self.frames, "an odd number from 3 to 99")
        _require(self.scale in (2, 3, 4, 8), "scale", self.scale, "2, 3, 4 or 8")
        for key, most in {"channels": 512, "deformable_groups": 512, "reconstruction_blocks": 256}.items():
            _require_between(key, getattr(self, key), 1, most)
        for key in ("feature_blocks", "correction_blocks"):
            _require_between(key, getattr(self, key), 0, 256)
        _require(self.channels % self.deformable_groups == 0, "channels", self.channels,
                 f"a multiple of deformable_groups = {self.deformable_groups}")  # fmt: skip
        _require_choice("residual", self.residual, ("none", "bicubic"))
        _require_choice("ctdm", self.ctdm, ("paper", "as_shipped", "off"))
        _require_choice("reconstruction", self.reconstruction, ("hat", "residual"))
        _require(not self.wide or self.reconstruction == "hat", "wide", self.wide, "false without reconstruction: hat")

    def idle_keys(self) -> dict[str, str]:
        unused = "hat" if self.reconstruction == "residual" else "reconstruction_blocks"
        return {unused: f"the reconstruction is '{self.reconstruction}'"}

    @property
    def multiple(self) -> int:
        """h and w are padded to multiples of this: TSA halves them twice, HAT needs full windows."""
        return lcm(4, self.hat.window) if self.reconstruction == "hat" else 4
