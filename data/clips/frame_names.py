"""Names and numbers of frames: their order, series of them, and names that are times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from data.naming import natural_key

DAY = r"(?:19|20)\d\d([-_.]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])"  # 20230506, 2023-05-06
DAY_OF_YEAR = r"(?:19|20)\d\d(?:00[1-9]|0[1-9]\d|[12]\d\d|3[0-5]\d|36[0-6])"  # 2023126
HOUR, MINUTE = r"(?:[01]\d|2[0-3])", "[0-5]\\d"
JOINED = f"T?{HOUR}{MINUTE}(?:{MINUTE}(?:[.,]?\\d{{3,9}})?)?"  # 202305061011, 20230506T101112.345
APART = (
    f"[T_ .-]+(?!000){HOUR}[-_.:h]?{MINUTE}[-_.:m]?{MINUTE}(?:[.,]?\\d{{3,9}})?"  # 20230506_101112; _000001 is a number
)
SINCE_1970 = r"1\d{9}(?:[._-]?(?:\d{3}|\d{6}|\d{9}))?"  # seconds, or parts of a second
MOMENT = re.compile(rf"(?<!\d)(?:{DAY}(?:{JOINED}|{APART})?|{DAY_OF_YEAR}|{SINCE_1970})$")
JITTER = 1.5  # steps between numbers that differ by less are times: a missing frame makes a step of 2


def in_order(paths: list[Path]) -> list[Path]:
    """Frames in natural order (2 before 10), or by their value if their names are decimals (0.25 before 0.5)."""
    paths = sorted(paths, key=lambda path: natural_key(path.name))
    if not are_decimals([path.stem for path in paths]):
        return paths
    return sorted(paths, key=lambda path: float(_decimal(path.stem)[1]))


def are_decimals(names: Sequence[str]) -> bool:
    """Whether names in natural order are decimals, such as times in seconds, whose natural order is wrong: 1.5 before 1.25.

    Numbers of scene and frame (1.9, 1.10, 1.11) are not: they count in equal steps, or have a 10 or 100 where they get longer.
    """
    found = [_decimal(name) for name in names]
    fractions = [number.partition(".")[2] for _, number, _ in found]
    if (
        not all(fractions)
        or len({(before, after) for before, _, after in found}) > 1
        or len(set(map(len, fractions))) < 2
    ):
        return False
    counted = any(len(part) > 1 and part.endswith("0") for part in fractions)
    return not counted and (len(names) < 3 or not _regular(names))


def _decimal(name: str) -> tuple[str, str, str]:
    """What is before the decimal number of a name, the number ("" without one), and what is after it."""
    match = re.fullmatch(r"(\D*)(\d+\.\d+)(\D*)", name)
    return (match[1], match[2], match[3]) if match else (name, "", "")


def frame_numbers(names: Sequence[str]) -> list[int] | None:
    """The number at the end of each name; None if the names differ in anything else or have no number."""
    parts = _around_last_digits(names)
    return None if parts is None else [int(digits) for _, digits, _ in parts]


def are_dates(names: Sequence[str]) -> bool:
    """Whether the names end in dates, with or without time, or in seconds since 1970: these rise by any steps."""
    parts = _around_last_digits(names)
    return bool(parts) and all(MOMENT.search(before + digits) for before, digits, _ in parts or ())


def counted_frames(names: Sequence[str]) -> list[int] | None:
    """The number at the end of each name if it counts frames, so that a gap means a missing frame; None for dates and other times."""
    numbers = frame_numbers(names)
    if numbers is None or are_dates(names) or are_decimals(names):
        return None
    steps = [after - before for before, after in pairwise(numbers)]
    return None if steps and min(steps) < max(steps) < JITTER * min(steps) else numbers


def usual_step(numbers: Sequence[int]) -> int:
    """From the number of a frame to that of the next one: the smallest, because greater ones are gaps; 1 for a single frame."""
    return min((after - before for before, after in pairwise(numbers) if after > before), default=1)


def without_numbers(name: str) -> str:
    """The name with # for each of its numbers, in lower case: the same for all frames of a series."""
    return re.sub(r"\d+", "#", name.lower())


def alike(names: Sequence[str]) -> tuple[list[list[int]], list[int]]:
    """Indices of names by series of numbered frames, whose names differ in numbers only, and of all others."""
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        groups.setdefault(without_numbers(name), []).append(index)
    series = [group for group in groups.values() if len(group) > 1 and _regular([names[index] for index in group])]
    return series, sorted(index for group in groups.values() if group not in series for index in group)


def _regular(names: Sequence[str]) -> bool:
    """Whether at least half of the names are numbered in equal steps."""
    numbers = frame_numbers(names)
    steps = [after - before for before, after in pairwise(numbers)] if numbers else []
    return bool(steps) and 2 * steps.count(min(steps)) >= len(steps)


def _around_last_digits(names: Sequence[str]) -> list[tuple[str, str, str]] | None:
    """What is before the last number of each name, the number, and what is after it; None if the names differ in anything else."""
    matches = [re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in names]
    parts = [(match[1], match[2], match[3]) for match in matches if match]
    if len(parts) != len(names) or len({(before, after) for before, _, after in parts}) != 1:
        return None
    return parts
