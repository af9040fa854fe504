"""Exceptions of all layers. They are in the root folder because no layer imports from a higher one."""

from __future__ import annotations

import re


class InputError(ValueError):
    """Bad input: a file, folder, key, value or clip that cannot be used.

    The message is one line: the problem, its place (file, key, clip, frame), the expected input, and the remedy. Scripts
    print it without a traceback and exit with code 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class Interruption(KeyboardInterrupt):
    """A signal ended the program. The message is one line, empty for "interrupted"; `code` is the exit code."""

    def __init__(self, message: str, code: int = 130) -> None:
        super().__init__(" ".join(message.split()))
        self.code = code


def one_line(text: str) -> str:
    """A text that may have file names in it, with their control characters escaped (a line feed becomes \\n)."""
    return re.sub(r"[\x00-\x1f\x7f]", lambda match: repr(match[0])[1:-1], text)


def shorten(text: str) -> str:
    """A text for a message, cut off after 80 characters."""
    return text if len(text) <= 80 else f"{text[:77]}..."
