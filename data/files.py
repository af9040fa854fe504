"""Files that are there as a whole or not at all, and folders that know what they were begun with."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from errors import InputError

UNFINISHED = re.compile(r"\.(?P<stem>.+)\.\d+\.tmp(?P<suffix>\.\w+)?")


def temporary_path(path: Path) -> Path:
    """Where this process writes what is to become `path`: hidden, in the same folder, with the same suffix."""
    return path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well: nobody ever sees half a file."""
    path = Path(path)
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); choose another output folder"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def remove_unfinished(place: Path) -> None:
    """Remove what killed processes left: everywhere in a folder, or beside a file what was to become that file.

    Only where no other process is writing.
    """
    if place.is_dir():
        found = [path for path in place.rglob(".*") if UNFINISHED.fullmatch(path.name)]
    else:
        names = ((path, UNFINISHED.fullmatch(path.name)) for path in place.parent.glob(".*"))
        found = [p for p, m in names if m and m["stem"] == place.stem and (m["suffix"] or "") == place.suffix]
    for path in found:
        path.unlink(missing_ok=True)


def remember(path: Path, settings: Mapping[str, Any]) -> None:
    """Write down in `path` what its folder is made from, or make sure that it is what the folder was begun with.

    settings: what JSON can hold. Raises InputError for a folder that was begun with others, or that holds something else.
    """
    out, wanted = path.parent, json.loads(json.dumps(settings))
    if path.is_file():
        try:
            begun = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise InputError(f"{path}: is damaged; delete it together with {out} and start again") from None
        changed = [key for key in wanted if begun.get(key) != wanted[key]]
        if changed:
            raise InputError(
                f"{out}: was begun with other settings ({', '.join(changed)}); choose another folder or delete this one"
            )
        return
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty and not a folder of this program; choose another folder")
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(wanted, indent=1), encoding="utf-8")


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
