"""Copies to and from a GPU, and CUDA graphs: tests that need no GPU."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from engine.restore import Options, restore, work
from engine.restore.graphs import WARM, Graphed
from engine.restore.jobs import batched
from engine.restore.transfer import compact, downloaded, expand, upload
from tests.engine.small import moving_clip, small_mtdo


def test_uint8_frames_are_copied_as_bytes_and_stay_exact():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(3, -1, -1)
    frame = levels.float() / 255
    packed = compact(frame)
    assert packed.dtype == torch.uint8 and torch.equal(expand(packed), frame)
    assert torch.equal(upload(packed, torch.device("cpu")), frame)


@pytest.mark.parametrize("value", [0.5, 1.1, -0.01, 1 / 65535, float("nan"), float("inf")])
def test_other_frames_are_copied_unchanged(value):
    frame = torch.zeros(3, 4, 4)
    frame[1, 2, 3] = value
    assert compact(frame) is frame
    assert upload(frame, torch.device("cpu")) is frame


def test_downloads_keep_order_with_one_copy_in_flight():
    begun = []

    class Copy:
        def __init__(self, tensor):
            begun.append(tensor.shape[0])
            self.size = tensor.shape[0]

        def take(self):
            return torch.full((1,), self.size)

    arrived = downloaded((torch.empty(n, device="meta") for n in (1, 2, 3)), Copy)
    assert next(arrived) == 1 and begun == [1, 2]  # the second copy starts before the first one is awaited
    assert [int(tensor) for tensor in arrived] == [2, 3]
    on_cpu = [torch.zeros(1), torch.ones(1)]
    assert [a is b for a, b in zip(downloaded(iter(on_cpu)), on_cpu, strict=True)] == [True, True]


class Recorded:
    """A CPU stand-in for a recorded graph: fixed input memory; replaying calls the function again."""

    made = 0

    def __init__(self, function, arguments):
        Recorded.made += 1
        self.function, self.inputs = function, [None if a is None else a.clone() for a in arguments]

    def __call__(self, *arguments):
        for fixed, argument in zip(self.inputs, arguments, strict=True):
            if fixed is not None:
                fixed.copy_(argument)
        return self.function(*self.inputs).clone()


def test_graph_is_recorded_once_per_repeated_shape():
    plain = []

    def function(x, y):
        plain.append(x.shape)
        return x + (0 if y is None else y)

    Recorded.made, graphed = 0, Graphed(function, Recorded)
    for number in range(WARM + 3):
        for size in (2, 3):
            x = torch.full((size,), float(number))
            assert torch.equal(graphed(x, x), 2 * x)
    assert Recorded.made == 2
    assert torch.equal(graphed(torch.ones(2), None), torch.ones(2)) and Recorded.made == 2  # another call


def test_graph_that_fails_or_is_wrong_is_not_used(caplog):
    def fails(function, arguments):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    def wrong(function, arguments):
        return lambda *arguments: function(*arguments) + 1

    for record in (fails, wrong):
        graphed = Graphed(lambda x: 2 * x, record)
        for _ in range(WARM + 3):
            assert torch.equal(graphed(torch.ones(2)), torch.full((2,), 2.0))
        assert not graphed.works and graphed.recordings == {}
    assert "differs by" in caplog.text


def test_graph_of_nothing_is_not_used(monkeypatch, caplog):
    """As if the operations had run on another device than the recorded stream: they are executed once and never again."""
    seen = []

    class Nothing:
        def replay(self):
            pass

    def record(graph, **settings):
        seen.append(settings)
        return nullcontext()

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Nothing)
    monkeypatch.setattr(torch.cuda, "graph", record)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"new on {device}")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"current on {device}")
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: seen.append(stream) or nullcontext())
    graphed = Graphed(lambda x: 2 * x)
    for number in range(WARM + 3):
        assert torch.equal(graphed(torch.full((2,), float(number))), torch.full((2,), 2.0 * number))
    assert not graphed.works and "differs by nan" in caplog.text
    assert seen == ["current on cpu", {"stream": "new on cpu", "capture_error_mode": "thread_local"}]


@pytest.mark.parametrize("size", [2, 4])
def test_batched_windows_equal_single_windows(size, monkeypatch):
    """The GPU path run on the CPU: several windows at once, frames as bytes, the main part wrapped."""
    network, clip = small_mtdo(), moving_clip(7, 20, 24)
    expected = list(restore(network, clip, options=Options(workers=1)))
    plain_windows, wrapped = work.windows, []

    def in_batches(*arguments):
        for job in batched(plain_windows(*arguments), size):
            assert all(frame.dtype == torch.uint8 for frame in job.frames.values())
            wrapped.append(len(job.windows))
            yield job

    monkeypatch.setattr(work, "windows", in_batches)
    found = list(restore(network, clip, options=Options(workers=1, tile=16, overlap=8)))
    assert len(found) == 7 and sum(wrapped) == 7 and max(wrapped) == size
    found = list(restore(network, clip, options=Options(workers=1)))
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(found, expected, strict=True))
