"""Early ends of a run: signals and known failures, with a message and an exit code for each."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from engine import distributed
from errors import InputError


class Interrupted(Exception):
    """The run ended early and its state is saved. `code`: exit code of the program."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(" ".join(message.split()))
        self.code = code


class Signals:
    """SIGINT and SIGTERM during a run: within a step they are recorded until the step ends; between steps they are raised at once.

    A second Ctrl-C interrupts at once.
    """

    def __init__(self) -> None:
        self.caught: list[int] = []
        self.at_once = False

    def _note(self, number: int, _frame: Any) -> None:
        if self.caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.caught.append(number)
        if self.at_once:
            raise Interrupted("", 128 + number)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM within the block."""
        previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """A block that signals may interrupt at any point, such as a validation."""
        self.at_once = True
        try:
            yield
        finally:
            self.at_once = False

    @property
    def code(self) -> int:
        return 128 + (self.caught[0] if self.caught else signal.SIGTERM)


def explained(error: BaseException) -> tuple[str, int] | None:
    """One line and an exit code for a known failure (bad input, disk, memory, a dead process); None for other exceptions."""
    if isinstance(error, InputError):
        return str(error), 2
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}", 2
    text = str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text:
        return "out of memory: lower train.batch_size or data.patch, or raise train.accumulate", 1
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        return "a data worker was killed (usually because memory ran out: lower data.workers)", 1
    if isinstance(error, RuntimeError) and distributed.world() > 1:
        return (
            f"the other processes of this run cannot be reached ({text.splitlines()[0][:120] if text else 'ended'})",
            1,
        )
    return None
