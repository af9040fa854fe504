"""Training states on disk: keep the last few states of a run and find the newest readable one for a resume.

`last.safetensors` is the newest, `last-1.safetensors` the one before, and so on. A save shifts the names by one, in an order
such that a kill at any point leaves at least as many readable states as before.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from engine.checkpoint import is_state, load_tensors, save_tensors
from errors import InputError

STATE, BEST = "last.safetensors", "best.safetensors"


def state_name(age: int) -> str:
    """The file name of the state that is `age` saves older than the newest."""
    return STATE if age == 0 else f"last-{age}.safetensors"


def save_state(
    folder: Path,
    tensors: Mapping[str, Tensor],
    header: Mapping[str, Any],
    keep: int,
    say: Callable[[str], None] = print,
) -> None:
    """Write a state as the newest of `folder` and keep `keep` of them.

    On a full disk the oldest states are deleted to make room, but never the newest. Raises `InputError` if it cannot be written.
    """
    new = folder / "new.safetensors"
    try:
        save_tensors(new, tensors, header)
    except InputError as error:
        full = isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)
        older = sorted(folder.glob("last-*.safetensors"))
        if not (full and older):
            raise
        for path in older:
            path.unlink(missing_ok=True)
        say(f"the disk is full: {', '.join(path.name for path in older)} removed to make room for the newest state")
        save_tensors(new, tensors, header)
    # From the oldest to the newest, so that no rename overwrites a state that is still needed.
    for age in range(keep - 1, 1, -1):
        if (folder / state_name(age - 1)).is_file():
            (folder / state_name(age - 1)).replace(folder / state_name(age))
    if keep > 1 and (folder / STATE).is_file():
        _second_name(folder / STATE, folder / state_name(1))
    new.replace(folder / STATE)


def _second_name(path: Path, other: Path) -> None:
    """Give the file `path` the name `other`; it also keeps its own name if the file system supports hard links."""
    # A hard link keeps STATE readable until the new state replaces it.
    linked = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        linked.unlink(missing_ok=True)
        linked.hardlink_to(path)
        linked.replace(other)
    except OSError:
        path.replace(other)


def read_newest(folder: Path, say: Callable[[str], None] = print) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """The newest readable state of a run's folder; damaged ones are reported and skipped.

    Raises `InputError` if there is none.
    """
    problems: list[str] = []
    for path in states_in(folder):
        try:
            tensors, header = read_state(path)
        except InputError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            say(f"{problem}: continuing from '{path}' (step {header['step']})")
        return path, tensors, header
    if problems:
        raise InputError(f"no state in '{folder}' can be read: {problems[0]}")
    raise InputError(
        f"nothing to resume: '{folder / STATE}' does not exist: name a run's folder, such as runs/mtdo_demo"
    )


def states_in(folder: Path) -> list[Path]:
    """The states of a folder, newest first. A complete temporary file, left by a kill before its rename, comes first."""
    older = [path for path in folder.glob("last-*.safetensors") if path.stem.removeprefix("last-").isdecimal()]
    older.sort(key=lambda path: int(path.stem.removeprefix("last-")))
    return [path for path in (folder / "new.safetensors", folder / STATE, *older) if path.is_file()]


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of one training state. Raises `InputError` for a damaged file and for weights that are not a state."""
    tensors, header = load_tensors(path)
    if not is_state(header):
        raise InputError(f"'{path}' is not a training state (weights cannot be resumed): use it as train.init")
    bad = invalid_entries(header)
    if bad:
        raise InputError(f"'{path}' is a damaged training state: its header is not valid ({', '.join(bad)})")
    return tensors, header


def best_until(folder: Path, step: int) -> float:
    """Y PSNR of the best weights in a run's folder if they are of this step or an earlier one, else -inf."""
    try:
        header = load_tensors(folder / BEST)[1]
    except InputError:  # missing or damaged: the next validation writes them
        return -math.inf
    known = _is_count(header.get("step")) and _is_number(header.get("psnr_y"))
    return float(header["psnr_y"]) if known and header["step"] <= step else -math.inf


def invalid_entries(header: Mapping[str, Any]) -> list[str]:
    """Entries of a state's header with a value of another type. Those that earlier versions did not write may be missing."""
    guard = header.get("guard", {})
    valid = {
        "step": _is_count(header["step"]),
        "samples": _is_count(header.get("samples", 0)),
        "unread": _is_count(header.get("unread", 0)),
        "validating": isinstance(header.get("validating", False), bool),
        "best": header.get("best") is None or _is_number(header["best"]),
        "guard": isinstance(guard, dict)
        and all(isinstance(values, list) and all(map(_is_number, values)) for values in guard.values()),
        "scaler": isinstance(header["scaler"], dict),
        "config": isinstance(header["config"], dict),
    }
    return [name for name, fits in valid.items() if not fits]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
