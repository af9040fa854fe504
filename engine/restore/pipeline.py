"""A clip in, a clip out: the one way a network meets a clip, for evaluation, validation and upscale.py.

Both networks work off a row of jobs. MTDO's job is the window of frames around one index, STNO's a chunk of key frames
with some more on both sides. Jobs are read ahead by a thread; each is done region by region (one region: the whole
frame), and what a region can keep from job to job (features of frames that the next window sees again) stays with it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from data.clips import Clip
from engine.restore import precision, tiles
from engine.restore.jobs import Chunk, SpaceTimeWork, SpaceWork, Window
from engine.restore.spacing import Spacing
from engine.restore.threads import read_ahead
from engine.restore.timing import Clock
from engine.restore.worker_pool import group_size, pool_size, share_out
from errors import InputError


@dataclass(frozen=True)
class Options:
    """How the work is done. docs/upscale.md says what each of these costs and changes."""

    precision: str = "fp32"
    tile: int | None = None  # LR pixels a side; None: the whole frame
    overlap: int = tiles.OVERLAP  # LR pixels that neighbouring tiles share
    ensemble: bool = False  # mean over the eight turned and mirrored versions of the frames
    chunk: int = 8  # space-time: gaps between key frames that are worked off together
    context: int = 4  # space-time: key frames beyond each end of a chunk that the recurrence sees
    workers: int | None = None  # frames at once (MTDO on a CPU); None: as many as pay, one for a single frame


DEFAULT = Options()


class Shape(NamedTuple):
    """Sizes (height, width) of a clip's frames before and after."""

    lr: tuple[int, int]
    out: tuple[int, int]


def restore(
    network: Any,
    clip: Clip,
    *,
    device: torch.device | str | None = None,
    padding: str | None = None,
    frames: Sequence[int] | None = None,
    times: Sequence[float] | Sequence[Sequence[float]] = (0.5,),
    size: tuple[int, int] | None = None,
    options: Options = DEFAULT,
    note: Callable[[str], None] | None = None,
    clock: Clock | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Tensor]:
    """Yield restored frames (3, H, W), float32 on the CPU, in time order, not clamped.

    MTDO: one per frame of `clip` (or of `frames`, in their order), neighbours beyond the ends as `padding` says, or
    None: as the network was trained. STNO:
    the key frames and, between each two, one per entry of `times` (none: key frames alone; or a list for each gap), at
    `size` = (H, W), None: four times as large; with `frames` (a range of key frames) those and the intermediate frames
    that follow each. A clip of any length takes the same memory. `note` gets a line when memory runs out and smaller tiles
    are taken (default: standard error); `clock` watches how long the work takes; `progress` gets the number of finished
    tiles of a frame and how many it has. The network is put into eval mode. Raises InputError for a clip that is too short.
    """
    device = torch.device(device or next(network.parameters()).device)
    network = precision.prepare(network.to(device).eval(), options.precision)
    shape = Shape(clip.size, output_size(network, clip.size, size))
    workers = 1
    if network.config.name == "stno":
        per_gap: Any = times if times and not isinstance(times[0], (int, float)) else None
        every: Any = () if per_gap else times
        jobs: Iterator[Any] = chunks(clip, options, range(len(clip)) if frames is None else frames, per_gap)

        def start(region: tiles.Region, turn: int) -> Any:
            return SpaceTimeWork(network, device, region, turn, every)
    else:
        wanted = range(len(clip)) if frames is None else frames
        spacing = Spacing(network.config.frames, network.config.spacing, len(clip), padding or network.config.padding)
        jobs = windows(clip, spacing, wanted)
        workers = options.workers or (frames_at_once(network, clip.size, options, device) if len(wanted) > 1 else 1)

        def start(region: tiles.Region, turn: int) -> Any:
            return SpaceWork(network, device, region, turn)

    def make_worker() -> Callable[[Any], Tensor]:
        worker = Worker(start, shape, network, device, options, note or _to_stderr, progress)
        return clock.watch(worker) if clock else worker

    if workers == 1:
        worker = make_worker()
        for job in read_ahead(jobs):
            yield from worker(job)
    else:
        group = group_size(len(wanted), workers, 12 * shape.out[0] * shape.out[1])
        yield from share_out(read_ahead(jobs), make_worker, workers, group)


def frames_at_once(network: Any, size: tuple[int, int], options: Options, device: torch.device) -> int:
    """Workers that pay for frames of `size` = (h, w), and that the free memory has room for. The bytes of a frame depend on
    their number of threads, so a run that is to be resumed to the byte asks this once.
    """
    if network.config.name != "mtdo" or device.type != "cpu":
        return 1
    side = options.tile or max(size)
    pixels = min(size[0], side) * min(size[1], side)
    workers = pool_size(pixels, network.config.channels, torch.get_num_threads())
    room = tiles.SHARE * tiles.free_memory(device) / (pixels * tiles.bytes_per_pixel(network.config, 0, 0))
    return max(1, min(workers, int(room)))


def output_size(network: Any, size: tuple[int, int], wanted: tuple[int, int] | None = None) -> tuple[int, int]:
    """(H, W) of the frames that the network makes of frames of `size`."""
    if network.config.name == "stno":
        return wanted or (4 * size[0], 4 * size[1])
    return network.config.scale * size[0], network.config.scale * size[1]


def multiple(network: nn.Module) -> int:
    """LR pixels at whose multiples tiles start, so that windows and pyramid levels lie as in the whole frame."""
    config: Any = network.config
    return config.multiple if config.name == "mtdo" else 8


def windows(clip: Clip, spacing: Spacing, frames: Sequence[int]) -> Iterator[Window]:
    """The window of each frame; frames are decoded once while they are within reach."""
    held: dict[int, Tensor] = {}

    def load(number: int) -> Tensor:
        if number not in held:
            held[number] = clip.frame(number)
        return held[number]

    for index in frames:
        for number in [number for number in held if abs(number - index) > spacing.reach]:
            del held[number]
        numbers = spacing.window(index, load)
        yield Window(numbers, {number: load(number) for number in sorted(set(numbers))})


def chunks(
    clip: Clip, options: Options, frames: Sequence[int], times: Sequence[Sequence[float]] | None = None
) -> Iterator[Chunk]:
    """Stretches of key frames, each with its context. They begin at multiples of `options.chunk` whatever `frames` asks
    for: what is made of a frame does not depend on where the work began.
    """
    last = len(clip) - 1
    if last < 1:
        raise InputError(f"clip '{clip.name}' has {len(clip)} frame(s): STNO needs at least 2 key frames")
    start, end = frames[0], frames[-1] + 1
    held: dict[int, Tensor] = {}
    while start < end:
        base = start // options.chunk * options.chunk
        stop = min(base + options.chunk, end)
        seen = range(
            min(max(base - options.context, 0), last - 1), min(base + options.chunk + options.context, last) + 1
        )
        held = {number: held[number] if number in held else clip.frame(number) for number in seen}
        keep = (start - seen[0], min(stop, last) - seen[0])
        steps = None if times is None else [list(times[gap]) for gap in seen[:-1]]
        yield Chunk(torch.stack(list(held.values())), keep, stop > last, steps)
        start = stop


class Worker:
    """Does jobs region by region; when memory runs out it goes on with smaller regions."""

    def __init__(
        self,
        start: Callable[[tiles.Region, int], Any],
        shape: Shape,
        network: Any,
        device: torch.device,
        options: Options,
        note: Callable[[str], None],
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.start, self.shape, self.network = start, shape, network
        self.device, self.options, self.note, self.progress = device, options, note, progress
        self._cut(options.tile)

    def _cut(self, tile: int | None) -> None:
        self.regions = tiles.plan(self.shape.lr, self.shape.out, tile, multiple(self.network), self.options.overlap)
        self.canvas = tiles.Canvas(self.regions, self.shape.out)
        turns = range(8) if self.options.ensemble else (0,)
        self.works = [[self.start(region, turn) for turn in turns] for region in self.regions]

    def __call__(self, job: Window | Chunk) -> Tensor:
        """One job -> its restored frames (n, 3, H, W), float32 on the CPU."""
        while True:
            with precision.numbers(self.options.precision, self.device, self.network):
                try:
                    return self.canvas.blend([self._tile(number, job) for number in range(len(self.works))])
                except (RuntimeError, MemoryError) as error:
                    if not tiles.is_out_of_memory(error):
                        raise
            self._shrink()

    def _tile(self, number: int, job: Window | Chunk) -> Tensor:
        made = self._mean(self.works[number], job)
        if self.progress and len(self.works) > 1:
            self.progress(number + 1, len(self.works))
        return made

    @staticmethod
    def _mean(works: list[Any], job: Window | Chunk) -> Tensor:
        total = works[0](job)
        for work in works[1:]:
            total += work(job)
        return total.div_(len(works)) if len(works) > 1 else total

    def _shrink(self) -> None:
        smaller = tiles.halved(self.regions, self.options.overlap)
        self.works.clear()  # what they keep is part of the problem
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if smaller is None:
            h, w = self.shape.lr
            raise InputError(
                f"memory does not suffice for frames of {w}x{h}, even in tiles: free some or use a smaller network"
            )
        self.note(f"out of memory: going on with tiles of {smaller}x{smaller} LR pixels")
        self._cut(smaller)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
