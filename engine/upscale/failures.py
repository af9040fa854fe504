"""Clips of a folder that cannot be upscaled: they are named, and the others are finished."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engine.distributed import say
from errors import InputError


class Failures:
    """Collects the errors of single clips. several: False raises each error at once, for there is only one clip."""

    def __init__(self, several: bool) -> None:
        self.several = several
        self.errors: dict[str, str] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Bad input within the block counts against the clip `name`."""
        try:
            yield
        except InputError as error:
            if not self.several:
                raise
            self.errors.setdefault(name, str(error))
            say(f"skipped: {error}")

    def close(self, total: int) -> None:
        """InputError that says which of `total` clips were left out; nothing if none was."""
        if not self.errors:
            return
        first = next(iter(self.errors.values()))
        if len(self.errors) == total == 1:
            raise InputError(first)
        names = ", ".join(f"'{name}'" for name in list(self.errors)[:5]) + (" ..." if len(self.errors) > 5 else "")
        raise InputError(f"{len(self.errors)} of {total} clips were not upscaled ({names}); the first: {first}")
