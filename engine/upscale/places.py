"""Where results go: paths that touch nothing of the user's, and one writer for each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from data.files import check_apart, lock
from errors import InputError

MOST_LOCKS = 200  # open files are limited; beyond these the lock of the common folder has to do


class Outputs(Protocol):
    """What a job writes."""

    @property
    def places(self) -> list[Path]:
        """Files and folders that it makes, the result first."""


def check_places(places: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Raises InputError where an output touches an input or the program, is a link or a device, or cannot be written."""
    check_apart(places, inputs)
    for place in places:
        if place.is_symlink():
            raise InputError(f"'{place}' is a link to '{place.readlink()}': name the file or folder itself")
        if place.exists() and not (place.is_file() or place.is_dir()):
            raise InputError(f"'{place}' is no regular file: name another output")
        _check_writable(place)


def _check_writable(place: Path) -> None:
    """The nearest folder above that exists takes new files."""
    folder = next(parent for parent in place.absolute().parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise InputError(f"'{place}': '{folder}' is not a folder: choose another output")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"'{place}': no permission to write into '{folder}': choose another output folder")


@contextmanager
def locked(out: Path, jobs: Sequence[Outputs]) -> Iterator[None]:
    """Hold the locks of the output asked for and of every job's result."""
    with ExitStack() as stack:
        for path in dict.fromkeys([out, *(job.places[0] for job in jobs[:MOST_LOCKS])]):
            stack.enter_context(lock(path))
        yield
