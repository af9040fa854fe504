"""File and clip names: natural sort order, names that are no content of the user, and names that a disk cannot hold."""

from __future__ import annotations

import os
import re
import tempfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from errors import InputError

LONGEST_NAME = 255  # bytes, on most file systems

# folders of thumbnails, resource forks and trash that network storage and operating systems make, in lower case
SYSTEM_FOLDERS = frozenset(
    ("@eadir", "__macosx", "$recycle.bin", "#recycle", "lost+found", "system volume information")
)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is not counted as content of its folder."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def natural_key(name: str) -> tuple:
    """Sort key: numbers inside a name count as numbers, so `frame2` comes before `frame10`; ties by the plain name."""
    parts = re.split(r"(\d+)", name)
    return tuple((int(part), "") if i % 2 else (-1, part.lower()) for i, part in enumerate(parts)), name


def check_names(folder: Path, names: Iterable[str]) -> None:
    """InputError for files in a folder whose names are longer than file systems take, or that `check_distinct` refuses."""
    names = list(names)
    for name in names:
        if len(os.fsencode(name)) > LONGEST_NAME:
            raise InputError(
                f"'{folder / name}': its name has more than {LONGEST_NAME} bytes: give the input a shorter name"
            )
    check_distinct(folder, names)


def check_distinct(folder: Path, names: Iterable[str]) -> None:
    """InputError for two names in a folder that are one file on its file system."""
    folded: dict[str, str] = {}
    for name in names:
        other = folded.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name and are_one_file(folder, other, name):
            raise InputError(
                f"'{folder}': '{other}' and '{name}' are one file on its file system, which does not tell them apart (upper and "
                "lower case, or two codings of a letter): rename one of the inputs, or choose a folder on another disk"
            )


def are_one_file(folder: Path, one: str, other: str) -> bool:
    """Whether the file system of a folder, which may not exist yet, takes two names for one file."""
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    try:
        with tempfile.TemporaryDirectory(prefix=".names.", suffix=".tmp", dir=parent) as place:
            (Path(place) / one).touch()
            return (Path(place) / other).exists()
    except OSError:
        return False  # the folder cannot be written: reported elsewhere
