"""The frames of an upscaled clip and their presentation times.

An output frame is a key frame of the source or an intermediate frame between two of them. There are no intermediate frames
across a scene cut: the last frame before the cut is shown until the next scene begins.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil

from errors import InputError

SNAP = 0.02  # of a gap: an output this near to a key frame is the key frame


@dataclass(frozen=True)
class Timeline:
    """Output frames in time order.

    places: (key frame, time after it in [0, 1) of the gap to the next).   times: seconds from the first output frame.
    last: seconds for which the last one is shown.   fps: mean frames per second.   keys: number of key frames.
    cuts: key frames that begin a scene.   doubled: whether frames are added, so that outputs need names of their own.
    """

    places: tuple[tuple[int, float], ...]
    times: tuple[float, ...]
    last: float
    fps: Fraction
    keys: int
    cuts: tuple[int, ...] = ()
    doubled: bool = False
    starts: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        of_key = [key for key, _ in self.places]
        starts = [bisect_right(of_key, key - 1) for key in range(self.keys + 1)]
        object.__setattr__(self, "starts", tuple(starts))

    def __len__(self) -> int:
        return len(self.places)

    def outputs(self, first: int, stop: int) -> range:
        """Output frames of the key frames first .. stop - 1, with the intermediate frames after each."""
        return range(self.starts[min(first, self.keys)], self.starts[min(stop, self.keys)])

    def steps(self, key: int) -> list[float]:
        """The distinct times after a key frame in ascending order, without the key frame itself."""
        return sorted({self.places[index][1] for index in self.outputs(key, key + 1)} - {0.0})

    def scene(self, key: int) -> range:
        """The key frames of the scene that `key` belongs to."""
        after = bisect_right(self.cuts, key)
        begin = self.cuts[after - 1] if after else 0
        return range(begin, self.cuts[after] if after < len(self.cuts) else self.keys)


def by_steps(
    times: Sequence[float], steps: Sequence[float], last: float, fps: Fraction, cuts: Sequence[int] = ()
) -> Timeline:
    """Every key frame, and in each gap one frame at each of `steps` in (0, 1).

    times: of the key frames, seconds.   last: seconds for which the last key frame is shown.   fps: of the key frames.
    """
    places: list[tuple[int, float]] = []
    shown: list[float] = []
    starts = set(cuts)
    for key, begin in enumerate(times):
        places.append((key, 0.0))
        shown.append(begin)
        if key + 1 < len(times):
            gap = times[key + 1] - begin
            crosses = key + 1 in starts
            places += [(key, 0.0 if crosses else step) for step in steps]
            shown += [begin + step * gap for step in steps]
    per_gap = len(steps) + 1
    return Timeline(tuple(places), tuple(shown), last, fps * per_gap, len(times), tuple(cuts), bool(steps))


def at_rate(times: Sequence[float], rate: Fraction, last: float, cuts: Sequence[int] = ()) -> Timeline:
    """Frames at the constant `rate`, for any times of the key frames; the last key frame is repeated to the end."""
    length = times[-1] - times[0] + last
    count = max(ceil(round(length * rate, 6)), 1)
    if count > 100_000_000:
        raise InputError(f"--fps {float(rate):g} makes {count} frames: use a lower rate")
    places: list[tuple[int, float]] = []
    starts = set(cuts)
    for number in range(count):
        time = times[0] + float(number / rate)
        key = min(bisect_right(times, time + 1e-9) - 1, len(times) - 1)
        step = 0.0
        if key + 1 < len(times):
            step = (time - times[key]) / (times[key + 1] - times[key])
            key, step = (key + 1, 0.0) if step > 1 - SNAP else (key, step if step > SNAP else 0.0)
        places.append((key, 0.0 if key + 1 in starts or key + 1 >= len(times) else round(step, 6)))
    shown = tuple(float(number / rate) for number in range(count))
    return Timeline(tuple(places), shown, float(1 / rate), rate, len(times), tuple(cuts), True)
