"""Restore a clip with a network, for evaluation, validation and upscale.py.

The clip is split into a sequence of jobs: windows, or chunks of key frames (jobs.py). A thread reads them ahead. Each job is
processed tile by tile (one tile: the full frame); every tile has its own runner, which reuses features in the following jobs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple

import torch
from torch import Tensor

from data.clips import Clip
from engine.restore import precision, tiles
from engine.restore.graphs import LARGEST, Graphed
from engine.restore.jobs import ChunkRunner, Job, Runner, WindowRunner, batched, chunks, windows
from engine.restore.spacing import WindowChooser, widest
from engine.restore.temporal_filter import TemporalFilter, key_frames, key_positions
from engine.restore.threads import read_ahead
from engine.restore.timing import Clock
from engine.restore.transfer import downloaded
from engine.restore.worker_pool import group_size, pool_size, share_out
from errors import InputError
from models.base import Network, SpaceTimeNetwork, WindowNetwork


@dataclass(frozen=True)
class Options:
    """Options of restoration. docs/upscale.md has the cost and effect of each."""

    precision: str = "fp32"
    tile: int | None = None  # side in LR pixels; None: the full frame
    overlap: int = tiles.OVERLAP  # LR pixels that neighbouring tiles share
    ensemble: bool = False  # mean over the eight flips and rotations of the frames
    chunk: int = 8  # space-time: gaps in one chunk of key frames
    context: int = 4  # space-time: further key frames on each side of a chunk
    workers: int | None = None  # parallel workers (windows on a CPU); None: the fastest number, one for a single frame


DEFAULT = Options()
FILLING = 512 * 512  # LR pixels of a batch that keep a GPU busy
MOST_WINDOWS = 16  # windows in one batch
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
    """Yield restored frames (3, H, W), float32 on the CPU, in time order, not clamped.

    Window networks: one frame for each frame of `clip` (or of `frames`, in their order); `padding`: neighbours beyond the
    ends of the clip. Space-time networks: the key frames and, in each gap, one frame for each of `times` (none: key frames
    only; or a list for each gap), at `size` = (H, W), None: four times as large; with `frames` (a range of key frames) these
    and the intermediate frames after each. temporal_filter: "none", "clean" or "compressed" (temporal_filter.py); None: the
    network's. Memory does not depend on the length of the clip. note: called with a line when memory runs out and smaller
    tiles are used (default: standard error). clock: measures the time of the work. progress: called with the number of
    finished tiles of a frame and its number of tiles. The network is set to eval mode. Raises `InputError` for a clip that is
    too short.
    """
    device = torch.device(device or next(network.parameters()).device)
    network = precision.prepare(network.to(device).eval(), options.precision)
    shape = Shape(clip.size, network.output_size(clip.size, size))
    wanted = range(len(clip)) if frames is None else frames
    per_gap, every_gap = split_times(times)
    numbers, workers = wanted, 1
    form = temporal_filter or network.temporal_filter
    temporal: TemporalFilter | None = None
    surplus = 0  # frames that are restored before the first one that is needed
    jobs: Iterator[Job]
    if isinstance(network, SpaceTimeNetwork):
        keys = wanted
        if form != "none":
            starts = key_positions([len(gap) for gap in per_gap or [every_gap] * (len(clip) - 1)])
            temporal = TemporalFilter(form, starts[-1], clip.size, clock)
            wanted = range(starts[wanted[0]], starts[wanted[-1] + 1])
            numbers = temporal.needed(wanted)
            keys = key_frames(numbers, starts)
            surplus = numbers[0] - starts[keys[0]]
        jobs = chunks(clip, keys, options.chunk, options.context, per_gap)
        jobs = temporal.recorded_chunks(jobs, keys[0], starts, numbers) if temporal else jobs
    else:
        assert isinstance(network, WindowNetwork)  # the only two kinds of network
        chooser = WindowChooser(network.config.frames, network.spacing, len(clip), padding or network.padding)
        if form != "none" and len(clip) > 1:
            temporal = TemporalFilter(form, len(clip), clip.size, clock)
            numbers = temporal.needed(wanted)
        jobs = windows(clip, chooser, numbers)
        jobs = temporal.recorded(jobs) if temporal else jobs
        workers = options.workers or (frames_at_once(network, clip.size, options, device) if len(numbers) > 1 else 1)

    def start(tile: tiles.Tile, position: int) -> Runner:
        if isinstance(network, SpaceTimeNetwork):
            return ChunkRunner(network, device, tile, position, every_gap)
        return WindowRunner(network, device, tile, position)

    def make_worker() -> Callable[[Job], Tensor]:
        worker = TiledRunner(start, shape, network, device, options, note or _to_stderr, progress)
        return clock.watch(worker) if clock else worker

    if device.type == "cuda":
        jobs = batched(jobs, windows_at_once(network, clip.size, options, device))
    ahead: Iterator[Job] = read_ahead(jobs)
    results: Iterator[Tensor]  # (n, 3, H, W)
    if workers == 1:
        results = map(make_worker(), ahead)
    else:
        group = group_size(len(numbers), workers, 12 * shape.out[0] * shape.out[1])
        results = (frame[None] for frame in share_out(ahead, make_worker, workers, group))
    if temporal:
        restored = islice(chain.from_iterable(results), surplus, surplus + len(numbers))
        results = (frame[None] for frame in temporal(wanted, restored))
    for frames_of_job in downloaded(results):
        yield from frames_of_job


def split_times(
    times: Sequence[float] | Sequence[Sequence[float]],
) -> tuple[Sequence[Sequence[float]] | None, Sequence[float]]:
    """Times of each gap (None if all gaps have the same), and times of every gap."""
    per_gap = [each for each in times if not isinstance(each, int | float)]
    return (per_gap, ()) if per_gap else (None, [each for each in times if isinstance(each, int | float)])


def frames_at_once(network: Network, size: tuple[int, int], options: Options, device: torch.device) -> int:
    """The fastest number of workers for frames of `size` = (h, w) that fits into free memory.

    The rounding of results depends on the number of threads, so a resumable job stores this number.
    """
    if network.space_time or device.type != "cpu":
        return 1
    side = options.tile or max(size)
    pixels = min(size[0], side) * min(size[1], side)
    workers = pool_size(pixels, network.pool_work, torch.get_num_threads())
    room = tiles.SHARE * tiles.free_memory(device) / (pixels * bytes_per_pixel(network))
    return max(1, min(workers, int(room)))


def windows_at_once(network: Network, size: tuple[int, int], options: Options, device: torch.device) -> int:
    """Number of windows of frames of `size` = (h, w) that fill a GPU and fit into `tiles.SHARE` of its free memory."""
    if network.space_time:
        return 1
    side = options.tile or max(size)
    pixels = min(size[0], side) * min(size[1], side)
    room = tiles.SHARE * tiles.free_memory(device) / (pixels * bytes_per_pixel(network))
    return max(1, min(MOST_WINDOWS, FILLING // pixels, int(room)))


def bytes_per_pixel(network: Network, key_frames: int = 0, times: int = 0) -> float:
    """Memory for each LR pixel: of a window, or of a chunk of `key_frames` with `times` intermediate frames in each gap."""
    if network.space_time:
        return network.bytes_per_pixel(key_frames, times)
    return network.bytes_per_pixel((network.config.frames - 1) * widest(network.spacing) + 1)


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
        self._cut(options.tile)

    def _cut(self, tile: int | None) -> None:
        self.tiles = tiles.plan(self.shape.lr, self.shape.out, tile, self.network.multiple, self.options.overlap)
        self.canvas = tiles.Canvas(self.tiles, self.shape.out)
        positions = range(8) if self.options.ensemble else (0,)
        self.runners = [[self.start(each, position) for position in positions] for each in self.tiles]
        if self.device.type == "cuda":
            self._prepare_gpu()

    def _prepare_gpu(self) -> None:
        """Keep tiles on the device until they are blended, if they fit; use CUDA graphs for small frames."""
        size, pixels = 3 * 12 * self.shape.out[0] * self.shape.out[1], self.shape.lr[0] * self.shape.lr[1]
        at_once = windows_at_once(self.network, self.shape.lr, self.options, self.device)
        fits = len(self.tiles) == 1 or at_once * size < ON_DEVICE * tiles.free_memory(self.device)
        for runner in (runner for runners in self.runners for runner in runners):
            runner.target = self.device if fits else runner.target  # type: ignore[attr-defined]
            if isinstance(runner, WindowRunner) and at_once * pixels <= LARGEST:
                runner.stream.run = Graphed(runner.stream.run)

    def __call__(self, job: Job) -> Tensor:
        """One job -> its restored frames (n, 3, H, W), float32; on the CPU, or still on a GPU."""
        while True:
            with precision.numbers(self.options.precision, self.device, self.network):
                try:
                    return self.canvas.blend([self._run_tile(number, job) for number in range(len(self.runners))])
                except (RuntimeError, MemoryError) as error:
                    if not tiles.is_out_of_memory(error):
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
        smaller = tiles.halved(self.tiles, self.options.overlap)
        self.runners.clear()  # frees the memory of their features
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if smaller is None:
            h, w = self.shape.lr
            raise InputError(
                f"memory is too small for frames of {w}x{h}, even in tiles: free some or use a smaller network"
            )
        self.note(f"out of memory: continuing with tiles of {smaller}x{smaller} LR pixels")
        self._cut(smaller)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
