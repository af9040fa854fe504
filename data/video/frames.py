"""List the frames of a video and their presentation times.

`decoded` lists every frame that FFmpeg's decoder returns, in its order. `quick` reads only packets where these are reliable,
so that a data set of thousands of videos is not decoded twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from statistics import median
from typing import Any

import av

RELIABLE = ("mov", "matroska")  # containers (beginning of FFmpeg's name) whose packet times can be trusted
LENGTH_IN_HEADER = ("mov", "matroska", "avi", "flv")  # other containers estimate their length
CUT = 1000  # number of packets at the beginning that are searched for undecodable ones
REORDERED = 16  # packets, at most, by which codecs reorder frames
JUMP = 10.0  # seconds: a longer gap between frames of a transport stream is a jump of its clock, as in FFmpeg
JITTER = 3  # usual frames by which a time may precede an earlier one before it counts as a jump of the clock
CLOSE = 1e-3  # seconds in which frames with the same time are shown
REGULAR = 0.9  # share of equal steps from which a rate counts as constant
MISSING = 0.4  # a file counts as truncated if it ends this many seconds before the length in its header


@dataclass(frozen=True)
class Stretch:
    """Frames with continuous times. first: number of the first frame.   start: its time in the file, seconds.   shift: seconds
    to add to a time of the file to get the time from the first frame of the video."""

    first: int
    start: float
    shift: float


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
    others_corrupt: number of damaged packets of sound and subtitles.
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


class Decoder:
    """Frames of one stream in the decoder's order; packets that cannot be decoded are skipped.

    errors: time stamps of packets that the decoder refused.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self.container, self.stream = container, stream
        self.errors: list[int | None] = []
        self.stamps: list[int | None] = []  # presentation times of the first packets to be displayed
        self.first: int | None = None  # decoding time of the first packet
        self.corrupt, self.broken_off = False, False
        self.others_corrupt = 0  # damaged packets of sound and subtitles
        self.count = 0  # packets with content
        self.ends: dict[int, float] = {}  # stream index -> end of its last packet, in seconds

    def __iter__(self) -> Iterator[Any]:
        yield from self.frames((self.stream,))

    def frames(self, streams: Sequence[Any]) -> Iterator[Any]:
        for packet in self._packets(streams):
            self._note_end(packet)
            self.others_corrupt += packet.is_corrupt and packet.stream.index != self.stream.index
            if packet.stream.index != self.stream.index:  # `packet.stream_index` is 0 where PyAV flushes a decoder
                continue
            self.count += packet.size > 0
            if packet.size == 0 and packet.dts is not None:
                continue  # AVI repeats the previous frame; the decoder would take the empty packet for the end of the stream
            if packet.size and not packet.is_discard and len(self.stamps) < CUT:
                self.stamps.append(packet.pts)
            if packet.size and self.first is None:
                self.first = packet.dts
            self.corrupt = self.corrupt or packet.is_corrupt
            self.broken_off = packet.is_corrupt if packet.size else self.broken_off
            try:
                found = packet.decode()
            except av.error.FFmpegError:
                self.errors.append(packet.dts if packet.dts is not None else packet.pts)
                continue
            yield from found

    def _packets(self, streams: Sequence[Any]) -> Iterator[Any]:
        packets = self.container.demux(*streams)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:  # the file ends in the middle of a packet
                self.corrupt = self.broken_off = True
                with suppress(av.error.FFmpegError):
                    yield from (_Flush(self.stream, frame) for frame in self.stream.codec_context.decode(None))
                return
            except IndexError:  # a stream began in the middle of the file; the others are flushed before
                return
            if packet is None:
                return
            yield packet

    def before(self, pts: int | None) -> int:
        """Number of the first packets whose presentation time is before `pts`, the first frame's time."""
        if pts is None or all(stamp is None for stamp in self.stamps):
            return 0
        reached = next((k for k, stamp in enumerate(self.stamps) if stamp is not None and stamp >= pts), 0)
        first = [stamp is None or stamp < pts for stamp in self.stamps[: reached + REORDERED]]
        return sum(first) if sum(first) < len(first) / 2 or len(first) < CUT else 0

    def _note_end(self, packet: Any) -> None:
        stamp = packet.dts if packet.pts is None else packet.pts
        if packet.size and stamp is not None:
            end = float((stamp + (packet.duration or 0)) * packet.time_base)
            self.ends[packet.stream_index] = max(end, self.ends.get(packet.stream_index, end))


class _Flush:
    """A frame that was still in the decoder at the end of a truncated file, in the form of a packet."""

    size, dts, pts, is_corrupt, duration = 0, None, None, False, 0

    def __init__(self, stream: Any, frame: Any) -> None:
        self.stream, self._frame = stream, frame

    def decode(self) -> list[Any]:
        return [self._frame]


def shown_at(pts: Sequence[int | None], dts: Sequence[int | None], first: int | None, step: int) -> list[int | None]:
    """The time stamp of each frame: presentation times, or decoding times where those rise more often, as FFmpeg guesses.

    Decoding times precede presentation times by the decoder's delay: they are shifted so that the first frame keeps its
    presentation time or, if it has none, has the decoding time `first` of the first packet. A frame without a stamp follows
    the previous one by `step`.
    """
    if _faults(pts) <= _faults(dts) or all(stamp is None for stamp in dts):
        return list(pts)
    found: list[int | None] = []
    shift = 0
    first = pts[0] if pts[0] is not None else first
    for stamp in dts:
        if stamp is None:
            stamp = found[-1] + step - shift if found else first or 0  # type: ignore[operator]
        if not found and first is not None:
            shift = first - stamp
        found.append(stamp + shift)
    return found


def _faults(stamps: Sequence[int | None]) -> int:
    """Number of stamps that do not rise. Missing stamps count, except those at the end, which come from flushing the decoder."""
    known = [stamp for stamp in stamps if stamp is not None]
    tail = next((k for k, stamp in enumerate(reversed(stamps)) if stamp is not None), len(stamps))
    return sum(b <= a for a, b in pairwise(known)) + len(stamps) - tail - len(known)


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


def decoded(container: Any, stream: Any, threads: int) -> FrameTable | None:
    """Build the table with the decoder; None if it returns no frame. After errors the caller decodes again with one thread,
    because the error concealment of several threads varies from run to run."""
    decoder = Decoder(container, stream)
    pts: list[int | None] = []
    dts: list[int | None] = []
    keys, damaged, errors_before = [], [], 0
    interlaced, duration = 0, None
    for frame in decoder.frames(tuple(s for s in container.streams if s.type in ("video", "audio", "subtitle"))):
        if not pts:
            errors_before = len(decoder.errors)
        damaged += [len(pts)] if frame.is_corrupt else []
        interlaced += frame.interlaced_frame
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
    table.damaged, table.interlaced = damaged, interlaced
    table.lost = _lost(errors, stream, table)
    table.skipped = decoder.before(pts[0])
    table.seekable = table.seekable and pts == stamps and not errors and not damaged and not decoder.corrupt
    table.last_shown = _last_shown(container, stream, stamps, _duration(duration, stream))
    table.missing = _missing(container, stream, decoder)
    if container.format.name == "avi":
        table.absent = max((_indexed(stream) or stream.frames) - decoder.count, 0)
    if table.absent or container.format.name != "avi":  # AVI skips frames that repeat the one before
        table.gaps = _gaps(table)
    table.broken_off, table.others_corrupt = decoder.broken_off, decoder.others_corrupt
    return table


def _table(stamps: Sequence[int | None], keys: Sequence[bool], stream: Any, threads: int) -> FrameTable:
    seconds, known = _seconds(stamps, stream)
    times, stretches = _joined(seconds, container_jumps(stream))
    rising = known and all(a < b for a, b in pairwise(stamps))  # type: ignore[operator]
    numbers = [number for number, key in enumerate(keys) if key]
    return FrameTable(list(stamps), times, numbers, rising and len(stretches) == 1, stretches, threads)


def container_jumps(stream: Any) -> bool:
    """Whether the container's clock may jump: transport and program streams."""
    return stream.container.format.name.startswith("mpeg")


def rate_of(stream: Any) -> Fraction:
    """Frames per second from the header: FFmpeg's guess, or 25."""
    return Fraction(stream.guessed_rate or stream.average_rate or stream.base_rate or 25)


def _seconds(stamps: Sequence[int | None], stream: Any) -> tuple[list[float], bool]:
    """Time of each frame in the file. A stream without times (raw H.264) has a constant rate."""
    base, step = Fraction(stream.time_base or Fraction(1, 1000)), float(1 / rate_of(stream))
    if all(stamp is None for stamp in stamps):
        return [number * step for number in range(len(stamps))], False
    seconds: list[float] = []
    for stamp in stamps:  # a frame without a time follows the previous one at the usual rate
        seconds.append(float(stamp * base) if stamp is not None else seconds[-1] + step if seconds else 0.0)
    return seconds, all(stamp is not None for stamp in stamps)


def _joined(seconds: Sequence[float], jumps: bool) -> tuple[list[float], list[Stretch]]:
    """Times relative to the first frame, rising. Where the clock jumps back, or that of a transport stream jumps ahead, a new
    stretch begins one usual frame later. Frames that repeat a time, or precede the last one by a few frames (jitter), are
    shown directly after the frame before them and do not move later frames.
    """
    steps = [after - before for before, after in pairwise(seconds)]
    usual = median([step for step in steps if 0 < step <= JUMP] or [0.04])
    stretches = [Stretch(0, seconds[0], -seconds[0])]
    if not any(step > 0 for step in steps):  # a clock that stands still
        return [number * usual for number in range(len(seconds))], stretches
    times, latest = [0.0], seconds[0]
    for number, step in enumerate(steps, 1):
        back = latest - seconds[number]
        if back > JITTER * usual or (jumps and step > JUMP):
            stretches.append(Stretch(number, seconds[number], latest + stretches[-1].shift + usual - seconds[number]))
            latest = seconds[number]
        latest = max(latest, seconds[number])
        times.append(seconds[number] + stretches[-1].shift)
    return _rising(times), stretches


def _rising(times: list[float]) -> list[float]:
    """Frames that do not follow the one before are placed after it, within a millisecond and before the next frame."""
    if all(a < b for a, b in pairwise(times)):
        return times
    found: list[float] = []
    position = 0
    while position < len(times):
        begin, stop = times[position], position + 1
        while stop < len(times) and times[stop] <= begin:
            stop += 1
        step = min(CLOSE, times[stop] - begin if stop < len(times) else CLOSE) / (stop - position)
        found += [begin + number * step for number in range(stop - position)]
        position = stop
    return found


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
