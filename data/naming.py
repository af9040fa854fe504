"""Natural sort order of file and clip names, and names that are no content of the user."""

from __future__ import annotations

import re

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
