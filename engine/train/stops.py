"""Early ends of a run: signals and known failures, with a message and an exit code for each."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from data.files import in_repository
from data.sampling import ENDING
from engine import distributed
from engine.restore.memory import is_out_of_memory
from errors import InputError

LOST = re.compile("gloo|nccl|connection (closed|reset|refused)|broken pipe", re.IGNORECASE)


def shell_word(path: Path) -> str:
    """The path as one word of a command for the user's shell, in quotes only where it needs them."""
    return subprocess.list2cmdline([str(path)]) if os.name == "nt" else shlex.quote(str(path))


def resume_command(folder: Path) -> str:
    """The command that continues the run in this folder, from the working folder."""
    return f"python {shell_word(in_repository('main.py'))} --resume {shell_word(folder)}"


class Interrupted(BaseException):
    """The run ended early; its state is saved. `code`: exit code of the program.

    Signal handlers raise it anywhere, so `except Exception` in a reader must not catch it.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(" ".join(message.split()))
        self.code = code


class Signals:
    """Signals that end a run: within a step they are recorded until the step ends; between steps they are raised at once.

    A second Ctrl-C interrupts the step, a third one also the saving of the state.
    """

    def __init__(self) -> None:
        self.caught: list[int] = []
        self.at_once = False
        self.ending = False  # the state is being saved, or the reason of the end is on its way to the last line
        self.saved = False
        self.process = os.getpid()

    def _note(self, number: int, _frame: Any) -> None:
        if os.getpid() != self.process:  # a data worker that was just forked
            return
        self.caught.append(number)
        presses = self.caught.count(signal.SIGINT) if number == signal.SIGINT else 0
        if presses > 2 and not self.saved:
            raise KeyboardInterrupt
        if not self.ending and (self.at_once or presses == 2):
            raise Interrupted("interrupted", 128 + number)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Handle the signals within the block, except SIGHUP under nohup, which ignores it.

        A rank that ends with an error records them to its end: torchrun terminates the ranks as soon as one dies, and must not
        end this one before its last line is written.
        """
        if threading.current_thread() is not threading.main_thread():  # Python handles signals in the main thread only
            yield
            return
        # SIGINT is ignored in a shell script's background jobs, where `kill -INT` should still work.
        ignored = [number for number in ENDING[2:] if signal.getsignal(number) is signal.SIG_IGN]
        numbers = [number for number in ENDING if number not in ignored]
        previous = {number: signal.signal(number, self._note) for number in numbers}
        try:
            yield
        finally:
            if not (self.ending and distributed.world() > 1):
                for number, handler in previous.items():
                    signal.signal(number, handler)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """A block that signals may interrupt at any point, such as a validation."""
        self.at_once = True
        try:
            if self.caught:
                raise Interrupted("interrupted", self.code)
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
    first_line = text.partition("\n")[0][:120]
    if is_out_of_memory(error):
        return "out of memory: lower train.batch_size or data.patch, or raise train.accumulate", 1
    if is_gpu_failure(error):
        return f"the GPU failed ({first_line})", 1
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        return "a data worker was killed (usually because memory or /dev/shm ran out: lower data.workers)", 1
    if distributed.world() > 1 and _is_lost_connection(error):
        return f"the other processes of this run cannot be reached ({first_line or 'ended'})", 1
    return None


def is_gpu_failure(error: BaseException) -> bool:
    """Whether a GPU or its driver reported an error, after which it may do nothing more for this process."""
    return isinstance(error, torch.AcceleratorError) or (
        isinstance(error, RuntimeError) and str(error).startswith(("CUDA error", "cuDNN error", "HIP error"))
    )


def _is_lost_connection(error: BaseException) -> bool:
    """Whether a collective operation failed because another rank has ended. Gloo raises plain RuntimeErrors."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and bool(LOST.search(str(error))))
