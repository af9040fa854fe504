"""Valid files, and the same with changed bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random


def damaged(random: Random, content: bytes) -> bytes:
    """The content with bytes changed, removed, repeated or inserted."""
    result = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        place = (
            random.randrange(max(len(result), 1))
            if random.random() < 0.5
            else random.randrange(min(len(result), 400) or 1)
        )
        change = random.randrange(5)
        if change == 0:
            del result[place:]
        elif change == 1:
            result[place:place] = random.randbytes(random.randint(1, 8))
        elif change == 2:
            result[place : place + 4] = random.choice(
                (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")
            )
        elif place < len(result):
            result[place] = random.randrange(256)
    return bytes(result)


def seeds(folder: Path, make: Callable[[Path], None]) -> list[Path]:
    """Valid files, made once for all tries."""
    place = folder.parent / f"seeds{make.__name__}"
    if not place.is_dir():
        place.mkdir()
        make(place)
    return sorted(place.iterdir())
