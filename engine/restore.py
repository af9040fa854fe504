"""A clip in, a clip out: the one way a network meets a clip, for evaluation, validation and upscale.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from data.clips import Clip, neighbours
from errors import InputError

CHUNK = 8  # gaps between key frames that are worked off together (space-time networks)
CONTEXT = 4  # key frames beyond each end of a chunk that the recurrence sees


def restore(
    network: nn.Module,
    clip: Clip,
    *,
    device: torch.device | str | None = None,
    padding: str = "reflect",
    frames: Sequence[int] | None = None,
    times: Sequence[float] = (0.5,),
    size: tuple[int, int] | None = None,
    chunk: int = CHUNK,
    context: int = CONTEXT,
) -> Iterator[Tensor]:
    """Yield restored frames (3, H, W), float32 on the CPU, in time order, not clamped.

    MTDO: one per frame of `clip` (or of `frames`), neighbours beyond the ends as `padding` says. STNO: the key frames and, between
    each two, one per entry of `times`, at `size` = (H, W); worked off in chunks of `chunk` gaps which see `context` key frames more
    at both ends, so that a clip of any length takes the same memory. Raises InputError for a clip that is too short.
    """
    device = torch.device(device or next(network.parameters()).device)
    network = network.to(device).eval()
    if network.config.name == "stno":
        results = _space_time(network, clip, device, times, size, chunk, context)
    else:
        results = _space(network, clip, device, padding, range(len(clip)) if frames is None else frames)
    return results


def _space(
    network: nn.Module, clip: Clip, device: torch.device, padding: str, frames: Sequence[int]
) -> Iterator[Tensor]:
    held: dict[int, Tensor] = {}  # the frames of the current window
    for index in frames:
        numbers = neighbours(index, network.config.frames, len(clip), padding)
        held = {
            number: held[number] if number in held else clip.frame(number).to(device) for number in sorted(set(numbers))
        }
        with torch.inference_mode():
            restored = network(torch.stack([held[number] for number in numbers])[None])
        yield restored[0].float().cpu()


def _space_time(
    network: nn.Module,
    clip: Clip,
    device: torch.device,
    times: Sequence[float],
    size: tuple[int, int] | None,
    chunk: int,
    context: int,
) -> Iterator[Tensor]:
    last = len(clip) - 1
    if last < 1:
        raise InputError(f"clip '{clip.name}' has {len(clip)} frame(s): in-between frames need at least 2 key frames")
    for start in range(0, last, chunk):
        stop = min(start + chunk, last)
        first, end = max(start - context, 0), min(stop + context, last)
        keys = torch.stack([clip.frame(index) for index in range(first, end + 1)])[None].to(device)
        with torch.inference_mode():
            restored = network(keys, times=list(times), size=size, keep=(start - first, stop - first))
        for frame in restored[0, 1 if start else 0 :]:
            yield frame.float().cpu()
