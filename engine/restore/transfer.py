"""Asynchronous copies of frames to and from a GPU through pinned memory, as bytes if that is lossless.

On a CPU these functions do nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

BEHIND = 1  # results that are copied while the next one is computed: two buffers


def compact(frame: Tensor) -> Tensor:
    """A frame in [0, 1] as bytes if it has 8-bit values (k / 255), else unchanged. `expand` is the inverse.

    Bytes take a quarter of the transfer time of float32.
    """
    scaled = frame * 255
    levels = scaled.round()
    if levels.min() < 0 or levels.max() > 255:
        return frame
    bytes_ = levels.to(torch.uint8)
    return bytes_ if torch.equal(expand(bytes_), frame) else frame


def expand(frame: Tensor) -> Tensor:
    """Bytes to float32 in [0, 1]; float frames are returned unchanged."""
    return frame.float().div_(255) if frame.dtype == torch.uint8 else frame


def upload(frame: Tensor, device: torch.device) -> Tensor:
    """A frame on the device, float; copied asynchronously from pinned memory."""
    if device.type == "cuda" and frame.device.type == "cpu":
        frame = frame.contiguous().pin_memory().to(device, non_blocking=True)
    return expand(frame.to(device))


class Download:
    """An asynchronous copy of a GPU tensor to pinned memory; `take` waits for this copy only."""

    streams: dict[torch.device, torch.cuda.Stream] = {}  # noqa: RUF012  one per device, for the lifetime of the process

    def __init__(self, frames: Tensor) -> None:
        device = frames.device
        stream = self.streams.setdefault(device, torch.cuda.Stream(device))
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            self.frames = torch.empty(frames.shape, dtype=frames.dtype, pin_memory=True)
            self.frames.copy_(frames, non_blocking=True)
            self.arrived = torch.cuda.Event()
            self.arrived.record(stream)
        frames.record_stream(stream)

    def take(self) -> Tensor:
        self.arrived.synchronize()
        return self.frames


def downloaded(results: Iterable[Tensor], begin: Callable[[Tensor], Any] = Download) -> Iterator[Tensor]:
    """The same tensors on the CPU, in order; those of a GPU are copied while the next one is computed."""
    under_way: deque[Any] = deque()
    for result in results:
        if result.device.type == "cpu":
            yield result
            continue
        under_way.append(begin(result))
        if len(under_way) > BEHIND:
            yield under_way.popleft().take()
    while under_way:
        yield under_way.popleft().take()
