"""MTDO: N low-resolution frames in, the super-resolved centre frame out.

Zhao, Guo, Min, Rao, "Multi-Temporal Difference and Dynamic Optimization Framework for Multi-Scale Motion Satellite
Video Super-Resolution", IEEE JSTARS 2025, doi 10.1109/JSTARS.2025.3590041. `forward`, `window_features` and `reconstruct`
read as the paper's figure: shallow features, MSD, MTDM (ATDM, STDM, CTDM), T-DROM, MAECM (TSA, MACU), HAT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn

from errors import InputError
from models.base import WindowNetwork
from models.layers import (
    ConvPReLU,
    ResidualBlock,
    bicubic_upscale,
    interleave_channels,
    pad_to_multiple,
)
from models.mtdo.alignment import MSD
from models.mtdo.attention import MultiHead, WindowPlan, symbolic_window_plan, window_plan
from models.mtdo.config import MTDOConfig
from models.mtdo.correction import MACU, TSA, PlainFusion
from models.mtdo.difference import CrossDifference, FrameDifference
from models.mtdo.hat import HAT
from models.mtdo.initialise import initialise
from models.mtdo.residual import ResidualReconstruction
from models.mtdo.routing import AlignedRoute, DifferenceRoutes
from models.mtdo.streaming import MTDOStream
from models.mtdo.window import WindowFeatures

# Feature maps that exist at once during inference, fitted to measured peaks (benchmarks/restore.py); MAPS_KEPT is counted.
MAPS_PER_TOKEN, MAPS_PER_FRAME = 40, 10
MAPS_KEPT = 3  # of a frame that a window skips: features, half a convolution, differences and the frame


class MTDO(WindowNetwork):
    """Frames (B, N, 3, h, w) in [0, 1], any h and w -> the centre frame (B, 3, scale*h, scale*w), not clamped."""

    config: MTDOConfig
    uses_autocast = False

    def __init__(self, config: MTDOConfig) -> None:
        super().__init__()
        self.config = config
        self.multiple, self.pool_work = config.multiple, config.channels**2
        frames, channels = config.frames, config.channels
        use_adjacent, use_skipped = config.atdm and config.route1, config.stdm and config.route2
        use_cross = config.ctdm != "off" and config.route3

        self.shallow = ConvPReLU(3, channels)
        blocks = [ResidualBlock(channels) for _ in range(config.feature_blocks)]
        self.features = nn.Sequential(ConvPReLU(3, channels), *blocks)
        self.msd = MSD(channels, config.deformable_groups)
        self.atdm = FrameDifference(channels, frames, step=1) if use_adjacent else None
        self.stdm = FrameDifference(channels, frames, step=2) if use_skipped else None
        self.ctdm = CrossDifference(channels, frames) if use_cross else None
        if self.ctdm and config.ctdm == "as_shipped":
            self.ctdm.requires_grad_(False)  # not used; kept because the published weights contain it
        routes12 = config.route1 or config.route2
        self.routes12 = DifferenceRoutes(channels, config.route1, config.route2) if routes12 else None
        self.route3 = AlignedRoute(channels, frames, config.ctdm) if config.route3 else None
        self.tsa = (TSA if config.tsa else PlainFusion)(channels, frames)
        self.macu = MACU(channels, config.correction_blocks) if config.macu else None
        if config.reconstruction == "hat":
            extra = channels * frames if config.wide else 0
            self.reconstruction: HAT | ResidualReconstruction = HAT(config.hat, channels, config.scale, extra)
        else:
            self.reconstruction = ResidualReconstruction(channels, config.reconstruction_blocks, config.scale)
        initialise(self, residual=config.residual != "none")
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as all activations

    def forward(self, frames: Tensor) -> Tensor:
        """(B, N, 3, h, w) -> (B, 3, scale*h, scale*w). Raises `InputError` for another shape or type."""
        self._check(frames)
        padded = pad_to_multiple(frames, self.multiple)
        return self.finish(self.reconstruct(self.window_features(padded)), frames[:, self.config.frames // 2])

    def window_features(self, frames: Tensor) -> WindowFeatures:
        """Padded frames (B, N, 3, h, w) -> their features, aligned to the centre's, and their encoded differences."""
        batch, number = frames.shape[:2]
        features, halves = (each.unflatten(0, (batch, number)) for each in self.encode(frames.flatten(0, 1)))
        aligned = self.msd(features, halves, features[:, number // 2])
        adjacent = self.atdm.encode_window(frames) if self.atdm else None
        skipped = self.stdm.encode_window(frames) if self.stdm else None
        return WindowFeatures(frames[:, number // 2], aligned, adjacent, skipped)

    def reconstruct(self, window: WindowFeatures) -> Tensor:
        """A window's features -> the padded centre frame (B, 3, scale*h, scale*w), without the bicubic residual."""
        dtype = self.shallow.conv.weight.dtype
        centre, aligned = _channels_last(window.centre.to(dtype)), interleave_channels(window.aligned.to(dtype))
        shallow = self.shallow(centre)  # F_t (B, C, h, w); all maps below have this shape

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

    def finish(self, restored: Tensor, centre: Tensor) -> Tensor:
        """Crop the padded result to the unpadded centre (B, 3, h, w); add its bicubic upscaling if the config requires it."""
        scale = self.config.scale
        restored = restored[..., : scale * centre.shape[-2], : scale * centre.shape[-1]].to(centre.dtype)
        return restored + bicubic_upscale(centre, scale) if self.config.residual == "bicubic" else restored

    def _check(self, frames: Tensor) -> None:
        number = self.config.frames
        if frames.dim() != 5 or frames.shape[2] != 3 or 0 in frames.shape or not frames.is_floating_point():
            raise InputError(
                f"frames are {frames.dtype} {tuple(frames.shape)}, expected a float tensor (B, {number}, 3, h, w) in [0, 1]"
            )
        if frames.shape[1] != number:
            raise InputError(
                f"the window has {frames.shape[1]} frames, this MTDO takes {number}: pass {number} (network.config.frames)"
            )

    # --- for the engine: see models/base.py ---------------------------------------------------------------------------

    def bytes_per_pixel(self, span: int, times: int = 0) -> float:
        config = self.config
        width = config.hat.embed if config.reconstruction == "hat" else config.channels
        maps: float = MAPS_PER_FRAME * config.frames + MAPS_KEPT * (span - config.frames) + 4 * config.scale**2
        if config.wide:
            maps += config.frames + 6 * config.scale**2 / config.channels  # HAT's second input; two more output frames
        return 4.0 * (MAPS_PER_TOKEN * width + config.channels * maps)

    def stream(self) -> MTDOStream:
        return MTDOStream(self)

    def for_inference(self, dtype: torch.dtype) -> MTDO:
        if next(self.tsa.parameters()).dtype == dtype:
            return self
        return deepcopy(self).set_inference_dtype(dtype)

    def set_inference_dtype(self, dtype: torch.dtype) -> MTDO:
        """Convert the weights to `dtype` (bfloat16, float16; float32 undoes it up to rounding), for inference.

        These stay in full precision: the features and the deformable convolution, because offsets are coordinates, and the
        last convolution unless it computes a residual, which is small and so are its rounding errors (79 dB for a residual
        of 0.05 in the mean).
        """
        full = next(self.features.parameters()).dtype
        for name, part in self.named_children():
            if name != "features":
                part.to(dtype)
        self.msd.dcn.to(full)
        if self.config.residual == "none":
            for name in ("conv_last", "wide_leave"):
                layer = getattr(self.reconstruction, name, None)
                if layer is not None:
                    layer.to(full)
        return self

    def parts_to_compile(self) -> Sequence[nn.Module]:
        return [self.reconstruction]

    @contextmanager
    def published_form(self) -> Iterator[None]:
        """Without padded heads, and with the upsampler's layers one after the other."""
        heads = [layer for layer in self.modules() if isinstance(layer, MultiHead)]
        padding = [layer.head_padding for layer in heads]
        upsampler = self.reconstruction.folded_upsampler
        fold = upsampler.fold
        try:
            for layer in heads:
                layer.head_padding = 0
            upsampler.fold = False
            yield
        finally:
            upsampler.fold = fold
            for layer, before in zip(heads, padding, strict=True):
                layer.head_padding = before

    def exportable(self, free: bool, size: tuple[int, int]) -> MTDO:
        """A copy whose plan of attention windows is a constant of the graph, or with `free` computed from symbolic sizes."""
        copy = deepcopy(self)
        if isinstance(copy.reconstruction, HAT):
            copy.reconstruction.make_plan = symbolic_window_plan if free else _constant_plan(self.config, size)
        return copy


def _constant_plan(config: MTDOConfig, size: tuple[int, int]) -> Callable[..., WindowPlan]:
    """A function of any arguments that returns the plan for frames of `size` = (h, w)."""
    plan = window_plan(*size, config.hat.window, torch.zeros(()))
    return lambda *_: plan


def _channels_last(x: Tensor) -> Tensor:
    """The layout of all activations: convolutions are faster in it on CPUs, and in half precision on GPUs."""
    return x.contiguous(memory_format=torch.channels_last)
