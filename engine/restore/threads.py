"""Threads that read and write files while the network computes.

Decoders and encoders release Python's global interpreter lock, as the network does. Both helpers buffer at most `depth`
items, raise exceptions of their thread in the caller, and end their thread when they are closed.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import torch

T = TypeVar("T")
DEPTH = 4  # items computed ahead, or waiting to be written
END = object()


def read_ahead(items: Iterable[T], depth: int = DEPTH) -> Iterator[T]:
    """Yield the same items in the same order; a thread computes up to `depth` of them ahead."""
    line: queue.Queue = queue.Queue(depth)
    closing = threading.Event()

    # A blocking put would never return after the consumer has stopped: check `closing` at intervals.
    def put(item: object) -> bool:
        while not closing.is_set():
            try:
                line.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((END, None))
        except BaseException as error:
            put((END, error))

    thread = threading.Thread(target=work, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = line.get()
            if error is not None:
                raise error
            if item is END:
                return
            yield item
    finally:
        closing.set()
        thread.join()


class WriteBehind(Generic[T]):
    """Calls `write(item)` in a thread, in order. `with WriteBehind(write) as out: out.put(item)`.

    An error of the thread is raised by the next `put` or at the end of the block; items after it are dropped. If the
    block fails, earlier items are still written, so finished frames are not lost.

    The thread uses one core and leaves the others to the network. PyTorch stores the number of threads per thread, but
    the first read in a thread or operator library returns the number that any thread set last. So the caller's number is
    set again after the thread has started.
    """

    def __init__(self, write: Callable[[T], None], depth: int = DEPTH) -> None:
        self._write, self._line = write, queue.Queue(depth)  # type: tuple[Callable[[T], None], queue.Queue]
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="write-behind", daemon=True)
        threads, self._begun = torch.get_num_threads(), threading.Event()
        self._thread.start()
        self._begun.wait()
        torch.set_num_threads(threads)

    def _work(self) -> None:
        torch.set_num_threads(1)
        self._begun.set()
        while (item := self._line.get()) is not END:
            if self._error is None:
                try:
                    self._write(item)
                except BaseException as error:
                    self._error = error

    def put(self, item: T) -> None:
        """Queue an item; blocks while `depth` items are unwritten."""
        self._raise()
        self._line.put(item)

    def close(self) -> None:
        """Wait until everything is written."""
        self._line.put(END)
        self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, RuntimeError("the writer has already failed")
            raise error

    def __enter__(self) -> WriteBehind[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        if kind is None:
            self._raise()
