"""Interruption by signals."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from errors import Interruption


@contextmanager
def patient_exit() -> Iterator[None]:
    """Handle SIGTERM and SIGHUP (a closed terminal; not under nohup) like Ctrl-C: finish or remove files, then end the program.

    Raises `Interruption` in the block. SIGINT is handled too where it is ignored (background jobs of a shell script).
    """

    def interrupt(number: int, _frame: Any) -> None:
        raise Interruption("", 128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN or number == signal.SIGINT:
                signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
