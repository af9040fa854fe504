"""MTDO: N low-resolution frames in, the super-resolved centre frame out.

Zhao, Guo, Min, Rao, "Multi-Temporal Difference and Dynamic Optimization Framework for Multi-Scale Motion Satellite
Video Super-Resolution", IEEE JSTARS 2025, doi 10.1109/JSTARS.2025.3590041. `forward`, `describe` and `reconstruct`
read as the paper's figure: shallow features, MSD, MTDM (ATDM, STDM, CTDM), T-DROM, MAECM (TSA, MACU), HAT.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from errors import InputError
from models.layers import ConvPReLU, ResidualBlock, Upsampler, add, bicubic_upscale, pad_to_multiple, side_by_side
from models.mtdo.alignment import MSD
from models.mtdo.config import MTDOConfig
from models.mtdo.correction import MACU, TSA, PlainFusion
from models.mtdo.difference import CrossDifference, FrameDifference
from models.mtdo.hat import HAT
from models.mtdo.initialise import initialise
from models.mtdo.routing import AlignedRoute, DifferenceRoutes
from models.mtdo.tail import FoldedTail


@dataclass
class Window:
    """What `reconstruct` needs to know of a window of frames (padded sides h, w)."""

    centre: Tensor  # (B, 3, h, w)
    aligned: Tensor  # (B, N, C, h, w): every frame's features A_k, aligned to the centre's
    adjacent: Tensor | None  # (B, N-1, C, h/2, w/2): encoded differences I_k - I_{k+1}
    skipped: Tensor | None  # (B, (N-1)/2, C, h/2, w/2): encoded differences I_k - I_{k+2}, k even


class ResidualReconstruction(nn.Module):
    """What stands in for HAT with `reconstruction: residual`: residual blocks, then the same upsampler."""

    def __init__(self, channels: int, blocks: int, scale: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*[ResidualBlock(channels) for _ in range(blocks)])
        self.upsample = Upsampler(channels, scale)
        self.last = nn.Conv2d(channels, 3, 3, padding=1)
        self.tail = FoldedTail(self.upsample, self.last, scale)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, scale*h, scale*w)."""
        return self.tail(add(self.body(features), features))


class MTDO(nn.Module):
    """Frames (B, N, 3, h, w) in [0, 1], any h and w -> the centre frame (B, 3, scale*h, scale*w), not clamped."""

    def __init__(self, config: MTDOConfig) -> None:
        super().__init__()
        self.config = config
        frames, channels = config.frames, config.channels
        use_adjacent, use_skipped = config.atdm and config.route1, config.stdm and config.route2
        use_cross = config.ctdm != "off" and config.route3

        self.shallow = ConvPReLU(3, channels)
        blocks = [ResidualBlock(channels) for _ in range(config.feature_blocks)]
        self.features = nn.Sequential(ConvPReLU(3, channels), *blocks)
        self.msd = MSD(channels, config.deformable_groups)
        self.atdm = FrameDifference(channels, frames - 1) if use_adjacent else None
        self.stdm = FrameDifference(channels, frames // 2) if use_skipped else None
        self.ctdm = CrossDifference(channels, frames) if use_cross else None
        routes12 = config.route1 or config.route2
        self.routes12 = DifferenceRoutes(channels, config.route1, config.route2) if routes12 else None
        self.route3 = AlignedRoute(channels, frames, config.ctdm) if config.route3 else None
        self.tsa = (TSA if config.tsa else PlainFusion)(channels, frames)
        self.macu = MACU(channels, config.correction_blocks) if config.macu else None
        if config.reconstruction == "hat":
            extra = channels * frames if config.wide else 0
            self.reconstruction: nn.Module = HAT(config.hat, channels, config.scale, extra)
        else:
            self.reconstruction = ResidualReconstruction(channels, config.reconstruction_blocks, config.scale)
        initialise(self)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the layout of all that they meet

    def forward(self, frames: Tensor) -> Tensor:
        """(B, N, 3, h, w) -> (B, 3, scale*h, scale*w)."""
        self._check(frames)
        padded = pad_to_multiple(frames, self.config.multiple)
        return self.finish(self.reconstruct(self.describe(padded)), frames[:, self.config.frames // 2])

    def describe(self, frames: Tensor) -> Window:
        """Padded frames (B, N, 3, h, w) -> their features, aligned to the centre's, and their encoded differences."""
        batch, number = frames.shape[:2]
        features, halves = (each.unflatten(0, (batch, number)) for each in self.encode(frames.flatten(0, 1)))
        aligned = self.msd(features, halves, features[:, number // 2])
        adjacent = self.encode_differences(self.atdm, frames[:, :-1] - frames[:, 1:])
        skipped = self.encode_differences(self.stdm, frames[:, :-2:2] - frames[:, 2::2])
        return Window(frames[:, number // 2], aligned, adjacent, skipped)

    def reconstruct(self, window: Window) -> Tensor:
        """A described window -> the padded centre frame (B, 3, scale*h, scale*w), without the bicubic residual."""
        dtype = self.shallow.conv.weight.dtype
        centre, aligned = _channels_last(window.centre.to(dtype)), side_by_side(window.aligned.to(dtype))
        shallow = self.shallow(centre)  # F_t (B, C, h, w); so are all that follow

        # MTDM and T-DROM
        adjacent = self.atdm(window.adjacent, centre) if self.atdm else None  # D_A
        skipped = self.stdm(window.skipped, centre) if self.stdm else None  # D_S
        cross = self.ctdm(aligned) if self.ctdm and self.config.ctdm == "paper" else None  # D_F, D_B
        differences = self.routes12(adjacent, skipped, centre) if self.routes12 else None  # R12
        routed = self.route3(aligned, cross) if self.route3 else None  # R3

        # MAECM
        fused = self.tsa(aligned)  # T
        if self.macu:
            corrected = self.macu(fused, routed)  # M
        else:
            corrected = fused if routed is None else fused + routed

        hidden = corrected + shallow if differences is None else corrected + differences + shallow  # H
        if self.config.wide:
            return self.reconstruction(hidden, aligned.flatten(1, 2))
        return self.reconstruction(hidden)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Padded frames (M, 3, h, w) -> features E_k and the neighbour half of MSD's first convolution (M, C, h, w)."""
        features = self.features(_channels_last(frames))
        return features, self.msd.neighbour_half(features)

    @staticmethod
    def encode_differences(branch: FrameDifference | None, differences: Tensor) -> Tensor | None:
        """Differences (B, K, 3, h, w) through the first layers of ATDM or STDM -> (B, K, C, h/2, w/2)."""
        if branch is None:
            return None
        differences = differences.to(branch.difference.conv.weight.dtype)
        return branch.encode(_channels_last(differences.flatten(0, 1))).unflatten(0, differences.shape[:2])

    def finish(self, restored: Tensor, centre: Tensor) -> Tensor:
        """Crop the padded result to the unpadded centre (B, 3, h, w), and add its bicubic enlargement if asked for."""
        scale = self.config.scale
        restored = restored[..., : scale * centre.shape[-2], : scale * centre.shape[-1]].to(centre.dtype)
        return restored + bicubic_upscale(centre, scale) if self.config.residual == "bicubic" else restored

    def set_inference_dtype(self, dtype: torch.dtype) -> MTDO:
        """Compute wholly in `dtype` (bfloat16, float16; float32 undoes it up to rounding), for inference.

        Features, offsets (they are coordinates) with the deformable convolution, and the last convolution keep theirs; the
        last one not if it makes a residual, which is small and so are its rounding errors (79 dB where it is 0.05 in the mean).
        """
        full = self.features[0].conv.weight.dtype
        for name, part in self.named_children():
            if name != "features":
                part.to(dtype)
        self.msd.dcn.to(full)
        if self.config.residual == "none":
            for name in ("last", "wide_leave"):
                part = getattr(self.reconstruction, name, None)
                if part is not None:
                    part.to(full)
        return self

    def _check(self, frames: Tensor) -> None:
        expected = f"(batch, {self.config.frames}, 3, height, width)"
        if frames.dim() != 5 or frames.shape[1:3] != (self.config.frames, 3) or 0 in frames.shape:
            raise InputError(f"MTDO takes frames {expected}, got {tuple(frames.shape)}: set network.frames")


def _channels_last(x: Tensor) -> Tensor:
    """Convolutions keep this layout from here on; it is the faster one on CPUs and in half precision on GPUs."""
    return x.contiguous(memory_format=torch.channels_last)
