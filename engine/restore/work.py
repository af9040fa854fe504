"""The work on one clip: its jobs, the runner of a tile, and the temporal filter of the restored frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from data.clips import Clip
from engine.restore.filter_frames import affordable_steps, key_frames, key_positions
from engine.restore.jobs import ChunkRunner, Job, Runner, WindowRunner, chunk_ranges, chunks, windows
from engine.restore.options import Options
from engine.restore.spacing import WindowChooser
from engine.restore.temporal_filter import INTERMEDIATE, TemporalFilter
from engine.restore.tiles import Tile
from engine.restore.timing import Clock
from models.base import Network, SpaceTimeNetwork, WindowNetwork

# Restored frames (n, 3, H, W) of the jobs -> frames of the result (3, H, W)
Filter = Callable[[Iterator[Tensor]], Iterator[Tensor]]


class Call(NamedTuple):
    """Arguments of `restore` that do not depend on the kind of network."""

    device: torch.device
    options: Options
    note: Callable[[str], None] | None
    clock: Clock | None
    progress: Callable[[int, int], None] | None


class Wanted(NamedTuple):
    """The wanted output of a space-time network.

    frames: consecutive key frames.   times: as of `restore`.   size: (H, W).
    """

    frames: Sequence[int]
    times: Sequence[float] | Sequence[Sequence[float]]
    size: tuple[int, int]


class Work(NamedTuple):
    """The work on one clip.

    jobs: in order.   start: a new runner for a tile and one of the eight flips and rotations.   needed: number of restored frames
    that the result depends on.   filter: None: no temporal filter.
    """

    jobs: Iterator[Job]
    start: Callable[[Tile, int], Runner]
    needed: int
    filter: Filter | None = None

    def result(self, restored: Iterator[Tensor]) -> Iterator[Tensor]:
        """Restored frames (n, 3, H, W) of the jobs, in order -> frames of the result (m, 3, H, W)."""
        if self.filter is None:
            return restored
        return (frame[None] for frame in self.filter(restored))


def key_network(
    network: Network, size: tuple[int, int], out: tuple[int, int], filter_form: str
) -> WindowNetwork | None:
    """The window network that restores the key frames of `network`, if there is one for frames of `size` = (h, w), outputs of
    `out` = (H, W) and this temporal filter. Without a filter, which carries their detail on, it would make the clip flicker.
    """
    if not isinstance(network, SpaceTimeNetwork) or filter_form == "none":
        return None
    return network.key_network(size, out)


def window_work(
    network: WindowNetwork,
    clip: Clip,
    frames: Sequence[int],
    padding: str,
    filter_form: str,
    call: Call,
) -> Work:
    """A window for each of `frames`, and with a temporal filter for each of their neighbours. Arguments as of `restore`."""
    chooser = WindowChooser(network.config.frames, network.spacing, len(clip), padding)
    start = partial(WindowRunner, network, call.device)
    if filter_form == "none" or len(clip) == 1:
        return Work(windows(clip, chooser, frames), start, len(frames))
    steps = affordable_steps(network.output_size(clip.size))
    temporal = TemporalFilter(filter_form, len(clip), clip.size, call.clock, steps)
    needed = temporal.needed(frames, clip.frame)
    jobs = temporal.recorded(windows(clip, chooser, needed))
    return Work(jobs, start, len(needed), lambda restored: temporal(frames, chain.from_iterable(restored)))


def chunk_work(
    network: SpaceTimeNetwork,
    clip: Clip,
    wanted: Wanted,
    filter_form: str,
    restored_keys: Callable[..., Iterator[Tensor]] | None,
    call: Call,
) -> Work:
    """Chunks of the key frames of `wanted`, and with a temporal filter of their neighbours. Arguments as of `restore`.

    restored_keys(frames=...): key frames by a window network; None: by the space-time network.
    """
    frames, options = wanted.frames, call.options
    per_gap, every_gap = split_times(wanted.times)
    start = partial(ChunkRunner, network, call.device, every_gap, not restored_keys)
    starts = key_positions([len(gap) for gap in per_gap or [every_gap] * (len(clip) - 1)])
    outputs = range(starts[frames[0]], starts[frames[-1] + 1])
    if filter_form == "none":
        return Work(chunks(clip, frames, options.chunk, options.context, per_gap), start, len(outputs))
    most = max((after - before - 1 for before, after in pairwise(starts)), default=0)  # intermediate frames in a gap
    weight = min(1.0, INTERMEDIATE * most) if restored_keys else 1.0
    steps = [1] if per_gap else affordable_steps(wanted.size, len(every_gap) + 1)
    temporal = TemporalFilter(filter_form, starts[-1], clip.size, call.clock, steps, weight)
    possible = temporal.needed(outputs)
    needed = range(possible[0], possible[-1] + 1)
    keys = key_frames(needed, starts)
    jobs = chunks(clip, keys, options.chunk, options.context, per_gap)
    jobs = temporal.recorded_chunks(jobs, keys[0], starts, needed)
    of_chunks = chunk_ranges(keys, options.chunk)
    better = restored_keys(frames=[key for key in keys if starts[key] in needed]) if restored_keys else None

    def filtered(restored: Iterator[Tensor]) -> Iterator[Tensor]:
        return temporal(outputs, _in_order(restored, of_chunks, starts, needed, better))

    return Work(jobs, start, len(needed), filtered)


def _in_order(
    restored: Iterator[Tensor],
    of_chunks: Sequence[range],
    starts: Sequence[int],
    needed: range,
    keys: Iterator[Tensor] | None,
) -> Iterator[Tensor]:
    """The consecutive outputs `needed` (3, H, W), in order, on the device of `restored`.

    restored: frames (n, 3, H, W) of each chunk.   of_chunks: the key frames of each.   starts: see `key_positions`.   keys: the restored
    key frames of `needed`; None: they are among `restored`.
    """
    for part, frames in zip(of_chunks, restored, strict=True):
        of_chunk = iter(frames)
        for key in part:
            for number in range(starts[key], starts[key + 1]):
                if keys is None or number > starts[key]:
                    frame = next(of_chunk)
                elif number in needed:
                    frame = next(keys).to(frames.device)
                if number in needed:
                    yield frame


def split_times(
    times: Sequence[float] | Sequence[Sequence[float]],
) -> tuple[Sequence[Sequence[float]] | None, Sequence[float]]:
    """Times of each gap (None if all gaps have the same), and times of every gap."""
    per_gap = [each for each in times if isinstance(each, Sequence)]
    return (per_gap, ()) if per_gap else (None, [float(each) for each in times if not isinstance(each, Sequence)])
