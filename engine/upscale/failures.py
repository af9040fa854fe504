"""Errors of single clips of a folder, and of single frames of a clip: the others are finished, then the failed ones are reported."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from engine.distributed import say
from errors import InputError


class Failures:
    """Collects the errors of single clips. several: if False, there is one clip and its error is raised at once."""

    def __init__(self, several: bool) -> None:
        self.several = several
        self.errors: dict[str, str] = {}
        self.frames: dict[Path, str] = {}
        self.changed: list[str] = []  # results whose source changed during the work

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Record an InputError within the block as a failure of the clip `name`."""
        try:
            yield
        except InputError as error:
            if not self.several:
                raise
            if name not in self.errors:
                say(f"skipped: {error}")
            self.errors.setdefault(name, str(error))

    def leave_out(self, frames: Mapping[Path, str]) -> None:
        """Record frames that cannot be read, with the reasons; their clip is upscaled without them."""
        self.frames.update(frames)
        for reason in frames.values():
            say(f"skipped: {reason}")

    def close(self, total: int) -> None:
        """Raises InputError with the failed clips of `total` and the frames that were left out, if there are any."""
        lines = []
        if self.errors:
            first = next(iter(self.errors.values()))
            if len(self.errors) < total or total > 1:
                first = (
                    f"{len(self.errors)} of {total} clips were not upscaled ({_some(self.errors)}); the first: {first}"
                )
            lines.append(first)
        if self.frames:
            names = _some([path.name for path in self.frames])
            first = next(iter(self.frames.values()))
            lines.append(f"{len(self.frames)} unreadable frame(s) were left out ({names}); the first: {first}")
        if self.changed:
            lines.append(
                f"the input of {_some(self.changed)} changed while it was upscaled: the result is written, but may mix two versions of "
                "it: make it again with --overwrite"
            )
        if lines:
            raise InputError("; ".join(lines))


def _some(names: Collection[str]) -> str:
    return ", ".join(f"'{name}'" for name in list(names)[:5]) + (" ..." if len(names) > 5 else "")
