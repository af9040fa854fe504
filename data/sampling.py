"""Draw training samples and load them.

Sampling is stateless: a sample depends only on (seed, step, slot). A run resumed at step n draws the same samples as an
uninterrupted run, with any number of workers and ranks.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from errors import InputError

# Signals that end a run: Ctrl-C, the end of a job, a closed terminal, the warning before a time limit (SLURM), the end of CPU time.
ENDING = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU")
    if hasattr(signal, name)  # Windows has only two of them
)
BATCH, SAMPLE = 1, 2  # streams of random numbers: per batch, per sample


class SampleKey(NamedTuple):
    """Identifies one sample; `step` and `slot` (in the batch over all ranks) seed its crop and flips."""

    seed: int
    step: int
    slot: int
    clip: int
    frame: int  # centre frame of a window, first frame of a sequence
    scale: float
    stride: int = 1  # frames from one key frame to the next
    intermediate: tuple[int, ...] = ()  # intermediate frames, counted from the previous key frame

    def random(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, SAMPLE, self.step, self.slot])


class Drawable(Protocol):
    def draw(self, seed: int, step: int, slot: int, position: int) -> SampleKey: ...


class StepBatches:
    """Batch sampler: the sample keys of steps `start_step`, `start_step` + 1, ... for one rank.

    Args:
        dataset: WindowDataset or SequenceDataset.   batch_size: samples per rank and step.
        steps: number of steps to yield.
        rank, world: of the world * batch_size slots of a step, those from rank * batch_size on are this rank's.
        samples: number of samples drawn before `start_step`; by default computed from this batch size. It lets a run continue
            with another batch size or number of processes without repeating or skipping samples.
    """

    def __init__(
        self,
        dataset: Drawable,
        batch_size: int,
        seed: int,
        start_step: int,
        steps: int,
        rank: int = 0,
        world: int = 1,
        samples: int | None = None,
    ) -> None:
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.start_step, self.steps, self.rank, self.world = start_step, steps, rank, world
        self.samples = start_step * world * batch_size if samples is None else samples

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[SampleKey]]:
        first = self.rank * self.batch_size
        total = self.world * self.batch_size
        for number in range(self.steps):
            step, before = self.start_step + number, self.samples + number * total
            slots = range(first, first + self.batch_size)
            yield [self.dataset.draw(self.seed, step, slot, before + slot) for slot in slots]


class Loader(DataLoader[dict[str, Any]]):
    """A DataLoader that re-raises an InputError of a worker as one line, without the worker's traceback."""

    def __iter__(self) -> Any:
        iterator = super().__iter__()
        try:
            yield from iterator
        except InputError as error:
            raise InputError(str(error).rpartition("InputError: ")[2]) from None
        finally:  # stop the workers now: the traceback would keep them alive until the process waits for them at exit
            if hasattr(iterator, "_shutdown_workers"):
                iterator._shutdown_workers()


def build_loader(
    dataset: Dataset[dict[str, Any]], batches: StepBatches, workers: int = 2, pin_memory: bool = False
) -> Loader:
    """Batches as dicts of tensors, in order. workers: 0 reads in the calling process."""
    return Loader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=4 if workers > 0 else None,
        worker_init_fn=prepare_worker,
    )


def prepare_worker(worker: int) -> None:
    """Let workers share the cores with training and ignore signals; the training process saves its state and then stops them.

    Ctrl-C and the SIGTERM of a batch system reach the process group; a worker killed by them would end the run before it is
    saved. So the first SIGTERM is ignored; the next one, sent by an exiting process to its children, works as usual.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))


@lru_cache(maxsize=8)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, length, epoch]).permutation(length)


def shuffled(position: int, length: int, seed: int) -> int:
    """Item `position` of an infinite sequence of shuffled epochs: every item appears once per epoch."""
    return int(_permutation(length, seed, position // length)[position % length])
