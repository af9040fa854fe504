"""Boxes of moving objects: `gt/gt.txt` of VISO and of MOT-like data sets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from data.clips import frame_numbers
from errors import InputError


class Box(NamedTuple):
    """One object in one frame: upper left corner, width and height in GT pixels."""

    track: int
    x: float
    y: float
    w: float
    h: float
    label: str


def read_boxes(path: Path, names: Sequence[str], label: str, notes: list[str]) -> list[list[Box]]:
    """Boxes per frame from lines `frame, id, x, y, w, h, ...` (commas or blanks).

    The frame number is that of the file's name. A seventh column that is a word is the object's class, else `label` is.
    Boxes in frames that do not exist are left out and counted in `notes`.
    """
    numbers = frame_numbers(names) or list(range(1, len(names) + 1))
    position = {number: index for index, number in enumerate(numbers)}
    boxes: list[list[Box]] = [[] for _ in names]
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of boxes ({error})") from None
    outside = 0
    for number, line in enumerate(lines, start=1):
        fields = re.split(r"[,\s]+", line.strip().strip(","))
        if fields == [""]:
            continue
        frame, box = _parse(fields, label, f"{path}, line {number}")
        if frame in position:
            boxes[position[frame]].append(box)
        else:
            outside += 1
    if outside:
        notes.append(f"{path}: {outside} boxes are in frames that do not exist (frames {numbers[0]} to {numbers[-1]})")
    if outside and not any(boxes):
        raise InputError(f"{path}: none of its frame numbers is one of the clip's ({numbers[0]} to {numbers[-1]})")
    return boxes


def _parse(fields: list[str], label: str, where: str) -> tuple[int, Box]:
    try:
        frame, track = int(float(fields[0])), int(float(fields[1]))
        x, y, w, h = (float(value) for value in fields[2:6])
    except (ValueError, IndexError, OverflowError):
        raise InputError(f"{where}: expected numbers frame, id, x, y, w, h, got {','.join(fields)!r}") from None
    if not (w > 0 and h > 0 and abs(x) < 1e6 and abs(y) < 1e6):
        raise InputError(f"{where}: a box of {w:g}x{h:g} pixels at ({x:g}, {y:g}) is impossible")
    named = len(fields) > 6 and fields[6][:1].isalpha()
    return frame, Box(track, x, y, w, h, fields[6] if named else label)
