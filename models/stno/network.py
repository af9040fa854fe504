"""STNO: space-time video super-resolution with a neural operator (Zhang et al., arXiv 2404.06036, IEEE TIP 2025).

key frames --(interpolation operator: flows and in-between LR frames)--> propagation, both directions --> query at any
size
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errors import InputError
from models.layers import add
from models.stno.config import STNOConfig, one_of
from models.stno.initialise import initialise
from models.stno.interpolation import Flows, InterpolationOperator
from models.stno.propagation import Propagation
from models.stno.query import Query

MULTIPLE = 8  # the operator's coarsest level is 1/8
LARGEST_SCALE = 64


class STNOOutput(NamedTuple):
    """What the training losses look at. T_out = T + (T-1) * K frames for K times."""

    frames: Tensor  # (B, T_out, 3, H, W), time order, not clamped
    between: Tensor  # (B, (T-1) * K, 3, h, w) in-between LR frames, time order, not clamped
    flows: Flows  # each (B, (T-1) * K, 2, h, w), LR pixels


class Features(NamedTuple):
    """A clip before the query; images and flows without padding."""

    keys: Tensor  # (T, B, C, h, w)
    inserted: Tensor  # (T-1, K, B, C, h, w)
    between: Tensor  # (T-1, K, B, 3, h, w)
    flows: Flows  # each (T-1, K, B, 2, h, w)


class STNO(nn.Module):
    """Key frames and times in, the denser and larger clip out."""

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

        times: K ascending numbers in (0, 1), or a tensor (B, K) with a row per sample, or (B, K, T-1) with a column per
        gap between key frames. size: (H, W), any; None: four
        times (h, w). times_mode: "exact" or "shared", None: the config's. key_time: with "exact" and several times,
        whose key frames are returned (None: those of the time nearest 0.5). keep: only the outputs between these two
        key frames (inclusive), for clips that are processed in overlapping pieces. The in-between LR frames are clamped
        to [0, 1] inside. Raises InputError for anything else.
        """
        return self._run(frames, times, size, times_mode, key_time, keep, clamp=True).frames

    def forward_training(
        self,
        frames: Tensor,
        times: Sequence[float] | Tensor = (0.5,),
        size: tuple[int, int] | None = None,
        *,
        times_mode: str | None = None,
    ) -> STNOOutput:
        """As `forward`, with the LR in-between frames and the flows, and without the clamp, behind which nothing could
        be learnt.
        """
        return self._run(frames, times, size, times_mode, None, None, clamp=False)

    def interpolate(self, frames: Tensor, times: Sequence[float] | Tensor = (0.5,)) -> tuple[Tensor, Flows]:
        """The operator alone: frames (B, T, 3, h, w) -> LR in-between frames (B, (T-1) * K, 3, h, w), not clamped, flows.

        What `forward_training` returns as `between` and `flows`, for a fraction of its cost.
        """
        _check(frames, tuple(frames.shape[-2:]), self.config.times_mode)
        height, width = frames.shape[-2:]
        padded = pad_to_multiple(frames).transpose(0, 1)
        rows = _checked_times(times, frames)
        between, flows = self._interpolate(padded, _on_device(rows, times, frames), clamp=False)
        between, *flows = (x[..., :height, :width].flatten(0, 1).transpose(0, 1) for x in (between, *flows))
        return between, Flows(*flows)

    def _run(
        self,
        frames: Tensor,
        times: Sequence[float] | Tensor,
        size: tuple[int, int] | None,
        times_mode: str | None,
        key_time: int | None,
        keep: tuple[int, int] | None,
        clamp: bool,
    ) -> STNOOutput:
        height, width = frames.shape[-2:] if frames.dim() == 5 else (0, 0)
        size = (4 * height, 4 * width) if size is None else (int(size[0]), int(size[1]))
        mode = times_mode or self.config.times_mode
        _check(frames, size, mode)
        rows = _checked_times(times, frames)
        chosen = _nearest_half(rows) if key_time is None else key_time
        times = _on_device(rows, times, frames)
        features = self.features(frames, times, mode, chosen, clamp)
        first, last = keep or (0, frames.shape[1] - 1)
        if not 0 <= first <= last < frames.shape[1]:
            raise InputError(f"keep is {keep}, expected two key frame numbers between 0 and {frames.shape[1] - 1}")
        count = times.shape[1] + 1
        wanted = slice(first * count, last * count + 1)
        in_time = _interleave(features.keys, features.inserted)[wanted]
        out = self.query(in_time.flatten(0, 1), size, self.config.slab_pixels or None)
        if self.config.residual == "bicubic":
            images = _interleave(frames.transpose(0, 1), features.between)[wanted].flatten(0, 1)
            out = add(out, F.interpolate(images.to(out.dtype), size=size, mode="bicubic", align_corners=False))
        return STNOOutput(
            out.unflatten(0, in_time.shape[:2]).transpose(0, 1),
            features.between.flatten(0, 1).transpose(0, 1),
            Flows(*(flow.flatten(0, 1).transpose(0, 1) for flow in features.flows)),
        )

    def features(self, frames: Tensor, times: Tensor, mode: str, key_time: int, clamp: bool) -> Features:
        """Operator and propagation; frames (B, T, 3, h, w), times (B, K, 1 or T-1)."""
        height, width = frames.shape[-2:]
        padded = pad_to_multiple(frames).transpose(0, 1)  # (T, B, 3, h', w')
        between, flows = self._interpolate(padded, times, clamp)
        count = times.shape[1]
        if mode == "shared" or count == 1:
            keys, inserted = self.propagation(padded, between, flows)
        else:
            if not 0 <= key_time < count:
                raise InputError(
                    f"key_time is {key_time}, expected the number of one of the {count} times (0 to {count - 1})"
                )
            single = []
            for k in range(count):
                one = slice(k, k + 1)
                of_time, added = self.propagation(padded, between[:, one], Flows(*(flow[:, one] for flow in flows)))
                single.append(added)
                keys = of_time if k == key_time or k == 0 else keys
            inserted = torch.cat(single, dim=1)
        crop = (..., slice(height), slice(width))
        return Features(keys[crop], inserted[crop], between[crop], Flows(*(flow[crop] for flow in flows)))

    def _interpolate(self, frames: Tensor, times: Tensor, clamp: bool) -> tuple[Tensor, Flows]:
        """Frames (T, B, 3, h, w), times (B, K, 1 or T-1) -> in-between frames and flows (T-1, K, B, .., h, w).

        Always in full precision: flows are positions, and the operator is a few percent of the work.
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
        between, *flows = (torch.stack(x, dim=1) for x in zip(*results, strict=True))
        return between, Flows(*flows)


def pad_to_multiple(frames: Tensor, multiple: int = MULTIPLE) -> Tensor:
    """Pad (B, T, 3, h, w) at the bottom and the right: reflection, replication along an axis that is too short for
    it.
    """
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


def _nearest_half(times: Tensor) -> int:
    return int((times.mean((0, 2)) - 0.5).abs().argmin())


def _checked_times(times: Sequence[float] | Tensor, frames: Tensor) -> Tensor:
    """Times (B, K, 1 or T-1) on the CPU in the type of `frames`, checked."""
    rows = torch.as_tensor(times, dtype=torch.float64).cpu()
    rows = rows.expand(len(frames), -1) if rows.dim() == 1 else rows
    rows = rows.unsqueeze(-1) if rows.dim() == 2 else rows
    if (
        rows.dim() != 3
        or len(rows) != len(frames)
        or not rows.shape[1]
        or rows.shape[2] not in (1, frames.shape[1] - 1)
    ):
        raise InputError(
            f"times have shape {tuple(rows.shape)}; expected a list of numbers, or one row for each of the "
            f"{len(frames)} samples, with one column or one for each of the {frames.shape[1] - 1} gaps"
        )
    if not bool(((rows > 0) & (rows < 1)).all()):
        raise InputError(
            f"times {rows[0].tolist()} must lie between 0 and 1, both excluded: 0 is one key frame, 1 is the next"
        )
    if not bool((rows.diff(dim=1) > 0).all()):
        raise InputError(f"times {rows[0].tolist()} must ascend")
    return rows.to(frames.dtype)


def _on_device(rows: Tensor, times: Sequence[float] | Tensor, frames: Tensor) -> Tensor:
    """Times (B, K) on the device of `frames`, without waiting for it: a list becomes constants, so a CUDA graph can hold it."""
    if isinstance(times, Tensor):
        return rows.to(frames.device, non_blocking=True)
    return torch.stack([frames.new_full((len(rows), 1), time) for time in rows[0, :, 0].tolist()], dim=1)


def _check(frames: Tensor, size: tuple[int, int], mode: str) -> None:
    if frames.dim() != 5 or frames.shape[2] != 3 or not frames.is_floating_point():
        raise InputError(
            f"frames are {frames.dtype} {tuple(frames.shape)}, expected a float tensor (B, T, 3, h, w) in [0, 1]"
        )
    if frames.shape[1] < 2:
        raise InputError(f"the clip has {frames.shape[1]} key frame(s), STNO needs at least 2 to interpolate between")
    for out, side in zip(size, frames.shape[-2:], strict=True):
        if not 1 <= out <= LARGEST_SCALE * side:
            raise InputError(
                f"output size {size} from frames of {tuple(frames.shape[-2:])}: each side must lie between 1 and "
                f"{LARGEST_SCALE} times the frame's"
            )
    one_of("times_mode", mode, ("exact", "shared"))
