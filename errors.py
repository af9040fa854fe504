"""The exception for bad input. It is in the root folder because every layer raises it and no layer imports from a higher one."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: a file, folder, key, value or clip that cannot be used.

    The message is one line: the problem, its place (file, key, clip, frame), the expected input, and the remedy. Scripts
    print it without a traceback and exit with code 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def shorten(text: str) -> str:
    """A text for a message, cut off after 80 characters."""
    return text if len(text) <= 80 else f"{text[:77]}..."
