"""CUDA graphs for small frames, whose operations take less time than their launches: record the operations, replay them at once.

A graph uses fixed memory: arguments are copied in, results are copied out. It is used only if its first result equals that of
the plain call within `TOLERANCE`. If recording fails, the plain call is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger("engine")
LARGEST = 4 * 320 * 180  # LR pixels of a batch; above, the operations take longer than their launches
WARM = 3  # plain calls before recording, in which libraries select kernels and allocate workspaces
KEPT = 4  # maximum number of recorded graphs, one per set of shapes
TOLERANCE = 1e-3  # relative to the largest value; a wrong graph differs far more


class Graphed:
    """`function(*tensors or None) -> tensor` for inference, with a CUDA graph after `WARM` calls of the same shapes."""

    def __init__(self, function: Callable[..., Tensor], record: Callable[..., Any] | None = None) -> None:
        """record: replaces `Recording`, for tests."""
        self.function, self.record = function, record or Recording
        self.calls: dict[Any, int] = {}
        self.recordings: dict[Any, Any] = {}
        self.works = True

    def __call__(self, *arguments: Tensor | None) -> Tensor:
        if torch.is_autocast_enabled("cuda"):  # the weights that autocast converts and caches are not in the graph
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
            log.warning("the result of a CUDA graph differs by %.1e from the plain call: graphs are not used", apart)


class Recording:
    """One recorded call."""

    def __init__(self, function: Callable[..., Tensor], arguments: tuple[Tensor | None, ...]) -> None:
        self.inputs = [None if argument is None else argument.clone() for argument in arguments]
        self.graph = torch.cuda.CUDAGraph()
        device = next(argument.device for argument in arguments if argument is not None)
        # Streams of the tensors' device, which need not be the current one: operations elsewhere are executed, not recorded.
        # The outer one is current again after a recording that failed. Other threads may allocate memory meanwhile.
        with (
            torch.cuda.stream(torch.cuda.current_stream(device)),
            torch.cuda.graph(self.graph, stream=torch.cuda.Stream(device), capture_error_mode="thread_local"),
        ):
            self.output = function(*self.inputs)
        self.output.fill_(float("nan"))  # a graph that writes nothing is found by the comparison

    def __call__(self, *arguments: Tensor | None) -> Tensor:
        for fixed, argument in zip(self.inputs, arguments, strict=True):
            if fixed is not None and argument is not None:
                fixed.copy_(argument)
        self.graph.replay()
        return self.output.clone()
