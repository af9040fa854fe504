"""The one exception that speaks to the user.

It stands at the root because every layer raises it and none may import upwards.
"""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: a file, folder, key, value or clip that cannot be used.

    The message is ONE line and says what was wrong, where (file, key, clip, frame), what was expected and what to do.
    The scripts print it without a traceback and leave with exit code 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
