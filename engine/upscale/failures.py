"""Errors of single clips of a folder: the other clips are finished, then the failed ones are reported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engine.distributed import say
from errors import InputError


class Failures:
    """Collects the errors of single clips. several: if False, there is one clip and its error is raised at once."""

    def __init__(self, several: bool) -> None:
        self.several = several
        self.errors: dict[str, str] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Record an InputError within the block as a failure of the clip `name`."""
        try:
            yield
        except InputError as error:
            if not self.several:
                raise
            self.errors.setdefault(name, str(error))
            say(f"skipped: {error}")

    def close(self, total: int) -> None:
        """Raises InputError with the failed clips of `total`, if there are any."""
        if not self.errors:
            return
        first = next(iter(self.errors.values()))
        if len(self.errors) == total == 1:
            raise InputError(first)
        names = ", ".join(f"'{name}'" for name in list(self.errors)[:5]) + (" ..." if len(self.errors) > 5 else "")
        raise InputError(f"{len(self.errors)} of {total} clips were not upscaled ({names}); the first: {first}")
