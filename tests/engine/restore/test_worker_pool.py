"""The worker pool: the same frames in the same order as one worker gives, errors, thread counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.restore import Options, frames_at_once, memory, restore
from engine.restore.memory import bytes_per_pixel
from engine.restore.timing import Clock
from engine.restore.worker_pool import group_size, pool_size, share_out
from errors import InputError
from models.mtdo.config import HATConfig
from tests.engine.small import moving_clip, small_mtdo

SMALL_HAT = HATConfig(embed=16, depths=(2,), heads=2, window=4, overlap=0.5, compress=2, squeeze=4)


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def counting_workers(numbers: list[int], delay: Callable[[int], float] = lambda job: 0.0) -> Callable[[], Callable]:
    def make_worker() -> Callable[[int], Tensor]:
        def work(job: int) -> Tensor:
            time.sleep(delay(job))
            numbers.append(torch.get_num_threads())
            return torch.full((2, 1), job)

        return work

    return make_worker


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("group", [1, 2, 5])
def test_order_is_kept_for_jobs_of_any_duration(four_threads: None, workers: int, group: int) -> None:
    numbers: list[int] = []
    found = share_out(range(11), counting_workers(numbers, lambda job: 0.01 * (job % 3 == 0)), workers, group)
    assert [int(frame) for frame in found] == [job for job in range(11) for _ in range(2)]
    assert numbers == [4 // workers] * 11 and torch.get_num_threads() == 4


def test_error_is_raised_after_the_frames_before_it(four_threads: None) -> None:
    def make_worker() -> Callable[[int], Tensor]:
        def work(job: int) -> Tensor:
            if job == 4:
                raise InputError("frame 4 is broken")
            return torch.full((1, 1), job)

        return work

    found = []
    with pytest.raises(InputError, match="frame 4 is broken"):
        for frame in share_out(range(9), make_worker, 2, 2):
            found.append(int(frame))
    assert found == [0, 1, 2, 3] and torch.get_num_threads() == 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("restore-worker")]


def test_thread_count_is_restored_with_the_last_frames(four_threads: None) -> None:
    """A caller that counts frames does not exhaust the generator and may start the next clip before it is closed."""
    first, second = (share_out(range(8), counting_workers(numbers := []), 2, 2) for _ in range(2))
    for frames in (first, second):
        for _ in range(16):
            next(frames)
        assert torch.get_num_threads() == 4
    assert numbers == [2] * 8  # the second clip gets the full share of threads


def test_closing_the_generator_stops_the_workers(four_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker finishes the frame at which it is: of the groups 0 to 9, 10 to 19 and 20 to 29, frames 10 and 20."""
    closed, shutdown = threading.Event(), ThreadPoolExecutor.shutdown
    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", lambda *a, **k: (closed.set(), shutdown(*a, **k)))
    done: list[int] = []

    def make_worker() -> Callable[[int], Tensor]:
        def work(job: int) -> Tensor:
            assert job < 10 or closed.wait(300)
            done.append(job)
            return torch.full((1, 1), job)

        return work

    frames: Any = share_out(range(100), make_worker, 2, 10)
    frames.close()  # before work starts
    frames = share_out(range(100), make_worker, 2, 10)
    assert int(next(frames)) == 0
    frames.close()
    assert set(range(10)) <= set(done) <= {*range(10), 10, 20}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("restore-worker")]
    assert torch.get_num_threads() == 4


def test_restored_frames_do_not_depend_on_the_number_of_workers(four_threads: None) -> None:
    """Equal to the byte for the same number of threads per worker, in groups of any size."""
    network, clip = small_mtdo(reconstruction="hat", hat=SMALL_HAT), moving_clip(11, 24, 40)
    workers = list(restore(network, clip, options=Options(workers=4)))
    some = list(restore(network, clip, frames=range(3, 9), options=Options(workers=4)))
    torch.set_num_threads(1)
    sequential = list(restore(network, clip))
    assert len(workers) == 11 and all(map(torch.equal, workers, sequential))
    assert all(map(torch.equal, some, sequential[3:9]))


def test_small_frames_run_in_parallel_and_large_ones_do_not(four_threads: None, monkeypatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 16e9)
    cpu = torch.device("cpu")
    network = small_mtdo()
    assert frames_at_once(network, (64, 64), Options(), cpu) == 4
    assert frames_at_once(network, (4000, 4000), Options(), cpu) == 1
    assert frames_at_once(network, (4000, 4000), Options(tile=64), cpu) == 4
    assert frames_at_once(network, (64, 64), Options(), torch.device("cuda")) == 1


def test_workers_are_limited_by_free_memory(four_threads: None, monkeypatch) -> None:
    cpu, network = torch.device("cpu"), small_mtdo()
    frame = 64 * 64 * bytes_per_pixel(network)
    for room, workers in ((10, 4), (4.5, 2), (0.1, 1)):
        monkeypatch.setattr(memory, "free_memory", lambda device, room=room: room * frame)
        assert frames_at_once(network, (64, 64), Options(), cpu) == workers


def test_sizes() -> None:
    assert [pool_size(160 * 160, 16**2, threads) for threads in (1, 2, 16)] == [1, 2, 4]
    assert pool_size(64 * 64, 64**2, 16) == 1  # the paper's network
    assert group_size(100, 2, 640 * 640 * 12) == 8
    assert [group_size(frames, 2, 640 * 640 * 12) for frames in (2, 10, 24)] == [1, 5, 6]  # no worker idles
    assert group_size(100, 2, 2160 * 3840 * 12) == 1


def test_clock_counts_time_with_any_busy_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time with two busy workers counts once; time in the caller does not count."""
    clock, now = Clock(), iter([0.0, 4.0, 1.0, 3.0, 2.0, 6.0, 10.0, 11.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    work = clock.watch(lambda job: torch.zeros(job, 1))
    for job in (1, 2, 1, 3):
        work(job)
    assert clock.reading() == (7.0, 7)  # 0 to 6 and 10 to 11
