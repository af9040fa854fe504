"""Damage of a video, in words: packets and frames that are missing or damaged, jumps of time and changes of size."""

from __future__ import annotations

from itertools import pairwise

from data.video.frames import FrameTable

LAST = 3  # frames: with B-frames the frame that is decoded last is up to so many before the end


def differences(table: FrameTable) -> list[str]:
    """One line for each difference of a video's frames from those of an undamaged file."""
    found: list[str] = []
    if table.skipped:
        found.append(f"the first {table.skipped} packet(s) could not be decoded: the file was cut between key frames")
    found += [f"{count} packet(s) at {at:.2f} s could not be decoded: damaged" for at, count in table.lost]
    if table.damaged:
        found.append(f"damaged frames, shown as far as they could be decoded: {_ranges(table.damaged)}")
    found += [f"{count} frame(s) are missing at {at:.2f} s" for at, count in table.gaps[:5]]
    if table.absent and not table.missing:
        found.append(f"{table.absent} of the frames in its header are not in the file: it is damaged or cut short")
    if table.broken_off and not (table.missing or table.absent):
        found.append("the file breaks off in the middle of a frame: it is cut short")
    elif table.damaged and table.damaged[-1] >= len(table.stamps) - LAST and not (table.missing or table.absent):
        found.append("the last frame is incomplete: the file is cut short or damaged there")
    if table.missing:
        found.append(f"the file is cut short: {table.missing:.2f} s of the length in its header are missing")
    for ((old_h, old_w), _), ((height, width), first) in pairwise(table.sizes[:5]):
        found.append(
            f"its frames change from {old_w}x{old_h} to {width}x{height} pixels at {table.times[first]:.2f} s: resized to the "
            "size of the first"
        )
    for stretch in table.stretches[1:]:
        found.append(f"its times jump at frame {stretch.first}: the frames from there on follow without a gap")
    if table.others_corrupt:
        found.append(f"{table.others_corrupt} damaged packet(s) of sound or subtitles: unreadable ones are left out")
    return found


def _ranges(numbers: list[int]) -> str:
    """`3-5, 9` for 3, 4, 5, 9; the first ten of them."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    named = [f"{a}-{b}" if b > a else f"{a}" for a, b in parts[:10]]
    return ", ".join(named) + (f" and {len(parts) - 10} more" if len(parts) > 10 else "")
