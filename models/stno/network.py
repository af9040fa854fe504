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
from models.base import LARGEST_SCALE, SpaceTimeNetwork, SpaceTimeOutput
from models.flow import Flows
from models.layers import add_
from models.stno import symbolic
from models.stno.config import STNOConfig
from models.stno.initialise import initialise
from models.stno.interpolation import InterpolationOperator
from models.stno.propagation import Propagation
from models.stno.query import Query

MULTIPLE = 8  # the coarsest level of the operator is 1/8
# Feature maps that exist at once, fitted to measured peaks (benchmarks/restore.py)
MAPS_PER_KEY, MAPS_PER_CHUNK = 5, 20


class Features(NamedTuple):
    """A clip's features before the query; images and flows without padding."""

    keys: Tensor  # (T, B, C, h, w)
    inserted: Tensor  # (T-1, K, B, C, h, w)
    intermediate: Tensor  # (T-1, K, B, 3, h, w)
    flows: Flows  # each (T-1, K, B, 2, h, w)


class STNO(SpaceTimeNetwork):
    """LR key frames and times -> key and intermediate frames at any size."""

    config: STNOConfig
    multiple = MULTIPLE
    has_operator = True

    def __init__(self, config: STNOConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or STNOConfig()
        self.operator = InterpolationOperator(
            c.pyramid, c.head_widths, c.side_channels, c.frame_features, c.embedding, c.heads, c.hidden
        )
        self.propagation = Propagation(c.channels, c.blocks)
        self.query = Query(c.channels, c.query_width)
        initialise(self, residual=c.residual != "none")

    def forward(
        self,
        frames: Tensor,
        times: Sequence[float] | Tensor = (0.5,),
        size: tuple[int, int] | None = None,
        *,
        times_mode: str | None = None,
        key_time: int | None = None,
        keep: tuple[int, int] | None = None,
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
            keep: only the outputs between these two key frames, both included, for clips in overlapping chunks.

        Raises InputError for anything else.
        """
        arguments = self._checked(frames, times, size, times_mode, key_time, keep)
        return self._super_resolve(frames, *arguments, keep, clamp=True).frames

    def forward_training(
        self,
        frames: Tensor,
        times: Sequence[float] | Tensor = (0.5,),
        size: tuple[int, int] | None = None,
        *,
        times_mode: str | None = None,
    ) -> SpaceTimeOutput:
        """As `forward`, with the intermediate LR frames and the flows, and without the clamp, which would block gradients."""
        arguments = self._checked(frames, times, size, times_mode, None, None)
        return self._super_resolve(frames, *arguments, None, clamp=False)

    def forward_traced(self, frames: Tensor, times: Tensor, size: tuple[int, int]) -> Tensor:
        return self._super_resolve(
            frames, times.unsqueeze(-1), size, self.config.times_mode, None, None, clamp=True
        ).frames

    def interpolate(self, frames: Tensor, times: Sequence[float] | Tensor = (0.5,)) -> tuple[Tensor, Flows]:
        """Only the operator: frames (B, T, 3, h, w) -> intermediate LR frames (B, (T-1) * K, 3, h, w), not clamped, and flows.

        Equal to those of `forward_training`, at a fraction of the cost.
        """
        height, width = frames.shape[-2:]
        times, *_ = self._checked(frames, times, (height, width), None, None, None)
        padded = pad_to_multiple(frames).transpose(0, 1)
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
        keep: tuple[int, int] | None,
        clamp: bool,
    ) -> SpaceTimeOutput:
        """The forward pass of inference, training and export: frames (B, T, 3, h, w), times (B, K, 1 or T-1); all arguments are valid."""
        features = self.features(frames, times, mode, key_time, clamp)
        first, last = keep or (0, frames.shape[1] - 1)
        count = times.shape[1] + 1
        wanted = slice(first * count, last * count + 1)
        in_time = _interleave(features.keys, features.inserted)[wanted]
        out = self.query(in_time.flatten(0, 1), size, self.config.slab_pixels or None)
        if self.config.residual == "bicubic":
            images = _interleave(frames.transpose(0, 1), features.intermediate)[wanted].flatten(0, 1)
            out = add_(out, self._upscale(images.to(out.dtype), size))
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

    def features(self, frames: Tensor, times: Tensor, mode: str, key_time: int | None, clamp: bool) -> Features:
        """Operator and propagation: frames (B, T, 3, h, w), times (B, K, 1 or T-1)."""
        height, width = frames.shape[-2:]
        padded = pad_to_multiple(frames).transpose(0, 1)  # (T, B, 3, h', w')
        intermediate, flows = self._interpolate(padded, times, clamp)
        if mode == "shared" or times.shape[1] == 1:
            keys, inserted = self.propagation(padded, intermediate, flows)
        else:
            keys, inserted = self._propagate_each(padded, intermediate, flows, times, key_time)
        crop = (..., slice(height), slice(width))
        return Features(keys[crop], inserted[crop], intermediate[crop], Flows(*(flow[crop] for flow in flows)))

    def _propagate_each(
        self, frames: Tensor, intermediate: Tensor, flows: Flows, times: Tensor, key_time: int | None
    ) -> tuple[Tensor, Tensor]:
        """`times_mode: exact`: a propagation for each time. The key frames are those of `key_time`, None: nearest to 0.5."""
        keys, inserted = torch.zeros(()), []
        for k in range(times.shape[1]):
            one = slice(k, k + 1)
            keys_k, inserted_k = self.propagation(frames, intermediate[:, one], Flows(*(x[:, one] for x in flows)))
            if k == 0 or key_time == k:
                keys = keys_k
            elif key_time is None:  # in an exported graph, times are an input
                keys = torch.where(_nearest_half(times) == k, keys_k, keys)
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
        keep: tuple[int, int] | None,
    ) -> tuple[Tensor, tuple[int, int], str, int]:
        """Times (B, K, 1 or T-1) on the device of `frames`, output size, mode and key time. Raises `InputError` for bad arguments."""
        height, width = frames.shape[-2:] if frames.dim() == 5 else (0, 0)
        size = self.output_size((height, width), size)
        size, mode = (int(size[0]), int(size[1])), times_mode or self.config.times_mode
        _check(frames, size, mode)
        rows = _checked_times(times, frames)
        if key_time is not None and not 0 <= key_time < rows.shape[1]:
            raise InputError(f"key_time is {key_time}, expected the number of one of the {rows.shape[1]} times, from 0")
        if keep is not None and not 0 <= keep[0] <= keep[1] < frames.shape[1]:
            raise InputError(f"keep is {keep}, expected two key frame numbers between 0 and {frames.shape[1] - 1}")
        chosen = int(_nearest_half(rows)) if key_time is None else key_time
        return _on_device(rows, times, frames), size, mode, chosen

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


def pad_to_multiple(frames: Tensor, multiple: int = MULTIPLE) -> Tensor:
    """Pad (B, T, 3, h, w) at the bottom and the right: reflection, or replication if a side is too short for it."""
    maps = frames.flatten(0, 1)
    for axis in (-2, -1):
        side = frames.shape[axis]
        missing = -side % multiple
        if missing:
            amount = (0, 0, 0, missing) if axis == -2 else (0, missing, 0, 0)
            maps = F.pad(maps, amount, mode="reflect" if missing < side else "replicate")
    return maps.unflatten(0, frames.shape[:2])


def _interleave(keys: Tensor, inserted: Tensor) -> Tensor:
    """(T, B, ..) and (T-1, K, B, ..) -> (T + (T-1) * K, B, ..) in time order."""
    steps = torch.cat([keys[:-1].unsqueeze(1), inserted.to(keys.dtype)], dim=1).flatten(0, 1)
    return torch.cat([steps, keys[-1:]])


def _nearest_half(times: Tensor) -> Tensor:
    return (times.mean((0, 2)) - 0.5).abs().argmin()


def _checked_times(times: Sequence[float] | Tensor, frames: Tensor) -> Tensor:
    """Times (B, K, 1 or T-1) on the CPU with the dtype of `frames`, checked."""
    rows = torch.as_tensor(times, dtype=torch.float64).cpu()
    rows = rows.expand(len(frames), -1) if rows.dim() == 1 else rows
    rows = rows.unsqueeze(-1) if rows.dim() == 2 else rows
    columns = (1, frames.shape[1] - 1)
    if rows.dim() != 3 or len(rows) != len(frames) or not rows.shape[1] or rows.shape[2] not in columns:
        raise InputError(
            f"times have shape {tuple(rows.shape)}; expected a list of numbers, or one row for each of the "
            f"{len(frames)} samples, with one column or one for each of the {columns[1]} gaps"
        )
    if not bool(((rows > 0) & (rows < 1)).all()):
        raise InputError(
            f"times {rows[0].tolist()} must be between 0 and 1, both excluded: 0 is one key frame, 1 is the next"
        )
    if not bool((rows.diff(dim=1) > 0).all()):
        raise InputError(f"times {rows[0].tolist()} must ascend")
    return rows.to(frames.dtype)


def _on_device(rows: Tensor, times: Sequence[float] | Tensor, frames: Tensor) -> Tensor:
    """Times on the device of `frames`, without synchronisation: a list becomes constants, which a CUDA graph can contain."""
    if isinstance(times, Tensor):
        return rows.to(frames.device, non_blocking=True)
    return torch.stack([frames.new_full((len(rows), 1), time) for time in rows[0, :, 0].tolist()], dim=1)


def _check(frames: Tensor, size: tuple[int, int], mode: str) -> None:
    if frames.dim() != 5 or frames.shape[2] != 3 or not frames.is_floating_point():
        raise InputError(
            f"frames are {frames.dtype} {tuple(frames.shape)}, expected a float tensor (B, T, 3, h, w) in [0, 1]"
        )
    if frames.shape[1] < 2:
        raise InputError(f"the clip has {frames.shape[1]} key frame(s), STNO needs at least 2 to interpolate")
    for out, side in zip(size, frames.shape[-2:], strict=True):
        if not 1 <= out <= LARGEST_SCALE * side:
            raise InputError(
                f"output size {size} from frames of {tuple(frames.shape[-2:])}: each side must be between 1 and "
                f"{LARGEST_SCALE} times the frame's"
            )
    if mode not in ("exact", "shared"):
        raise InputError(f"times_mode is {mode!r}, expected exact or shared")
