"""Natural sort order of file and clip names."""

from __future__ import annotations

import re


def natural_key(name: str) -> tuple:
    """Sort key: numbers inside a name count as numbers, so `frame2` comes before `frame10`; ties by the plain name."""
    parts = re.split(r"(\d+)", name)
    return tuple((int(part), "") if i % 2 else (-1, part.lower()) for i, part in enumerate(parts)), name
