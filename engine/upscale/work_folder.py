"""The work folder of a job: creation, recognition, and checks on resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data.files import hidden_path, is_own_folder, make_own_folder, remove_own_folder, replacing, shortened
from errors import InputError


def work_folder(out: Path) -> Path:
    """The work folder of the output `out`."""
    return hidden_path(out, "upscaling")


def note_publication(folder: Path, result: Path, target: Path) -> None:
    """Record in the work folder which file (or folder) is about to be renamed to `target`, so that a resumed run recognises it."""
    with replacing(_record(folder, target)) as temporary:
        temporary.write_text(_identity(result), encoding="utf-8")


def is_published(folder: Path, target: Path) -> bool:
    """Whether an interrupted run has already renamed its result to `target`."""
    try:
        return _record(folder, target).read_text(encoding="utf-8") == _identity(target)
    except (OSError, UnicodeDecodeError):
        return False


def _record(folder: Path, target: Path) -> Path:
    return folder / "published" / shortened(target.name, 200)


def _identity(path: Path) -> str:
    status = path.stat(follow_symlinks=False)
    return f"{status.st_dev} {status.st_ino} {'folder' if path.is_dir() else status.st_size}"


def check_work_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """Raises InputError if the folder exists and is another program's, or holds an interrupted run that may not be replaced."""
    if folder.exists() and not is_own_folder(folder) and any(folder.iterdir()):
        raise InputError(f"'{folder}' was not made by this program: move it away or name another output")
    if folder.exists() and not (resume or overwrite):
        raise InputError(
            f"'{folder}' holds an interrupted upscaling of this clip: continue with --resume or start again with --overwrite"
        )


def create(folder: Path, settings: dict[str, Any]) -> None:
    """Create an empty work folder in place of an earlier one. Raises InputError if it cannot be written."""
    try:
        if folder.exists():
            remove_own_folder(folder) if is_own_folder(folder) else folder.rmdir()
        make_own_folder(folder)
        try:
            for name in ("raw", "frames", "pieces"):
                (folder / name).mkdir()
            with replacing(folder / "job.json") as temporary:
                temporary.write_text(json.dumps(settings, indent=1), encoding="utf-8")
        except (OSError, InputError):  # a full disk
            remove_own_folder(folder)
            raise
    except OSError as error:
        raise InputError(f"'{folder.parent}': cannot be written ({error.strerror}): choose another folder") from None


def begun_with(folder: Path) -> dict[str, Any]:
    """`job.json` of an interrupted run; empty if it is missing or damaged."""
    try:
        begun = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return begun if isinstance(begun, dict) else {}


def check_same(folder: Path, identity: dict[str, Any]) -> None:
    """Raises InputError if the interrupted run had other settings: its frames cannot be reused."""
    before, now = begun_with(folder), json.loads(json.dumps(identity))
    if not before:
        raise InputError(f"'{folder / 'job.json'}' is damaged: start again with --overwrite")
    changed = [key for key in now if before.get(key) != now[key]]
    if changed:
        key = changed[0]
        raise InputError(
            f"'{folder}' was started with another {key} ({before.get(key)}, now {now[key]}): use the same, or --overwrite"
        )


def is_filled(path: Path) -> bool:
    """Whether `path` is a file that is not empty."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
