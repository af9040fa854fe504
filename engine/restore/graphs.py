"""CUDA graphs: many small operations recorded once and launched as one, for frames so small that launching them takes longer.

A graph works on fixed memory: arguments are copied in, results copied out. It is used only after its first result equalled that of the
plain call; where recording fails, the plain call goes on serving.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger("engine")
LARGEST = 4 * 320 * 180  # LR pixels of a batch beyond which the operations themselves take the time
WARM = 3  # plain calls before recording: libraries choose their kernels and take their workspaces
KEPT = 4  # shapes of which graphs are kept
TOLERANCE = 1e-3  # of the largest result: a wrong graph is far from it


class Graphed:
    """`function(*tensors or None) -> tensor` for inference, by a CUDA graph once its shapes came `WARM` times."""

    def __init__(self, function: Callable[..., Tensor], record: Callable[..., Any] | None = None) -> None:
        """record: replaces `Recording`, for tests."""
        self.function, self.record = function, record or Recording
        self.calls: dict[Any, int] = {}
        self.recordings: dict[Any, Any] = {}
        self.works = True

    def __call__(self, *arguments: Tensor | None) -> Tensor:
        if torch.is_autocast_enabled("cuda"):  # its cache of converted weights does not live in a graph
            return self.function(*arguments)
        key = tuple(None if a is None else (a.shape, a.stride(), a.dtype) for a in arguments)
        if key in self.recordings:
            return self.recordings[key](*arguments)
        self.calls[key] = self.calls.get(key, 0) + 1
        expected = self.function(*arguments)
        if self.works and self.calls[key] > WARM and len(self.recordings) < KEPT:
            self._try(key, arguments, expected)
        return expected

    def _try(self, key: Any, arguments: tuple[Tensor | None, ...], expected: Tensor) -> None:
        try:
            recording = self.record(self.function, arguments)
            found = recording(*arguments)
            apart = float((found.float() - expected.float()).abs().max() / expected.float().abs().max().clamp_min(1e-6))
        except RuntimeError as error:
            self.works = False
            log.info("no CUDA graph: %s", (str(error).splitlines() or [""])[0])
            return
        if apart <= TOLERANCE:
            self.recordings[key] = recording
        else:
            self.works = False
            log.warning("a CUDA graph's result differs by %.1e from the plain call's: graphs are not used", apart)


class Recording:
    """One recorded call."""

    def __init__(self, function: Callable[..., Tensor], arguments: tuple[Tensor | None, ...]) -> None:
        self.inputs = [None if argument is None else argument.clone() for argument in arguments]
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = function(*self.inputs)

    def __call__(self, *arguments: Tensor | None) -> Tensor:
        for fixed, argument in zip(self.inputs, arguments, strict=True):
            if fixed is not None and argument is not None:
                fixed.copy_(argument)
        self.graph.replay()
        return self.output.clone()
