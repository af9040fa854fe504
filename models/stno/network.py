"""STNO: space-time video super-resolution with a neural operator (Zhang et al., arXiv 2404.06036, IEEE TIP 2025).

key frames -> interpolation operator: flows and intermediate LR frames -> propagation in both directions -> query at any size
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errors import InputError
from models.base import SpaceTimeNetwork, SpaceTimeOutput
from models.flow import Flows
from models.layers import add_
from models.stno import symbolic
from models.stno.arguments import check_frames, checked_outputs, checked_times, nearest_half, on_device
from models.stno.config import STNOConfig
from models.stno.initialise import initialise
from models.stno.interpolation import InterpolationOperator
from models.stno.propagation import Needed, Propagation
from models.stno.query import Query

MULTIPLE = 8  # the coarsest level of the operator is 1/8
# Feature maps that exist at once, fitted to measured peaks (benchmarks/restore.py)
MAPS_PER_KEY, MAPS_PER_CHUNK = 5, 20


class Features(NamedTuple):
    """A clip's features before the query; images and flows without padding."""

    keys: Tensor  # (T, B, C, h, w), or only those needed, see `Propagation.forward`
    inserted: Tensor  # (T-1, K, B, C, h, w), or only those needed
    intermediate: Tensor  # (T-1, K, B, 3, h, w)
    flows: Flows  # each (T-1, K, B, 2, h, w)


class STNO(SpaceTimeNetwork):
    """LR key frames and times -> key and intermediate frames at any size."""

    config: STNOConfig
    multiple = MULTIPLE
    has_operator = True

    def __init__(self, config: STNOConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or STNOConfig()
        self.operator = InterpolationOperator(config)
        self.propagation = Propagation(config.channels, config.blocks)
        self.query = Query(config.channels, config.query_width)
        initialise(self, residual=config.residual != "none")

    def forward(
        self,
        frames: Tensor,
        times: Sequence[float] | Tensor = (0.5,),
        size: tuple[int, int] | None = None,
        *,
        times_mode: str | None = None,
        key_time: int | None = None,
        outputs: Sequence[int] | None = None,
    ) -> Tensor:
        """Key frames (B, T, 3, h, w) in [0, 1], T >= 2 -> (B, T + (T-1) * K, 3, H, W) in time order, not clamped.

        The intermediate LR frames are clamped to [0, 1] before they are propagated.

        Args:
            times: K ascending numbers in (0, 1), or a tensor (B, K) with a row for each sample, or (B, K, T-1) with a column
                for each gap between key frames.
            size: (H, W), any; None: four times (h, w).
            times_mode: "exact" or "shared" (`STNOConfig.times_mode`); None: the config's.
            key_time: with "exact" and several times, the number of the time whose key frames are returned; None: of the time
                nearest to 0.5.
            outputs: only these of the frames, ascending numbers from 0: (B, len(outputs), 3, H, W). Others are not computed, such as
                key frames that another network restores and the overlap of chunks.

        Raises InputError for anything else.
        """
        arguments = self._checked(frames, times, size, times_mode, key_time)
        numbers = checked_outputs(outputs, frames.shape[1], arguments[0].shape[1])
        return self._super_resolve(frames, *arguments, numbers, clamp=True).frames

    def forward_training(
        self,
        frames: Tensor,
        times: Sequence[float] | Tensor = (0.5,),
        size: tuple[int, int] | None = None,
        *,
        times_mode: str | None = None,
    ) -> SpaceTimeOutput:
        """As `forward`, with the intermediate LR frames and the flows, and without the clamp, which would block gradients."""
        arguments = self._checked(frames, times, size, times_mode, None)
        numbers = checked_outputs(None, frames.shape[1], arguments[0].shape[1])
        return self._super_resolve(frames, *arguments, numbers, clamp=False)

    def forward_traced(self, frames: Tensor, times: Tensor, size: tuple[int, int]) -> Tensor:
        numbers = checked_outputs(None, frames.shape[1], times.shape[1])
        mode = self.config.times_mode
        return self._super_resolve(frames, times.unsqueeze(-1), size, mode, None, numbers, clamp=True).frames

    def interpolate(self, frames: Tensor, times: Sequence[float] | Tensor = (0.5,)) -> tuple[Tensor, Flows]:
        """Only the operator: frames (B, T, 3, h, w) -> intermediate LR frames (B, (T-1) * K, 3, h, w), not clamped, and flows.

        Equal to those of `forward_training`, at a fraction of the cost.
        """
        height, width = frames.shape[-2:]
        times, *_ = self._checked(frames, times, (height, width), None, None)
        padded = _padded(frames).transpose(0, 1)
        intermediate, flows = self._interpolate(padded, times, clamp=False)
        images, *fields = (x[..., :height, :width].flatten(0, 1).transpose(0, 1) for x in (intermediate, *flows))
        return images, Flows(*fields)

    def _super_resolve(
        self,
        frames: Tensor,
        times: Tensor,
        size: tuple[int, int],
        mode: str,
        key_time: int | None,
        outputs: Sequence[int],
        clamp: bool,
    ) -> SpaceTimeOutput:
        """The forward pass of inference, training and export: frames (B, T, 3, h, w), times (B, K, 1 or T-1); all arguments are valid."""
        count = times.shape[1] + 1
        needed = _needed(outputs, count)
        features = self.features(frames, times, mode, key_time, clamp, needed)
        in_time = _in_time_order(features.keys, features.inserted, outputs, needed.gaps.start)
        out = self.query(in_time.flatten(0, 1), size, self.config.slab_pixels or None)
        if self.config.residual == "bicubic":
            images = _in_time_order(frames.transpose(0, 1), features.intermediate, outputs)
            out = add_(out, self._upscale(images.flatten(0, 1).to(out.dtype), size))
        return SpaceTimeOutput(
            out.unflatten(0, in_time.shape[:2]).transpose(0, 1),
            features.intermediate.flatten(0, 1).transpose(0, 1),
            Flows(*(flow.flatten(0, 1).transpose(0, 1) for flow in features.flows)),
        )

    def _upscale(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """The bicubic residual: (N, 3, h, w) -> (N, 3, H, W)."""
        if self.query.symbolic:
            return symbolic.bicubic(images, size)
        return F.interpolate(images, size=size, mode="bicubic", align_corners=False)

    def features(
        self,
        frames: Tensor,
        times: Tensor,
        mode: str,
        key_time: int | None,
        clamp: bool,
        needed: Needed | None = None,
    ) -> Features:
        """Operator and propagation: frames (B, T, 3, h, w), times (B, K, 1 or T-1). needed: None: all."""
        height, width = frames.shape[-2:]
        padded = _padded(frames).transpose(0, 1)  # (T, B, 3, h', w')
        intermediate, flows = self._interpolate(padded, times, clamp)
        if mode == "shared" or times.shape[1] == 1:
            keys, inserted = self.propagation(padded, intermediate, flows, needed)
        else:
            keys, inserted = self._propagate_each(padded, intermediate, flows, times, key_time, needed)
        crop = (..., slice(height), slice(width))
        return Features(keys[crop], inserted[crop], intermediate[crop], Flows(*(flow[crop] for flow in flows)))

    def _propagate_each(
        self,
        frames: Tensor,
        intermediate: Tensor,
        flows: Flows,
        times: Tensor,
        key_time: int | None,
        needed: Needed | None,
    ) -> tuple[Tensor, Tensor]:
        """`times_mode: exact`: a propagation for each time. The key frames are those of `key_time`, None: nearest to 0.5."""
        keys, inserted = torch.zeros(()), []
        for k in range(times.shape[1]):
            one = slice(k, k + 1)
            of_time = intermediate[:, one], Flows(*(x[:, one] for x in flows))
            keys_k, inserted_k = self.propagation(frames, *of_time, needed)
            if k == 0 or key_time == k:
                keys = keys_k
            elif key_time is None:  # in an exported graph, times are an input
                keys = torch.where(nearest_half(times) == k, keys_k, keys)
            inserted.append(inserted_k)
        return keys, torch.cat(inserted, dim=1)

    def _interpolate(self, frames: Tensor, times: Tensor, clamp: bool) -> tuple[Tensor, Flows]:
        """Frames (T, B, 3, h, w), times (B, K, 1 or T-1) -> intermediate frames and flows (T-1, K, B, .., h, w).

        Always in full precision: flows are positions, and the operator takes a few percent of the time.
        """
        gaps, batch = len(frames) - 1, frames.shape[1]
        with torch.autocast(frames.device.type, enabled=False):
            pairs = self.operator.encode(frames[:-1].flatten(0, 1), frames[1:].flatten(0, 1))
            results = []
            for time in times.unbind(1):
                of_pair = time.expand(batch, gaps).T.reshape(-1, 1, 1, 1)
                frame, flows = self.operator.decode(pairs, of_pair)
                frame = frame.clamp(0, 1) if clamp else frame
                results.append([x.unflatten(0, (gaps, batch)) for x in (frame, *flows)])
        intermediate, *fields = (torch.stack(x, dim=1) for x in zip(*results, strict=True))
        return intermediate, Flows(*fields)

    def _checked(
        self,
        frames: Tensor,
        times: Sequence[float] | Tensor,
        size: tuple[int, int] | None,
        times_mode: str | None,
        key_time: int | None,
    ) -> tuple[Tensor, tuple[int, int], str, int]:
        """Times (B, K, 1 or T-1) on the device of `frames`, output size, mode and key time. Raises `InputError` for bad arguments."""
        height, width = frames.shape[-2:] if frames.dim() == 5 else (0, 0)
        size = self.output_size((height, width), size)
        size, mode = (int(size[0]), int(size[1])), times_mode or self.config.times_mode
        check_frames(frames, size, mode)
        rows = checked_times(times, frames)
        if key_time is not None and not 0 <= key_time < rows.shape[1]:
            raise InputError(f"key_time is {key_time}, expected the number of one of the {rows.shape[1]} times, from 0")
        chosen = int(nearest_half(rows)) if key_time is None else key_time
        return on_device(rows, times, frames), size, mode, chosen

    # --- for the engine: see models/base.py ---------------------------------------------------------------------------

    def bytes_per_pixel(self, span: int, times: int = 0) -> float:
        return 4.0 * self.config.channels * (MAPS_PER_KEY * span * (1 + times) + MAPS_PER_CHUNK)

    def parts_to_compile(self) -> Sequence[nn.Module]:
        return [self.propagation.backward_branch, self.propagation.forward_branch]

    def exportable(self, free: bool, size: tuple[int, int]) -> STNO:
        """Make all modules process full maps instead of chunks or slabs, whose number depends on the size."""
        copy = deepcopy(self)
        for module in copy.modules():
            if hasattr(module, "symbolic"):
                module.symbolic = True  # type: ignore[assignment]
        return copy


def _padded(frames: Tensor) -> Tensor:
    """(B, T, 3, h, w) with both sides multiples of `MULTIPLE`: reflected at the bottom and the right, or where a side is too short for it
    replicated (`models.layers.pad_to_multiple` mirrors it instead).
    """
    maps = frames.flatten(0, 1)
    for axis in (-2, -1):
        side = frames.shape[axis]
        missing = -side % MULTIPLE
        if missing:
            amount = (0, 0, 0, missing) if axis == -2 else (0, missing, 0, 0)
            maps = F.pad(maps, amount, mode="reflect" if missing < side else "replicate")
    return maps.unflatten(0, frames.shape[:2])


def _needed(outputs: Sequence[int], count: int) -> Needed:
    """The features from which these outputs are made. count: outputs from a key frame to the next."""
    gaps = [number // count for number in outputs if number % count]
    return Needed(range(gaps[0], gaps[-1] + 1) if gaps else range(0), -(-outputs[-1] // count))


def _in_time_order(keys: Tensor, inserted: Tensor, outputs: Sequence[int], first_gap: int = 0) -> Tensor:
    """Key frames (T, B, ..) and the intermediate frames of the gaps from `first_gap` (gaps, K, B, ..) -> (len(outputs), B, ..)."""
    count = inserted.shape[1] + 1
    steps = [divmod(number, count) for number in outputs]
    return torch.stack(
        [inserted[gap - first_gap, step - 1].to(keys.dtype) if step else keys[gap] for gap, step in steps]
    )
