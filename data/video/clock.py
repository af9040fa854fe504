"""Presentation times of decoded frames: missing, repeated and jumping time stamps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median
from typing import Any

JUMP = 10.0  # seconds: a longer gap between frames of a transport stream is a jump of its clock, as in FFmpeg
JITTER = 3  # usual frames by which a time may precede an earlier one before it counts as a jump of the clock
CLOSE = 1e-3  # seconds in which frames with the same time are shown


@dataclass(frozen=True)
class Stretch:
    """Frames with continuous times. first: number of the first frame.   start: its time in the file, seconds.   shift: seconds
    to add to a time of the file to get the time from the first frame of the video."""

    first: int
    start: float
    shift: float


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


def container_jumps(stream: Any) -> bool:
    """Whether the container's clock may jump: transport and program streams."""
    return stream.container.format.name.startswith("mpeg")


def rate_of(stream: Any) -> Fraction:
    """Frames per second from the header: FFmpeg's guess, or 25."""
    return Fraction(stream.guessed_rate or stream.average_rate or stream.base_rate or 25)


def seconds_of(stamps: Sequence[int | None], stream: Any) -> tuple[list[float], bool]:
    """Time of each frame in the file. A stream without times (raw H.264) has a constant rate."""
    base, step = Fraction(stream.time_base or Fraction(1, 1000)), float(1 / rate_of(stream))
    if all(stamp is None for stamp in stamps):
        return [number * step for number in range(len(stamps))], False
    seconds: list[float] = []
    for stamp in stamps:  # a frame without a time follows the previous one at the usual rate
        seconds.append(float(stamp * base) if stamp is not None else seconds[-1] + step if seconds else 0.0)
    return seconds, all(stamp is not None for stamp in stamps)


def joined(seconds: Sequence[float], jumps: bool) -> tuple[list[float], list[Stretch]]:
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
