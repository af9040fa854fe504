"""List the frames of a video and their presentation times.

`decoded` lists every frame that FFmpeg's decoder returns, in its order. `quick` reads only packets where these are reliable,
so that a data set of thousands of videos is not decoded twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import av

from data.video import colour
from data.video.clock import Stretch, container_jumps, joined, rate_of, seconds_of, shown_at
from data.video.decoder import Decoder
from data.video.ending import breaks_off

RELIABLE = ("mov", "matroska")  # containers (beginning of FFmpeg's name) whose packet times can be trusted
LENGTH_IN_HEADER = ("mov", "matroska", "avi", "flv", "mxf")  # other containers estimate their length
REGULAR = 0.9  # share of equal steps from which a rate counts as constant
MISSING = 0.4  # a file counts as truncated if it ends this many seconds before the length in its header


@dataclass
class FrameTable:
    """All frames in presentation order.

    stamps: the decoder's times, in units of the stream (None where it gives none).   times: seconds from the first frame.
    keys: numbers of frames where decoding can start.   seekable: stamps identify frames, so decoding may start at a key.
    damaged: frames that the decoder marks as broken.   lost: (seconds, packets) where packets could not be decoded.
    skipped: undecodable packets before the first frame.   interlaced: frames stored as fields.
    last_shown: duration of the last frame in seconds, from its packet; None if unknown.   missing: seconds by which the
    file is shorter than its header states.   gaps: (seconds, frames) where frames of a constant rate are missing.   absent:
    number of frames that an AVI's index or header counts but the file lacks.   broken_off: the last packet is incomplete.
    others_corrupt: number of damaged packets of sound and subtitles.   sizes: (H, W) as stored, and the number of the first
    frame of that size.   bits, channels: the most of any frame (0: not known).   transparent: whether any frame is.
    """

    stamps: list[int | None]
    times: list[float]
    keys: list[int]
    seekable: bool
    stretches: list[Stretch]
    threads: int
    damaged: list[int] = field(default_factory=list)
    lost: list[tuple[float, int]] = field(default_factory=list)
    skipped: int = 0
    interlaced: int = 0
    last_shown: float | None = None
    missing: float = 0.0
    gaps: list[tuple[float, int]] = field(default_factory=list)
    absent: int = 0
    broken_off: bool = False
    others_corrupt: int = 0
    sizes: list[tuple[tuple[int, int], int]] = field(default_factory=list)
    bits: int = 0
    channels: int = 0
    transparent: bool = False

    @property
    def is_damaged(self) -> bool:
        """Whether frames may depend on the decoder's error concealment, which several threads do differently in every run."""
        incomplete = self.broken_off or self.missing or self.absent or self.gaps
        return bool(self.damaged or self.lost or self.skipped or incomplete)


# --- from packets -----------------------------------------------------------------------------------------------------


def quick(container: Any, stream: Any) -> FrameTable | None:
    """Build the table from packets only; None if they may differ from the decoder's frames."""
    if not container.format.name.startswith(RELIABLE):
        return None
    packets = [packet for packet in container.demux(stream) if packet.size]
    stamps = [packet.pts for packet in packets]
    if not packets or any(stamp is None for stamp in stamps) or len(set(stamps)) < len(stamps):
        return None
    if not packets[0].is_keyframe or min(stamps) < stamps[0] or any(p.is_discard or p.is_corrupt for p in packets):
        return None  # cut without re-encoding: frames before the first key frame may not be decodable
    order = sorted(range(len(packets)), key=stamps.__getitem__)
    shown = [int(stamps[k]) for k in order]
    table = _table(shown, [packets[k].is_keyframe for k in order], stream, threads=0)
    table.last_shown = _last_shown(container, stream, shown, _duration(packets[order[-1]].duration, stream))
    return table


# --- from the decoder -------------------------------------------------------------------------------------------------


def decoded(path: Path, container: Any, stream: Any, threads: int) -> FrameTable | None:
    """Build the table with the decoder; None if it returns no frame. After errors the caller decodes again with one thread,
    because the error concealment of several threads varies from run to run."""
    decoder = Decoder(container, stream)
    pts: list[int | None] = []
    dts: list[int | None] = []
    keys, damaged, errors_before = [], [], 0
    sizes: list[tuple[tuple[int, int], int]] = []
    interlaced, transparent, duration = 0, False, None
    kinds: dict[str, tuple[int, int]] = {}  # pixel format -> bits and channels; cameras change to grey at night
    for frame in decoder.frames(tuple(s for s in container.streams if s.type in ("video", "audio", "subtitle"))):
        if not pts:
            errors_before = len(decoder.errors)
        damaged += [len(pts)] if frame.is_corrupt else []
        interlaced += frame.interlaced_frame
        if not sizes or sizes[-1][0] != (frame.height, frame.width):
            sizes.append(((frame.height, frame.width), len(pts)))
        if frame.format.name not in kinds:
            kinds[frame.format.name] = colour.bits_of(frame), colour.channels_of(frame)
        transparent = transparent or colour.is_transparent(frame)
        pts.append(frame.pts)
        dts.append(frame.dts)
        keys.append(bool(frame.key_frame))
        duration = getattr(frame, "duration", None) or duration
    if not pts:
        return None
    step = round(1 / rate_of(stream) / (stream.time_base or Fraction(1, 25)))
    stamps = shown_at(pts, dts, decoder.first, step)
    table = _table(stamps, keys, stream, threads)
    errors = decoder.errors[errors_before:]
    table.damaged, table.interlaced, table.sizes, table.transparent = damaged, interlaced, sizes, transparent
    table.bits, table.channels = (max(values) for values in zip(*kinds.values(), strict=True))
    table.lost = _lost(errors, stream, table)
    table.skipped = decoder.before(pts[0])
    table.seekable = table.seekable and pts == stamps and not errors and not damaged and not decoder.corrupt
    table.last_shown = _last_shown(container, stream, stamps, _duration(duration, stream))
    table.missing = _missing(container, stream, decoder)
    if container.format.name == "avi":
        table.absent = max((_indexed(stream) or stream.frames) - decoder.count, 0)
    if table.absent or container.format.name != "avi":  # AVI skips frames that repeat the one before
        table.gaps = _gaps(table)
    table.broken_off = decoder.broken_off or breaks_off(path, container.format.name, decoder.position)
    table.others_corrupt = decoder.others_corrupt
    return table


def _table(stamps: Sequence[int | None], keys: Sequence[bool], stream: Any, threads: int) -> FrameTable:
    seconds, known = seconds_of(stamps, stream)
    times, stretches = joined(seconds, container_jumps(stream))
    rising = known and all(a < b for a, b in pairwise(stamps))  # type: ignore[operator]
    numbers = [number for number, key in enumerate(keys) if key]
    return FrameTable(list(stamps), times, numbers, rising and len(stretches) == 1, stretches, threads)


def _duration(units: Any, stream: Any) -> float | None:
    return float(units * stream.time_base) if units and stream.time_base else None


def _lost(errors: Iterable[int | None], stream: Any, table: FrameTable) -> list[tuple[float, int]]:
    """Merge errors that follow each other within a second: (seconds from the first frame, packets)."""
    found: list[tuple[float, int]] = []
    for stamp in errors:
        at = float(stamp * stream.time_base) + table.stretches[0].shift if stamp is not None else table.times[-1]
        if found and abs(at - found[-1][0]) < 1:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((max(at, 0.0), 1))
    return found


def _last_shown(container: Any, stream: Any, stamps: Sequence[int | None], duration: float | None) -> float | None:
    """Duration of the last frame. MP4 and MOV store the time to the packet decoded next, which is another frame if frames are
    reordered: there it follows from the end of the track or, if that is too early, of the file."""
    if not container.format.name.startswith("mov") or stamps[-1] is None or not duration:
        return duration
    shown = float(stamps[-1] * stream.time_base)
    if (
        stream.duration is not None
        and (left := float(((stream.start_time or 0) + stream.duration) * stream.time_base) - shown) > 0
    ):
        return left
    left = ((container.start_time or 0) + (container.duration or 0)) / av.time_base - shown
    return min(left, duration) if left > 0 else duration


def _gaps(table: FrameTable) -> list[tuple[float, int]]:
    """Gaps in a video of constant rate; empty for variable rates."""
    steps = [after - before for before, after in pairwise(table.times)]
    if len(steps) < 5:
        return []
    usual = median(steps)
    if not usual or sum(abs(step / usual - 1) < 0.1 for step in steps) < REGULAR * len(steps):
        return []
    return [(table.times[k], round(step / usual) - 1) for k, step in enumerate(steps) if step > 1.8 * usual]


def _indexed(stream: Any) -> int:
    """Number of frames with content in an AVI's index; 0 if there is none. The header also counts frames without content."""
    return sum(entry.size > 0 for entry in stream.index_entries)


def _missing(container: Any, stream: Any, decoder: Decoder) -> float:
    """Seconds by which the packets end before the length in the header; 0 if the header gives none."""
    if not container.format.name.startswith(LENGTH_IN_HEADER) or not container.duration or not decoder.ends:
        return 0.0
    start = (container.start_time or 0) / av.time_base
    if container.format.name.startswith("matroska"):
        start = min(start, 0.0)  # some writers count the length from zero
    missing = start + container.duration / av.time_base - max(decoder.ends.values())
    return missing if missing > max(MISSING, 2 / float(rate_of(stream))) else 0.0
