"""Time of restoration, without the time that the caller needs to process the frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

Job = TypeVar("Job")


class Clock:
    """Measures the workers of `restore(..., clock=clock)`."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float, int]] = []  # begin, end, frames; appending is safe from several threads

    def watch(self, work: Callable[[Job], Tensor]) -> Callable[[Job], Tensor]:
        """The same function, timed."""

        def watched(job: Job) -> Tensor:
            begin = time.perf_counter()
            frames = work(job)
            if frames.is_cuda:
                torch.cuda.synchronize(frames.device)  # CUDA calls return before the work is done
            self._spans.append((begin, time.perf_counter(), len(frames)))
            return frames

        return watched

    @contextmanager
    def span(self, device: torch.device) -> Iterator[None]:
        """Count the time of a block that restores no further frame, such as filtering."""
        begin = time.perf_counter()
        yield
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self._spans.append((begin, time.perf_counter(), 0))

    def reading(self) -> tuple[float, int]:
        """Seconds in which at least one worker or the filter was busy, and the number of frames restored."""
        seconds, until = 0.0, 0.0
        for begin, end, _ in sorted(self._spans):
            seconds += max(end - max(begin, until), 0.0)
            until = max(until, end)
        return seconds, sum(frames for _, _, frames in self._spans)
