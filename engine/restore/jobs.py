"""Jobs and runners. A job is the input of one forward pass: a window of frames, or a chunk of key frames. A runner processes
successive jobs on one tile of the frames, in one of the eight flips and rotations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from data.clips import Clip
from engine.restore.spacing import WindowChooser
from engine.restore.tiles import Tile
from engine.restore.transfer import compact, upload
from errors import InputError
from models.base import SpaceTimeNetwork, WindowNetwork


class WindowJob(NamedTuple):
    """Frame numbers of a window in order (repeated at the ends of a clip), and these frames (3, h, w)."""

    numbers: list[int]
    frames: dict[int, Tensor]


class BatchJob(NamedTuple):
    """Several windows at once, each as in `WindowJob`, and their frames (3, h, w); frames may be bytes (transfer.py)."""

    windows: list[list[int]]
    frames: dict[int, Tensor]


class ChunkJob(NamedTuple):
    """A chunk of key frames.

    keys: key frames (T, 3, h, w).   keep: return the outputs from the first to the second of these key frames.
    with_last: include the second one, which is otherwise the first of the next chunk.   times: those of each gap of `keys`,
    if they differ; None: those of the runner.
    """

    keys: Tensor
    keep: tuple[int, int]
    with_last: bool
    times: list[list[float]] | None = None


Job = WindowJob | BatchJob | ChunkJob
Runner = Callable[..., Tensor]  # a job -> its frames (n, 3, H, W), float32
CPU = torch.device("cpu")


def transform(x: Tensor, orientation: int) -> Tensor:
    """One of eight flips and rotations of (..., h, w): flipped if `orientation` >= 4, then rotated by `orientation` % 4 quarter turns."""
    return torch.rot90(x.flip(-1) if orientation >= 4 else x, orientation % 4, (-2, -1))


def inverse_transform(x: Tensor, orientation: int) -> Tensor:
    """The inverse of `transform`."""
    x = torch.rot90(x, -(orientation % 4), (-2, -1))
    return x.flip(-1) if orientation >= 4 else x


class WindowRunner:
    """Runs windows; reuses features that do not depend on the centre frame in the following windows."""

    def __init__(self, network: WindowNetwork, device: torch.device, tile: Tile, orientation: int) -> None:
        self.stream = network.stream()
        self.device, self.tile, self.orientation, self.target = device, tile, orientation, CPU

    def __call__(self, job: WindowJob | BatchJob) -> Tensor:
        """-> (windows, 3, H, W), float32 on `target`."""

        def load(number: int) -> Tensor:
            return upload(transform(self.tile.crop(job.frames[number]), self.orientation), self.device)[None]

        windows = job.windows if isinstance(job, BatchJob) else [job.numbers]
        return inverse_transform(self.stream.restore_batch(windows, load), self.orientation).float().to(self.target)


class ChunkRunner:
    """Runs chunks of key frames."""

    def __init__(
        self,
        network: SpaceTimeNetwork,
        device: torch.device,
        times: Sequence[float],
        with_keys: bool,
        tile: Tile,
        orientation: int,
    ) -> None:
        """times: in each gap, for jobs without times of their own.   with_keys: False: return intermediate frames only."""
        self.network, self.device, self.tile, self.orientation = network, device, tile, orientation
        self.times, self.with_keys, self.target = list(times), with_keys, CPU

    def __call__(self, job: ChunkJob) -> Tensor:
        """-> (n, 3, H, W), float32 on `target`."""
        height, width = self.tile.out_size
        gaps = job.times or [self.times] * (len(job.keys) - 1)
        wanted = wanted_outputs(gaps, job.keep, self.with_keys, job.with_last)
        if not wanted:
            return torch.empty(0, 3, height, width, device=self.target)
        times = padded_times(gaps) if job.times else self.times or [0.5]  # the network takes at least one time
        keys = upload(transform(self.tile.crop(job.keys), self.orientation), self.device)
        size = (width, height) if self.orientation % 2 else (height, width)
        frames = self.network(keys[None], times=times, size=size, outputs=wanted)[0]
        return inverse_transform(frames, self.orientation).float().to(self.target)


def wanted_outputs(
    times: Sequence[Sequence[float]], keep: tuple[int, int], with_keys: bool, with_last: bool
) -> list[int]:
    """Numbers of the network's outputs for a chunk with these times in its gaps, of which some may be padded (`padded_times`).

    keep, with_last: see `ChunkJob`.   with_keys: whether the key frames are wanted.
    """
    count = 1 + max(1, *map(len, times))
    numbers: list[int] = []
    for gap in range(*keep):
        numbers += range(gap * count + (not with_keys), gap * count + 1 + len(times[gap]))
    return [*numbers, keep[1] * count] if with_keys and with_last else numbers


def padded_times(times: Sequence[Sequence[float]]) -> Tensor:
    """Times that differ between gaps in the network's form (1, K, gaps), with extra times in gaps that have fewer than K.

    The network needs ascending times in (0, 1): the extra ones divide the rest of the gap evenly.
    """
    count = max(1, *map(len, times))
    padded: list[list[float]] = []
    for requested in times:
        end, spare = requested[-1] if requested else 0.0, count - len(requested)
        padded.append([*requested, *(end + (1 - end) * (k + 1) / (spare + 1) for k in range(spare))])
    return torch.tensor(padded, dtype=torch.float64).T[None]


def windows(clip: Clip, chooser: WindowChooser, frames: Sequence[int]) -> Iterator[WindowJob]:
    """The window of each frame; a frame in the range of the current window is decoded only once."""
    held: dict[int, Tensor] = {}

    def load(number: int) -> Tensor:
        if number not in held:
            held[number] = clip.frame(number)
        return held[number]

    for index in frames:
        for number in [number for number in held if abs(number - index) > chooser.reach]:
            del held[number]
        numbers = chooser.window(index, load)
        yield WindowJob(numbers, {number: load(number) for number in sorted(set(numbers))})


def batched(jobs: Iterator[Any], size: int) -> Iterator[Any]:
    """Jobs for a GPU: batches of `size` windows, with 8-bit frames as bytes."""
    group: list[WindowJob] = []
    for job in jobs:
        if isinstance(job, ChunkJob):
            yield job._replace(keys=compact(job.keys))
            continue
        group.append(job)
        if len(group) == size:
            yield _batch(group)
            group = []
    if group:
        yield _batch(group)


def _batch(group: Sequence[WindowJob]) -> BatchJob:
    frames = {number: frame for job in group for number, frame in job.frames.items()}
    return BatchJob([job.numbers for job in group], {number: compact(frame) for number, frame in frames.items()})


def chunk_ranges(frames: Sequence[int], length: int) -> list[range]:
    """Divide consecutive key frames into the chunks of `length` gaps to which they belong.

    Chunks begin at multiples of `length` for any `frames`, so the result does not depend on the first frame of the work.
    """
    start, end = frames[0], frames[-1] + 1
    bounds = [start, *range((start // length + 1) * length, end, length), end]
    return [range(first, stop) for first, stop in pairwise(bounds)]


def chunks(
    clip: Clip, frames: Sequence[int], length: int, context: int, times: Sequence[Sequence[float]] | None = None
) -> Iterator[ChunkJob]:
    """Chunks of `length` gaps, each with `context` more key frames on both sides. times: of each gap, if they differ."""
    last = len(clip) - 1
    if last < 1:
        raise InputError(f"clip '{clip.name}' has {len(clip)} frame(s): intermediate frames need at least 2 key frames")
    held: dict[int, Tensor] = {}
    for start, stop in ((part.start, part.stop) for part in chunk_ranges(frames, length)):
        base = start // length * length
        seen = range(min(max(base - context, 0), last - 1), min(base + length + context, last) + 1)
        held = {number: held[number] if number in held else clip.frame(number) for number in seen}
        keep = (start - seen[0], min(stop, last) - seen[0])
        of_gaps = None if times is None else [list(times[gap]) for gap in seen[:-1]]
        yield ChunkJob(torch.stack(list(held.values())), keep, stop > last, of_gaps)
