"""A pool of workers for the frames of one clip, each with a share of the CPU threads.

The operations on a small frame are too short for many threads: two frames in parallel on one thread each take less time than
two frames in sequence on two threads (`python benchmarks/worker_pool.py`). Neighbouring frames go to the same worker in
groups, because it keeps their common features. The result for a frame depends neither on its group nor on the worker.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

Job = TypeVar("Job")
AT_ONCE = 30_000_000  # LR pixels times channels squared; a larger frame uses all threads efficiently
GROUP = 8  # successive frames of one worker
WAITING = 2**26  # largest size of a group's finished frames in bytes


def pool_size(pixels: int, work: float, threads: int) -> int:
    """The fastest number of workers for frames of `pixels` LR pixels and a network with `Network.pool_work` = work."""
    return max(1, min(threads, int(AT_ONCE // (pixels * work))))


def group_size(frames: int, workers: int, frame_bytes: int) -> int:
    """Frames in a group: equal shares for all workers even for a short clip, and results that fit into `WAITING`."""
    most = max(1, min(GROUP, WAITING // frame_bytes))
    rounds = max(1, -(-frames // (workers * most)))
    return max(1, -(-frames // (workers * rounds)))


def share_out(
    jobs: Iterable[Job], make_worker: Callable[[], Callable[[Job], Tensor]], workers: int, group: int
) -> Iterator[Tensor]:
    """Frames of all jobs in order. `make_worker` is called in each worker's thread; errors are raised in the caller."""
    jobs = iter(jobs)
    made: dict[int, Callable[[Job], Tensor]] = {}

    def work(worker: int, some: list[Job]) -> list[Tensor]:
        if worker not in made:
            # PyTorch stores this number per thread, so each worker must set it.
            torch.set_num_threads(share)
            made[worker] = make_worker()
        done: list[Tensor] = []
        for job in some:
            if closing.is_set():
                break
            done += made[worker](job)
        return done

    threads = [ThreadPoolExecutor(1, thread_name_prefix="restore-worker") for _ in range(workers)]
    under_way: deque[Future[list[Tensor]]] = deque()
    closing = threading.Event()
    next_worker = 0
    with fewer_threads(workers) as share:
        try:
            while some := list(islice(jobs, group)):
                under_way.append(threads[next_worker].submit(work, next_worker, some))
                next_worker = (next_worker + 1) % workers
                if len(under_way) > workers:
                    yield from under_way.popleft().result()
            wait(under_way)
        finally:
            closing.set()
            for thread in threads:
                thread.shutdown(wait=True, cancel_futures=True)
    for done in under_way:  # give the threads back before the last frames: the caller may not resume this generator
        yield from done.result()


@contextmanager
def fewer_threads(workers: int) -> Iterator[int]:
    """Set the number of threads of every thread of this process to its share.

    PyTorch stores this number per thread, but the first read in a thread or operator library returns the number that any
    thread set last. So no other number may be set while workers start.
    """
    threads = torch.get_num_threads()
    share = max(1, threads // workers)
    torch.set_num_threads(share)
    try:
        yield share
    finally:
        torch.set_num_threads(threads)
