"""Checks and forms of the arguments of STNO's forward passes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from errors import InputError
from models.base import LARGEST_SCALE


def nearest_half(times: Tensor) -> Tensor:
    """The number of the time nearest to one half; times (B, K, 1 or T-1)."""
    return (times.mean((0, 2)) - 0.5).abs().argmin()


def checked_times(times: Sequence[float] | Tensor, frames: Tensor) -> Tensor:
    """Times (B, K, 1 or T-1) on the CPU with the dtype of `frames`, checked."""
    rows = times.cpu().double() if isinstance(times, Tensor) else torch.as_tensor(times, dtype=torch.float64)
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


def checked_outputs(outputs: Sequence[int] | None, keys: int, times: int) -> Sequence[int]:
    """Numbers of the outputs, all for None; checked."""
    every = range(keys + (keys - 1) * times)
    if outputs is None:
        return every
    numbers = [int(number) for number in outputs]
    if not numbers or numbers != sorted(set(numbers)) or numbers[0] < 0 or numbers[-1] >= len(every):
        raise InputError(f"outputs are {numbers}, expected ascending numbers from 0 to {every[-1]}")
    return numbers


def on_device(rows: Tensor, times: Sequence[float] | Tensor, frames: Tensor) -> Tensor:
    """Times on the device of `frames`, without synchronisation: numbers become constants, which a CUDA graph can contain."""
    if isinstance(times, Tensor) or not all(isinstance(time, int | float) for time in times):  # a row for each sample
        return rows.to(frames.device, non_blocking=True)
    return torch.stack([frames.new_full((len(rows), 1), time) for time in rows[0, :, 0].tolist()], dim=1)


def check_frames(frames: Tensor, size: tuple[int, int], mode: str) -> None:
    """Raises `InputError` for frames, an output size or a `times_mode` that STNO cannot take."""
    if frames.dim() != 5 or frames.shape[2] != 3 or not len(frames) or not frames.is_floating_point():
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
