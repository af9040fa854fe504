"""Output paths: they never overwrite input files, and a lock allows one writer for each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from data import world_file
from data.files import check_apart, hidden_path, holds, is_file, temporary_path
from data.frame_writer import STACK_SUFFIXES
from data.locks import lock
from errors import InputError

TABLES = (".tab", ".TAB")  # of MapInfo
RPCS = ("_RPC.TXT", "_rpc.txt", ".RPB", ".rpb")
MOST_LOCKS = 200  # the number of open files is limited; with more outputs, the common folder is locked instead


class Outputs(Protocol):
    """Paths that a job writes."""

    @property
    def places(self) -> list[Path]:
        """Files and folders that the job creates, the result first."""


def check_places(places: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Raises InputError if an output would overwrite an input or the program, is a link or a device, or cannot be written."""
    for place in places:
        _check_name(place)
    check_apart(places, inputs)
    for place in places:
        if place.is_symlink():
            raise InputError(f"'{place}' is a link to '{place.readlink()}': name the file or folder itself")
        if place.exists() and not (place.is_file() or place.is_dir()):
            raise InputError(f"'{place}' is not a regular file: name another output")
        _check_writable(place)


def _check_name(place: Path) -> None:
    """Check that the file system takes the name, and the longer names of its temporary files."""
    folder = _existing_parent(place)  # a missing folder would hide that the name is too long
    for name in (place.name, temporary_path(place).name, hidden_path(place, "upscaling").name) if place.name else ("",):
        try:
            os.lstat(folder / name)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError) as error:  # a null byte
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"'{place}': cannot be written ({reason}): name another output") from None


def _check_writable(place: Path) -> None:
    """Check that the nearest existing parent folder is writable."""
    folder = _existing_parent(place)
    if not folder.is_dir():
        raise InputError(f"'{place}': '{folder}' is not a folder: choose another output")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"'{place}': no permission to write into '{folder}': choose another output folder")


def check_no_stale_files(out: Path, own: str | None) -> None:
    """Raises InputError if GDAL's files of an earlier image (statistics and nodata, masks, overviews) are at the path of `out`.
    own: the content of the `.aux.xml` that belongs to the output.
    """
    for path in stale_files(out):
        if own is None or not holds(path, own.encode()):
            raise InputError(
                f"'{path}' belongs to an earlier '{out.name}' and would change how the new one is read: move it away, or use "
                "--overwrite to delete it"
            )


def check_no_foreign_place(out: Path, placed: bool) -> None:
    """Raises InputError for files at the path of `out` from which GDAL would take a georeference that is not the result's: world
    files and MapInfo tables, unless the result has a transform of its own (`placed`), and RPCs, which replace those of a TIFF.
    """
    found = [] if placed else [*world_file.candidates(out), *(out.with_suffix(ending) for ending in TABLES)]
    if out.suffix.lower() in STACK_SUFFIXES:
        found += [out.with_name(out.stem + ending) for ending in RPCS]
    for path in found:
        if is_file(path):
            raise InputError(
                f"'{path}' gives a georeference to every '{out.name}', and the new one has another or none: move it away, or name "
                "another output"
            )


def remove_stale_files(out: Path) -> None:
    for path in stale_files(out):
        path.unlink()


def stale_files(out: Path) -> list[Path]:
    """GDAL's files of an earlier image of this name."""
    found = [out.with_name(out.name + ending) for ending in (".aux.xml", ".msk", ".ovr")]
    return [path for path in found if is_file(path)]


def _existing_parent(place: Path) -> Path:
    return next(parent for parent in place.absolute().parents if os.path.lexists(parent))


@contextmanager
def locked(out: Path, jobs: Sequence[Outputs]) -> Iterator[None]:
    """Hold the locks of the requested output and of every job's result."""
    with ExitStack() as stack:
        for path in dict.fromkeys([out, *(job.places[0] for job in jobs[:MOST_LOCKS])]):
            stack.enter_context(lock(path))
        yield
