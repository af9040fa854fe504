"""Write locks: one writer at a time, locks of dead processes, and files that are not locks."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from data.locks import lock
from errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def hold_in_another_process(path: Path, first: str = "pass") -> subprocess.Popen:
    """Start another Python process that holds the lock until its input is closed; return once it does.

    first: a statement that it runs with the lock held.
    """
    code = f"import sys, os; sys.path.insert(0, {str(ROOT)!r})\nfrom data.locks import lock\n"
    code += f"with lock({str(path)!r}):\n    {first}\n    print('held', flush=True)\n    sys.stdin.read()\n"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_second_process_gets_the_holder_of_the_lock(tmp_path: Path):
    holder = hold_in_another_process(tmp_path / "run")
    try:
        with (
            pytest.raises(InputError, match=f"process {holder.pid} on {re.escape(socket.gethostname())} since"),
            lock(tmp_path / "run"),
        ):
            pass
        with lock(tmp_path / "other"):
            pass
    finally:
        holder.kill()
        holder.wait()
    with lock(tmp_path / "run"):  # the holder is dead, so its lock is free
        assert (tmp_path / ".run.lock").is_file()
    assert list(tmp_path.iterdir()) == []


def test_child_processes_do_not_keep_the_lock_of_a_dead_holder(tmp_path: Path):
    holder = hold_in_another_process(tmp_path / "run", "os.fork() or (sys.stdin.read(), os._exit(0))")
    holder.kill()
    holder.wait()
    with lock(tmp_path / "run"):  # the child still waits for the end of its input
        pass
    holder.communicate()


def test_lock_is_held_once_for_all_names_of_a_path(tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with lock(tmp_path / "run"):
        with pytest.raises(InputError, match="by this process"), lock(tmp_path / "x" / ".." / "run"):
            pass
        with pytest.raises(InputError, match="by this process"), lock(tmp_path / "link"):
            pass


def test_locks_without_file_system_support(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("data.locks.fcntl", None)
    place = tmp_path / ".run.lock"
    holder = hold_in_another_process(tmp_path / "other")
    signed = {"mtdo-stno lock": 1, "pid": holder.pid, "host": socket.gethostname(), "since": "today"}
    place.write_text(json.dumps(signed))
    with pytest.raises(InputError, match=f"process {holder.pid} on"), lock(tmp_path / "run"):
        pass
    holder.communicate()
    place.write_text(json.dumps(signed | {"pid": 2**22 + 1}))  # above all numbers of processes
    with lock(tmp_path / "run"):
        assert json.loads(place.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("kind", ["link", "fifo", "text", "folder"])
def test_files_that_are_not_locks_are_unchanged(tmp_path: Path, kind: str):
    place, precious = tmp_path / ".run.lock", tmp_path / "precious.txt"
    precious.write_text("mine")
    make = {
        "link": lambda: place.symlink_to(precious),
        "fifo": lambda: os.mkfifo(place),
        "text": lambda: place.write_text("mine"),
        "folder": place.mkdir,
    }
    make[kind]()
    with pytest.raises(InputError, match=r"\.run\.lock"), lock(tmp_path / "run"):
        pass
    assert os.path.lexists(place) and precious.read_text() == "mine"
