"""Progress bar."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

HEARTBEAT = 10.0  # seconds between refreshes of the progress bar


@contextmanager
def progress_bar(total: int, ready: int, quiet: bool) -> Iterator[Any]:
    """A progress bar of frames. A thread refreshes it, so the elapsed time advances during a large frame."""
    over = threading.Event()
    with tqdm(total=total, initial=ready, unit="frame", disable=quiet, dynamic_ncols=True, smoothing=0.05) as bar:

        def beat() -> None:
            while not over.wait(HEARTBEAT):
                bar.refresh()

        thread = threading.Thread(target=beat, name="progress", daemon=True)
        if not quiet:
            thread.start()
        try:
            yield bar
        finally:
            over.set()
            if thread.is_alive():
                thread.join()


def show_tile(bar: Any, done: int, tiles_of_frame: int) -> None:
    """Show the number of finished tiles of the current frame after the bar."""
    bar.set_postfix_str(f"tile {done} of {tiles_of_frame}", refresh=True)
