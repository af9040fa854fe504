"""Processes that fork from one that has imported PyTorch, which saves the seconds of a fresh start.

Signals, exit codes and output are those of a process of its own. `Script` runs a script of the repository; a few tests also start
scripts as users do.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import TCPStore

ROOT = Path(__file__).parents[1]
SECONDS = 900  # the first process on a slow machine builds the operators
if "forkserver" not in multiprocessing.get_all_start_methods():  # Windows
    pytest.skip("needs processes that fork", allow_module_level=True)
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["torch", "engine.upscale.run", "engine.train.run", "engine.evaluate.scripts"])


class Forked:
    """A function that runs in a forked process.

    A test that interrupts a process lets the process itself send the signal, at a moment of its work: seen from outside, the
    moment would depend on the speed of the machine.

    folder: its current directory. threads: number of threads of PyTorch. environment: variables that it sets.
    """

    def __init__(
        self,
        function: Callable[..., object],
        *arguments: object,
        folder: Path = ROOT,
        threads: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._output = tempfile.TemporaryDirectory()
        self._files = [Path(self._output.name) / name for name in ("stdout", "stderr")]
        settings = (folder, threads, dict(environment or {}), self._files)
        self.process = FORKED.Process(target=_enter, args=(settings, function, arguments))
        self.process.start()
        atexit.register(self.process.kill)  # of a test that failed: the end of Python waits for its children

    def result(self) -> subprocess.CompletedProcess[str]:
        """Wait for the end; a signal that ended the process gives a negative exit code."""
        self.process.join(SECONDS)
        if self.process.is_alive():
            self.process.kill()
            raise TimeoutError(f"still running after {SECONDS} s: {self._files[1].read_text()}")
        out, errors = (path.read_text() if path.is_file() else "" for path in self._files)
        return subprocess.CompletedProcess([], self.process.exitcode, out, errors)


class Script(Forked):
    """A script of the repository with arguments from the command line."""

    def __init__(self, name: str, *arguments: object, **more: Any) -> None:
        super().__init__(run_script, name, *map(str, arguments), **more)


def run_ranks(count: int, name: str, *arguments: object, **more: Any) -> list[subprocess.CompletedProcess[str]]:
    """Run a script in `count` processes with the variables that torchrun sets."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # like torchrun's, at a free port
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    shared["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    own = [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    ranks = [Script(name, *arguments, environment=variables, **more) for variables in own]
    return [rank.result() for rank in ranks]


def _enter(
    settings: tuple[Path, int, dict[str, str], list[Path]], function: Callable[..., object], arguments: tuple
) -> None:
    folder, threads, environment, files = settings
    for stream, path in zip((1, 2), files, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    os.chdir(folder)
    os.environ |= environment
    torch.set_num_threads(threads)
    function(*arguments)


def run_script(name: str, *arguments: str) -> None:
    """Run a script of the repository in this process."""
    sys.argv = [str(ROOT / name), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")
