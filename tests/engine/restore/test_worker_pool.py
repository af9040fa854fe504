"""Frames shared out over workers: the same bytes in the same order, errors and threads as if there were one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.restore import Options, frames_at_once, restore, tiles
from engine.restore.pipeline import bytes_per_pixel
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
def test_order_is_kept_however_long_a_job_takes(four_threads: None, workers: int, group: int) -> None:
    numbers: list[int] = []
    found = share_out(range(11), counting_workers(numbers, lambda job: 0.01 * (job % 3 == 0)), workers, group)
    assert [int(frame) for frame in found] == [job for job in range(11) for _ in range(2)]
    assert numbers == [4 // workers] * 11 and torch.get_num_threads() == 4


def test_an_error_comes_after_the_frames_before_it(four_threads: None) -> None:
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


def test_threads_are_back_with_the_last_frames(four_threads: None) -> None:
    """A caller that counts its frames never asks for one more, and may begin the next clip while this generator lives."""
    first, second = (share_out(range(8), counting_workers(numbers := []), 2, 2) for _ in range(2))
    for frames in (first, second):
        for _ in range(16):
            next(frames)
        assert torch.get_num_threads() == 4
    assert numbers == [2] * 8  # of the second clip, which was not given a share of a share


def test_leaving_early_ends_the_workers_soon(four_threads: None) -> None:
    numbers: list[int] = []
    frames: Any = share_out(range(100), counting_workers(numbers), 2, 50)
    frames.close()  # before anything is begun
    frames = share_out(range(100), counting_workers(numbers, lambda job: 0.01), 2, 10)
    assert int(next(frames)) == 0
    frames.close()
    assert 10 <= len(numbers) < 60
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("restore-worker")]
    assert torch.get_num_threads() == 4


def test_restored_frames_do_not_depend_on_the_number_of_workers(four_threads: None) -> None:
    """With as many threads each: to the byte, in whichever groups the frames come."""
    network, clip = small_mtdo(reconstruction="hat", hat=SMALL_HAT), moving_clip(11, 24, 40)
    workers = list(restore(network, clip, options=Options(workers=4)))
    some = list(restore(network, clip, frames=range(3, 9), options=Options(workers=4)))
    torch.set_num_threads(1)
    alone = list(restore(network, clip))
    assert len(workers) == 11 and all(map(torch.equal, workers, alone))
    assert all(map(torch.equal, some, alone[3:9]))


def test_small_frames_are_done_side_by_side_and_large_ones_one_by_one(four_threads: None) -> None:
    cpu = torch.device("cpu")
    network = small_mtdo()
    assert frames_at_once(network, (64, 64), Options(), cpu) == 4
    assert frames_at_once(network, (4000, 4000), Options(), cpu) == 1
    assert frames_at_once(network, (4000, 4000), Options(tile=64), cpu) == 4
    assert frames_at_once(network, (64, 64), Options(), torch.device("cuda")) == 1


def test_side_by_side_only_as_many_as_the_free_memory_has_room_for(four_threads: None, monkeypatch) -> None:
    cpu, network = torch.device("cpu"), small_mtdo()
    frame = 64 * 64 * bytes_per_pixel(network)
    for room, workers in ((10, 4), (4.5, 2), (0.1, 1)):
        monkeypatch.setattr(tiles, "free_memory", lambda device, room=room: room * frame)
        assert frames_at_once(network, (64, 64), Options(), cpu) == workers


def test_sizes() -> None:
    assert [pool_size(160 * 160, 16**2, threads) for threads in (1, 2, 16)] == [1, 2, 4]
    assert pool_size(64 * 64, 64**2, 16) == 1  # the paper's network
    assert group_size(100, 2, 640 * 640 * 12) == 8
    assert [group_size(frames, 2, 640 * 640 * 12) for frames in (2, 10, 24)] == [1, 5, 6]  # nobody waits for the other
    assert group_size(100, 2, 2160 * 3840 * 12) == 1


def test_clock_counts_time_in_which_anyone_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers side by side count once, what the caller does in between not at all."""
    clock, now = Clock(), iter([0.0, 4.0, 1.0, 3.0, 2.0, 6.0, 10.0, 11.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    work = clock.watch(lambda job: torch.zeros(job, 1))
    for job in (1, 2, 1, 3):
        work(job)
    assert clock.reading() == (7.0, 7)  # 0 to 6 and 10 to 11
