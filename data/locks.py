"""Write locks: one process writes a file or folder at a time."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

from data.files import hidden_path
from errors import InputError

try:
    import fcntl
except ImportError:  # Windows: the holder's process number decides
    fcntl = None  # type: ignore[assignment]

WINDOWS = os.name == "nt"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # a file system without locks

_held: set[Path] = set()  # POSIX locks do not exclude a second holder in the same process


@contextmanager
def lock(path: str | Path) -> Iterator[None]:
    """Hold an exclusive write lock on `path`, a file or a folder that may not exist yet, until the block ends.

    The lock is the file `.NAME.lock` next to it, locked by the operating system, which releases it when the holder is killed
    or loses power. Raises InputError that names the holder (process, host, start time), or if no lock can be created.
    """
    path = Path(path).resolve()
    place = hidden_path(path, "lock")
    if place in _held:
        raise InputError(f"'{path}' is being written by this process already: wait for it or name another output")
    handle = _take(place, path)
    _held.add(place)
    try:
        yield
    finally:
        _held.discard(place)
        with suppress(OSError):
            place.unlink()  # removed while locked: no other process can hold it
        os.close(handle)
        if WINDOWS:  # which does not remove an open file
            with suppress(OSError):
                place.unlink()


def _take(place: Path, path: Path) -> int:
    """Lock the file and write this process into it."""
    while True:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            handle = os.open(place, flags, 0o644)
        except OSError as error:
            reason = "it is a link" if error.errno == errno.ELOOP else error.strerror
            raise InputError(f"'{place}': cannot be created ({reason}); choose another output folder") from None
        try:
            _check_lock_file(handle, place)
            holder = _holder(handle)
            if not _lock(handle, holder):
                who = (
                    f"process {holder['pid']} on {holder['host']} since {holder['since']}"
                    if holder
                    else "another process"
                )
                raise InputError(f"'{path}' is being written by {who}: wait for it, end it, or name another output")
            if _same_file(handle, place):
                _sign(handle)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the holder has just removed it


def _check_lock_file(handle: int, place: Path) -> None:
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise InputError(f"'{place}' is not a lock file of this program: move it away")
    content = os.pread(handle, 4096, 0) if hasattr(os, "pread") else b""
    if content.strip(b"\0 \n") and not content.startswith(b'{"mtdo-stno lock"'):
        raise InputError(f"'{place}' is not a lock file of this program: move it away")


def _holder(handle: int) -> dict[str, Any] | None:
    """The holder written in the lock file; None if it is empty."""
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        holder = json.loads(os.read(handle, 4096).decode())
        return {key: holder[key] for key in ("pid", "host", "since")}
    except (ValueError, KeyError, TypeError):
        return None


def _lock(handle: int, holder: Mapping[str, Any] | None) -> bool:
    """Lock the file for this process (not for its children). Without file locks, the lock is held while its holder is running."""
    if fcntl is not None:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in NO_LOCKS:
                return False
    return not (holder and holder["host"] == socket.gethostname() and _alive(holder["pid"]))


def _alive(pid: Any) -> bool:
    """Whether another process has this number. (`os.kill` with signal 0 would send Ctrl-C on Windows.)"""
    try:
        return int(pid) != os.getpid() and psutil.pid_exists(int(pid))
    except (ValueError, TypeError, OverflowError):
        return True


def _same_file(handle: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(place))
    except FileNotFoundError:
        return False


def _sign(handle: int) -> None:
    since = datetime.now(timezone.utc).astimezone().isoformat(timespec="seconds")
    content = {"mtdo-stno lock": 1, "pid": os.getpid(), "host": socket.gethostname(), "since": since}
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, json.dumps(content).encode())
