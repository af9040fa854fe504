"""Restore a clip with a network, for evaluation, validation and upscale.py.

The clip is split into a sequence of jobs: windows, or chunks of key frames (jobs.py). A thread reads them ahead. Each job is
processed tile by tile (one tile: the full frame); every tile has its own runner, which reuses features in the following jobs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from data.clips import Clip, SubClip
from engine.restore import precision, tiles
from engine.restore.graphs import LARGEST, Graphed
from engine.restore.jobs import Job, Runner, WindowRunner, batched
from engine.restore.memory import frames_at_once, free_memory, is_out_of_memory, windows_at_once
from engine.restore.options import DEFAULT, Options
from engine.restore.threads import read_ahead
from engine.restore.timing import Clock
from engine.restore.transfer import downloaded
from engine.restore.work import Call, Wanted, Work, chunk_work, key_network, window_work
from engine.restore.worker_pool import group_size, share_out
from errors import InputError
from models.base import Network, SpaceTimeNetwork, WindowNetwork, check_setting

ON_DEVICE = 0.1  # share of a GPU's free memory for finished tiles before they are joined


class Shape(NamedTuple):
    """Sizes (height, width) of a clip's frames before and after restoration."""

    lr: tuple[int, int]
    out: tuple[int, int]


def restore(
    network: Network,
    clip: Clip,
    *,
    device: torch.device | str | None = None,
    padding: str | None = None,
    temporal_filter: str | None = None,
    frames: Sequence[int] | None = None,
    times: Sequence[float] | Sequence[Sequence[float]] = (0.5,),
    size: tuple[int, int] | None = None,
    options: Options = DEFAULT,
    note: Callable[[str], None] | None = None,
    clock: Clock | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Tensor]:
    """Restore the frames of a clip.

    Memory does not depend on the length of the clip. The network is set to eval mode.

    Args:
        network: a window network or a space-time network.
        clip: the LR frames.
        device: None: the network's. The network is moved to it.
        padding: window networks: neighbours beyond the ends of the clip (`data.clips.neighbours`); None: the network's.
        temporal_filter: "none", "clean" or "compressed" (temporal_filter.py); None: the network's.
        frames: the frames to restore; None: all. Window networks: any frame numbers, in any order. Space-time networks: a range of
            key frames, restored with the intermediate frames after each.
        times: space-time networks: times in (0, 1) of the intermediate frames in each gap, or a list of times for each gap; empty:
            key frames only.
        size: space-time networks: (H, W) of the output; None: four times as large.
        note: called with a line when memory runs out and smaller tiles are used; None: the line goes to standard error.
        clock: measures the time of the work.
        progress: called with the number of finished tiles of a frame and its number of tiles.

    Yields: restored frames (3, H, W), float32 on the CPU, in time order, not clamped.

    A space-time network with `key_networks` leaves key frames to the one of the output's scale, if a temporal filter is used.

    Raises InputError for a clip that is too short, an unknown temporal filter, and if memory is too small even for small tiles.
    """
    device = torch.device(device or next(network.parameters()).device)
    network = precision.prepare(network.to(device).eval(), options.precision)
    shape = Shape(clip.size, network.output_size(clip.size, size))
    frames = range(len(clip)) if frames is None else frames
    if not len(frames):
        return
    filter_form = temporal_filter or network.temporal_filter
    check_setting("temporal_filter", filter_form)
    call = Call(device, options, note, clock, progress)
    if isinstance(network, SpaceTimeNetwork):
        keys = key_network(network, clip.size, shape.out, filter_form)
        if keys and not any(times):  # all frames are key frames
            yield from restore(keys, clip, temporal_filter=filter_form, frames=frames, **call._asdict())
            return
        if len(clip) == 1 and not any(times):
            clip = SubClip(clip, [0, 0])  # such a network takes two key frames
        restored_keys = _of_keys(keys, clip, call) if keys else None
        wanted = Wanted(frames, times, shape.out)
        work, workers = chunk_work(network, clip, wanted, filter_form, restored_keys, call), 1
    else:
        assert isinstance(network, WindowNetwork)  # the only two kinds of network
        work = window_work(network, clip, frames, padding or network.padding, filter_form, call)
        workers = options.workers or (frames_at_once(network, clip.size, options, device) if work.needed > 1 else 1)
    yield from _results(work, workers, network, shape, call)


def _of_keys(network: WindowNetwork, clip: Clip, call: Call) -> Callable[..., Iterator[Tensor]]:
    """`restore(frames=...)` of key frames while another network works: with a reader of its own, and one worker, because
    the worker pool would take threads from the other network."""
    one = call._replace(options=replace(call.options, workers=1), progress=None)
    return partial(restore, network, deepcopy(clip), temporal_filter="none", **one._asdict())


def _results(work: Work, workers: int, network: Network, shape: Shape, call: Call) -> Iterator[Tensor]:
    """Do the work; yields the frames of the result, (3, H, W) on the CPU."""
    device, options, note, clock, progress = call

    def make_worker() -> Callable[[Job], Tensor]:
        worker = TiledRunner(work.start, shape, network, device, options, note or _to_stderr, progress)
        return clock.watch(worker) if clock else worker

    jobs = work.jobs
    if device.type == "cuda":
        jobs = batched(jobs, windows_at_once(network, shape.lr, options, device))
    group = group_size(work.needed, workers, 12 * shape.out[0] * shape.out[1])
    restored = _run(read_ahead(jobs), make_worker, workers, group)
    for frames_of_job in downloaded(work.result(restored)):
        yield from frames_of_job


def _run(
    jobs: Iterator[Job], make_worker: Callable[[], Callable[[Job], Tensor]], workers: int, group: int
) -> Iterator[Tensor]:
    """Restored frames (n, 3, H, W) of the jobs, in order. group: successive jobs of one worker, if there are several workers."""
    if workers == 1:
        return map(make_worker(), jobs)
    return (frame[None] for frame in share_out(jobs, make_worker, workers, group))


class TiledRunner:
    """Runs jobs tile by tile, and continues with smaller tiles when memory runs out."""

    def __init__(
        self,
        start: Callable[[tiles.Tile, int], Runner],
        shape: Shape,
        network: Network,
        device: torch.device,
        options: Options,
        note: Callable[[str], None],
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.start, self.shape, self.network = start, shape, network
        self.device, self.options, self.note, self.progress = device, options, note, progress
        self._use(tiles.plan(*shape, options.tile, network.multiple, options.overlap))

    def _use(self, parts: list[tiles.Tile]) -> None:
        self.tiles = parts
        self.canvas = tiles.Canvas(self.tiles, self.shape.out)
        orientations = range(8) if self.options.ensemble else (0,)
        self.runners = [[self.start(each, orientation) for orientation in orientations] for each in self.tiles]
        if self.device.type == "cuda":
            self._prepare_gpu()

    def _prepare_gpu(self) -> None:
        """Keep tiles on the device until they are blended, if they fit; use CUDA graphs for small frames."""
        size, pixels = 3 * 12 * self.shape.out[0] * self.shape.out[1], self.shape.lr[0] * self.shape.lr[1]
        at_once = windows_at_once(self.network, self.shape.lr, self.options, self.device)
        fits = len(self.tiles) == 1 or at_once * size < ON_DEVICE * free_memory(self.device)
        for runner in (runner for runners in self.runners for runner in runners):
            runner.target = self.device if fits else runner.target  # type: ignore[attr-defined]
            if isinstance(runner, WindowRunner) and at_once * pixels <= LARGEST:
                runner.stream.run = Graphed(runner.stream.run)

    def __call__(self, job: Job) -> Tensor:
        """One job -> its restored frames (n, 3, H, W), float32; on the CPU, or still on a GPU."""
        while True:
            with precision.inference(self.options.precision, self.device, self.network):
                try:
                    return self.canvas.blend([self._run_tile(number, job) for number in range(len(self.runners))])
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
            self._shrink()

    def _run_tile(self, number: int, job: Job) -> Tensor:
        restored = self._mean(self.runners[number], job)
        if self.progress and len(self.runners) > 1:
            self.progress(number + 1, len(self.runners))
        return restored

    @staticmethod
    def _mean(runners: list[Runner], job: Job) -> Tensor:
        total = runners[0](job)
        for runner in runners[1:]:
            total += runner(job)
        return total.div_(len(runners)) if len(runners) > 1 else total

    def _shrink(self) -> None:
        smaller = tiles.halved(self.tiles, *self.shape, self.network.multiple, self.options.overlap)
        self.runners.clear()  # frees the memory of their features
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if smaller is None:
            h, w = self.shape.lr
            raise InputError(
                f"memory is too small for frames of {w}x{h}, even in tiles: free some or use a smaller network"
            )
        side, parts = smaller
        self.note(f"out of memory: continuing with tiles of {side}x{side} LR pixels")
        self._use(parts)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
