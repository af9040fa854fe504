"""The output folder of an evaluation or comparison: checked before the work, locked, and without unfinished files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from data.files import MARKER, check_apart, make_own_folder, remove_unfinished
from data.locks import lock
from engine import distributed
from engine.interrupts import patient_exit
from errors import InputError, Interruption

REPORT = "report.json"
REPORTS = (REPORT, "report.md", "report.csv", "report.html", "objects.csv")
EVALUATION, COMPARISON, RUN = "an evaluation", "a comparison", "a training run"


@contextmanager
def output_folder(
    folder: Path, kind: str, files: Sequence[str], folders: Sequence[str], inputs: Sequence[Path]
) -> Iterator[None]:
    """Hold `folder` for the results of an evaluation or comparison (`kind`: EVALUATION or COMPARISON).

    files, folders: the names that are written in it.   inputs: files and folders that are read.

    Raises InputError, on every rank, if an output would overwrite an input, files of the user or results of another kind, and
    if the folder cannot be written or another process writes to it. Signals raise `Interruption`.
    """
    with ExitStack() as held:
        held.enter_context(patient_exit())
        if distributed.is_main():
            held.callback(remove_empty, missing_parents(folder))
        try:
            distributed.on_main(lambda: prepare(held, folder, kind, files, folders, inputs))
            yield
        except KeyboardInterrupt as stop:
            code = stop.code if isinstance(stop, Interruption) else 130
            kept = " (the report in it is the earlier one)" if (folder / REPORT).exists() else ""
            raise Interruption(f"interrupted: '{folder}' has no complete results{kept}: run it again", code) from None


def prepare(
    held: ExitStack, folder: Path, kind: str, files: Sequence[str], folders: Sequence[str], inputs: Sequence[Path]
) -> None:
    """Check and lock the folder, and remove what killed processes left in it."""
    places = [folder / name for name in (*files, *folders)]
    try:
        check_apart(places, inputs)
    except InputError as error:
        raise InputError(f"{error} (--outputpath)") from None
    check_own(folder, kind, files, folders)
    held.enter_context(lock(folder / "report"))  # within the folder: the one above may be read-only
    for path in places:
        remove_unfinished(path)
    for name in folders:
        try:
            make_own_folder_with_results(folder / name)
        except OSError as error:
            raise InputError(
                f"'{folder / name}': cannot be written ({error.strerror}): choose another --outputpath"
            ) from None
        held.callback(remove_if_unused, folder / name)


def check_own(folder: Path, kind: str, files: Sequence[str], folders: Sequence[str]) -> None:
    """Raises InputError for existing files and folders that no earlier result of the same kind explains."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"'{folder}' is a file: name a folder with --outputpath")
    found = kind_of(folder / REPORT)
    if found and found != kind:
        raise InputError(f"'{folder}' has the results of {found}, which {kind} would replace: use another --outputpath")
    for name in files if not found else ():
        if (folder / name).exists():
            raise InputError(f"'{folder / name}' was not made by this program: use another --outputpath")
    for name in folders:
        place = folder / name
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise InputError(f"'{place}' is a link or a file, expected a folder: use another --outputpath")
        if place.exists() and not found and not (place / MARKER).exists() and any(place.iterdir()):
            raise InputError(f"'{place}' was not made by this program: use another --outputpath")


def kind_of(path: Path) -> str:
    """The kind of an existing report; empty for none and for other files."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    if not isinstance(report, dict) or "protocol" not in report or "machine" not in report:
        return ""
    if (path.parent / "config.yaml").exists():
        return RUN
    return COMPARISON if "methods" in report else EVALUATION


def make_own_folder_with_results(folder: Path) -> None:
    """Create a folder with the program's marker, or mark an existing one, which `check_own` has accepted."""
    if folder.is_dir() and any(folder.iterdir()):
        (folder / MARKER).touch()
    else:
        make_own_folder(folder)


def remove_if_unused(folder: Path) -> None:
    """Remove a folder with nothing but the marker."""
    with suppress(OSError):
        if [path.name for path in folder.iterdir()] == [MARKER]:
            (folder / MARKER).unlink()
            folder.rmdir()


def missing_parents(folder: Path) -> list[Path]:
    """`folder` and its parents that do not exist, innermost first."""
    folder = folder.absolute()
    return [path for path in (folder, *folder.parents) if not path.exists()]


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders as long as they are empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
