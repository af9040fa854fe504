"""Shared by all command-line programs: arguments, one-line errors with exit code 2, allocator settings."""

from __future__ import annotations

import argparse
import ctypes
import difflib
import errno
import io
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn, TextIO

from errors import InputError, Interruption, one_line
from settings import nearest

# glibc returns large blocks to the kernel after every operation; the page faults then cost more than the arithmetic.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3

NTSC = (24, 30, 48, 60, 120)  # frames per second, nominally; exactly 1000/1001 of that
TORCHRUN_WAITS = 60  # seconds; torchrun lets the other ranks run for up to 30 s after the first failure


def run(main: Callable[[], int | None]) -> None:
    """Run a script's `main` with the allocator tuned and exit with its code."""
    tune_allocator()
    code = exit_code(main)
    end_at_signals()
    sys.exit(code)


def exit_code(main: Callable[[], int | None], interrupted: str = "interrupted") -> int:
    """Exit code of `main`: bad input is printed as one line and gives 2, a signal prints `interrupted` and gives 128 and its number
    (Ctrl-C: 130)."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115 -- closed by the caller (`>&-`)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a Windows code page lacks some of the characters in tables
            stream.reconfigure(errors="replace")
    try:
        return main() or 0
    except InputError as error:
        complain(f"error: {error}")
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as stop:
        end_at_signals()
        complain(str(stop) or interrupted)
        return stop.code if isinstance(stop, Interruption) else 130
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EDQUOT):
            raise
        complain(f"error: cannot write '{error.filename or ''}': {error.strerror}: free space or choose another folder")
        return 2


def end_at_signals() -> None:
    """From now on Ctrl-C ends the process at once: while Python ends, it would print the traceback of some library."""
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.SIG_DFL)


class LastingStream:
    """A stream whose errors (a closed pipe, a full disk) do not end the program: later output is discarded."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError:
            self._discard()

    def _discard(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def keep_working_without_output() -> None:
    """Long work goes on when its output can no longer be written, as in `main.py | head` or with a log on a full disk."""
    sys.stdout, sys.stderr = LastingStream(sys.stdout), LastingStream(sys.stderr)


def frame_rate(text: str) -> Fraction:
    """A number or a ratio such as 24000/1001. Short names of NTSC rates mean the exact ones: 23.976, 29.97, 59.94.

    Raises ValueError or ZeroDivisionError for other text.
    """
    rate = Fraction(text)
    exact = (Fraction(nominal * 1000, 1001) for nominal in NTSC)
    return next((name for name in exact if abs(name - rate) < Fraction(5, 1000)), rate)


def complain(line: str, *, cause: bool = True) -> None:
    """Print one line to stderr, with control characters of file names escaped. Under torchrun only rank 0 prints. Every rank
    passes its line to torchrun, whose report ends with the line of the earliest failure.

    cause: False for a rank that stopped only because another rank failed.
    """
    line = one_line(line)
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr, flush=True)
    place = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if place:
        # Earlier than the true time, so that the report ends with a cause, or else with the line of a rank that saved the state,
        # and not with a rank that was killed and left no line.
        seconds = int(time.time()) - TORCHRUN_WAITS * (2 if cause else 1)
        extra = {"py_callstack": line, "timestamp": str(seconds)}
        with suppress(OSError):
            Path(place).write_text(json.dumps({"message": {"message": line, "extraInfo": extra}}), encoding="utf-8")


def tune_allocator() -> None:
    """Keep freed memory in the process and back large blocks by huge pages (Linux with glibc only)."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_THRESHOLD, 2_000_000_000)
    mallopt(M_TRIM_THRESHOLD, 2_000_000_000)
    mallopt(M_TOP_PAD, 200_000_000)


def program() -> str:
    """The command that started this process, as it can be typed again: `python -m engine.distill`, `python benchmarks/dcn.py`."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec:
        return f"python -m {spec.name.removesuffix('.__main__')}"
    folder, file = Path.cwd(), Path(sys.argv[0]).absolute()
    return f"python {file.relative_to(folder) if file.is_relative_to(folder) else file}"


class Parser(argparse.ArgumentParser):
    """Reports wrong usage in one line, with the nearest option, instead of the usage of all options. Options are not abbreviated."""

    def __init__(self, **settings: Any) -> None:
        how: Any = {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(prog=program(), **how, **settings)

    def error(self, message: str) -> NoReturn:
        unknown = re.fullmatch(r"unrecognized arguments: .*?(--[^\s=]+).*", message, re.DOTALL)
        if unknown:
            options = [option for option in self._option_string_actions if option.startswith("--")]
            close = difflib.get_close_matches(unknown[1], options, n=1)
            message = f"unknown option '{unknown[1]}'" + (f": did you mean '{close[0]}'?" if close else "")
        complain(f"error: {message} ({self.prog} --help lists the options)")
        self.exit(2)


def parser(description: str, example: str) -> Parser:
    """An argument parser whose --help ends with an example, and which takes `key.sub=value` overrides."""
    result = Parser(description=description, epilog=f"example:\n{example}")
    result.add_argument("overrides", nargs="*", metavar="key.sub=value", help="set any key of the config")
    return result


def filled(text: str) -> str:
    """Parse a text that may not be empty: an option with a variable that is not set must not mean the default."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def path(text: str) -> Path:
    """Parse a file name, which may not be empty."""
    return Path(filled(text))


def weights(text: str) -> Path:
    """Parse the name of a weights file, or of released weights such as mtdo_s. Files come first."""
    given = path(text)
    if given.suffix or given.name != text or given.exists():
        return given
    from data.files import released_weights  # importing it takes PyTorch along: only for names that are no files

    files = released_weights()
    if text not in files:
        raise argparse.ArgumentTypeError(f"'{text}' is neither a file nor released weights{nearest(text, files)}")
    return files[text]


def spacing(text: str) -> int | str:
    """Parse the value of an option for `data.spacing`."""
    if text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}': expected an integer from 1, or auto")
    return int(text)


def file_names(text: str) -> list[str]:
    """Parse FILE,FILE,... or none."""
    return [] if text == "none" else text.split(",")


def parse(arguments: argparse.ArgumentParser, argv: list[str] | None = None) -> argparse.Namespace:
    """Options and overrides in any order (`main.py a=1 --config FILE b=2`)."""
    return arguments.parse_intermixed_args(argv)
