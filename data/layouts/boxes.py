"""Boxes of moving objects: `gt/gt.txt` of VISO and of MOT-like data sets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from data.clips import frame_numbers
from data.layouts.listing import read_lines
from errors import InputError

SINGLE = "groundtruth.txt"  # of SatSOT
# a first line with names of the columns, such as frame,id,x,y,w,h or frame_id, track_id, bb_left, bb_top, bb_width, bb_height
HEADER = re.compile(
    r"frame\w*,(\w*id|track\w*|obj\w*),"
    r"(bb_?|box_?|bbox_?)?(x1?|x_?min|left),(bb_?|box_?|bbox_?)?(y1?|y_?min|top),"
    r"(bb_?|box_?|bbox_?)?w(idth)?,(bb_?|box_?|bbox_?)?h(eight)?\b"
)


class Box(NamedTuple):
    """One object in one frame: upper left corner, width and height in GT pixels."""

    track: int
    x: float
    y: float
    w: float
    h: float
    label: str


def read_boxes(path: Path, names: Sequence[str], label: str, notes: list[str]) -> list[list[Box]]:
    """Boxes per frame from lines `frame, id, x, y, w, h, ...` (commas or blanks); of `groundtruth.txt` (SatSOT) from one
    line `x, y, w, h` per frame.

    The frame number is that of the file's name. A seventh column that is a word is the object's class. Otherwise columns
    are those of MOT, `score, category, visibility`: a box with a score of 0 is ignored, and a category is the
    class where the folders name none (`label` is "object"). Boxes in frames that do not exist, of no area and ignored ones
    are left out and counted in `notes`. InputError where no box is left.
    """
    lines = read_lines(path, "a list of boxes")
    if path.name == SINGLE:
        return _single_object(path, lines, names, label)
    numbers = frame_numbers(names) or list(range(1, len(names) + 1))
    position = {number: index for index, number in enumerate(numbers)}
    boxes: list[list[Box]] = [[] for _ in names]
    outside: list[int] = []
    ignored = 0
    empty: list[InputError] = []
    for number, line in enumerate(lines, start=1):
        fields = _fields(line)
        if fields == [""] or (number == 1 and HEADER.match(",".join(fields).lower())):
            continue
        try:
            frame, box = _parse(fields, label, f"{path}, line {number}")
        except EmptyBoxError as error:
            empty.append(error)
            continue
        if _ignored(fields):
            ignored += 1
        elif frame in position:
            boxes[position[frame]].append(box)
        else:
            outside.append(frame)
    if empty and not any(boxes):
        raise InputError(str(empty[0]))
    if outside:
        notes.append(_note_on_others(path, outside, numbers, boxes))
    if empty:
        notes.append(f"{path}: {len(empty)} boxes without area are left out")
    if ignored:
        notes.append(f"{path}: {ignored} boxes of score 0 are left out, as in MOT")
    if outside and not any(boxes):
        raise InputError(f"{path}: none of its frame numbers is one of the clip's ({numbers[0]} to {numbers[-1]})")
    return boxes


def _note_on_others(path: Path, outside: Sequence[int], numbers: Sequence[int], boxes: Sequence[list[Box]]) -> str:
    """A note on the boxes in frames `outside` of the clip, which has frames `numbers` with `boxes`."""
    note = f"{path}: {len(outside)} boxes are in frames that do not exist (frames {numbers[0]} to {numbers[-1]})"
    if set(outside) == {numbers[0] - 1} and not boxes[-1]:
        note += "; its numbers seem to be lower by one than those of the frames"
    if set(outside) == {numbers[-1] + 1} and not boxes[0]:
        note += "; its numbers seem to be higher by one than those of the frames"
    return note


class EmptyBoxError(InputError):
    """A box without width or height, as trackers write it for a hidden object."""


def _single_object(path: Path, lines: Sequence[str], names: Sequence[str], label: str) -> list[list[Box]]:
    """Read the boxes of one object, one line per frame; words or zeros mean that it is not visible."""
    boxes: list[list[Box]] = [[] for _ in names]
    lines = [line for line in lines if line.strip()]
    if len(lines) > len(names):
        raise InputError(f"{path}: has {len(lines)} lines for {len(names)} frames; expected one line per frame")
    for index, line in enumerate(lines):
        fields = _fields(line)
        if any(field.lower() in ("none", "nan") for field in fields):
            continue
        with suppress(EmptyBoxError):
            boxes[index] = [_parse([str(index), "1", *fields], label, f"{path}, line {index + 1}")[1]]
    return boxes


def _fields(line: str) -> list[str]:
    return re.split(r"[,\s]+", line.strip().strip(","))


def _ignored(fields: Sequence[str]) -> bool:
    """MOT's columns (eight or more) with a score of 0."""
    try:
        return len(fields) >= 8 and float(fields[6]) == 0
    except ValueError:
        return False


def _parse(fields: list[str], label: str, where: str) -> tuple[int, Box]:
    try:
        frame, track = int(float(fields[0])), int(float(fields[1]))
        x, y, w, h = (float(value) for value in fields[2:6])
    except (ValueError, IndexError, OverflowError):
        advice = "; remove the line if it names columns in this order" if where.endswith("line 1") else ""
        raise InputError(
            f"{where}: expected numbers frame, id, x, y, w, h, got {','.join(fields)[:80]!r}{advice}"
        ) from None
    problem = f"{where}: a box of {w:g}x{h:g} pixels at ({x:g}, {y:g}) is impossible"
    if not (w >= 0 and h >= 0 and max(abs(x), abs(y), w, h) < 1e6):
        raise InputError(problem)
    if not (w and h):
        raise EmptyBoxError(problem)
    named = len(fields) > 6 and fields[6][:1].isalpha()
    return frame, Box(track, x, y, w, h, fields[6] if named else _category(fields, label))


def _category(fields: Sequence[str], label: str) -> str:
    """`class N` from MOT's eighth column, used if the class has no other name."""
    numbered = label == "object" and len(fields) >= 8 and re.fullmatch(r"[1-9]\d{0,3}", fields[7])
    return f"class {fields[7]}" if numbered else label
