"""Times of true frames between two key frames, from the clip's frame times if they are irregular."""

from __future__ import annotations

from collections.abc import Sequence

from data.clips import Clip

TOLERANCE = 0.05  # fraction of a gap; containers round frame times (Matroska: to milliseconds)


def gap_times(gt: Clip, key: int, stride: int, steps: Sequence[int]) -> list[float]:
    """Times in (0, 1) of the frames `key + step` between the key frames `key` and `key + stride` of a clip.

    Regular clips, and clips whose frame times do not increase, have step / stride.
    """
    even = [step / stride for step in steps]
    first, length = gt.times[key], gt.times[key + stride] - gt.times[key]
    if length <= 0:
        return even
    real = [(gt.times[key + step] - first) / length for step in steps]
    increasing = all(a < b for a, b in zip([0.0, *real], [*real, 1.0], strict=True))
    regular = all(abs(a - b) <= TOLERANCE for a, b in zip(real, even, strict=True))
    return even if regular or not increasing else real


def runs(times: Sequence[Sequence[float]]) -> list[tuple[range, list[float]]]:
    """Runs of successive gaps with the same times."""
    found: list[tuple[range, list[float]]] = []
    for gap, own in enumerate(times):
        if found and found[-1][1] == list(own):
            found[-1] = (range(found[-1][0].start, gap + 1), found[-1][1])
        else:
            found.append((range(gap, gap + 1), list(own)))
    return found
