"""The settings with which a folder was begun: the same command continues in it, another one is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.files import replacing
from errors import InputError


def remember(path: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a folder to `path`, or check that they match those written earlier.

    settings: any JSON value. Raises InputError for a folder that was started with other settings or holds other files.
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
                f"{out}: was started with other settings ({', '.join(changed)}); choose another folder or delete this one"
            )
        return
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty and not a folder of this program; choose another folder")
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
