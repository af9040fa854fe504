"""Match a method's frames with those of the ground truth: by name, else by the number in the name, else by their order."""

from __future__ import annotations

import re
from collections.abc import Sequence

from errors import InputError

SEPARATOR = r"[_\-. ]"  # between the parts of a file name


def match_frames(
    wanted: Sequence[str], given: Sequence[str], what: str, *, ordered: bool
) -> tuple[dict[int, int], str]:
    """Match a method's frame names (`given`) with those of the ground truth (`wanted`).

    Returns the method's frame number by the ground truth's, and the rule: "name", "number" or "order". Frames may be missing,
    but none may be left over. what: the clip, for messages.   ordered: the method has no frame names (a video). Raises InputError
    if no rule fits.
    """
    if not ordered:
        for how, keys in (("name", _by_name(wanted, given)), ("number", _by_number(wanted, given))):
            if keys is not None:
                return keys, how
    if len(wanted) != len(given):
        raise InputError(
            f"{what}: {len(given)} frames ({given[0]} ... {given[-1]}) cannot be matched with the {len(wanted)} of the "
            f"ground truth ({wanted[0]} ... {wanted[-1]}): name them as the ground truth's frames"
        )
    return {index: index for index in range(len(wanted))}, "order"


def _by_name(wanted: Sequence[str], given: Sequence[str]) -> dict[int, int] | None:
    """Match equal names, or names with a prefix or suffix: `0001`, `0001_x4`, `city_0001`."""
    position = {name: index for index, name in enumerate(wanted)}
    if all(name in position for name in given):
        return {position[name]: index for index, name in enumerate(given)}
    pairs: dict[int, int] = {}
    for index, name in enumerate(given):
        pieces = re.split(f"({SEPARATOR})", name)
        parts = {"".join(pieces[a:b]) for a in range(0, len(pieces), 2) for b in range(a + 1, len(pieces) + 1, 2)}
        fitting = [position[part] for part in parts if part in position]
        if len(fitting) != 1 or fitting[0] in pairs:
            return None
        pairs[fitting[0]] = index
    return pairs


def _by_number(wanted: Sequence[str], given: Sequence[str]) -> dict[int, int] | None:
    """Match by the frame number, with any number of digits; all of the method's numbers must exist."""
    numbers, others = counting(wanted), counting(given)
    if numbers is None or others is None:
        return None
    position = {number: index for index, number in enumerate(numbers)}
    if not all(number in position for number in others):
        return None
    return {position[number]: index for index, number in enumerate(others)}


def counting(names: Sequence[str]) -> list[int] | None:
    """The only number that differs between names; None if there is none, or more than one."""
    tokens = [re.split(r"(\d+)", name) for name in names]
    if len(names) < 2 or len({len(token) for token in tokens}) != 1:
        return None
    columns = [column for column in range(len(tokens[0])) if len({token[column] for token in tokens}) > 1]
    if len(columns) != 1 or columns[0] % 2 == 0:
        return None
    numbers = [int(token[columns[0]]) for token in tokens]
    return numbers if len(set(numbers)) == len(numbers) else None
