"""Random faults during training: `python -m tests.fuzz.faults --times 5`.

A tiny run is interrupted by a fault at a random step and resumed; its last state must equal that of an uninterrupted run, bit
for bit. Prints the number of tries of each fault, of lost steps and of different results.
"""

from __future__ import annotations

import argparse
import errno
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml

import cli
import engine.train.runs  # noqa: F401 -- imported before the forks
import main
from data.media import write_image
from engine.checkpoint import load_tensors
from tests.engine.conftest import tiny_mapping

ROOT = Path(__file__).parents[2]
STEPS, SAVE_EVERY = 40, 5
RANKS = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(ROOT / "main.py")]
DISK = 4 * 2**20  # bytes of the file system of a run whose disk fills up


class Run:
    """A run in a process group of its own: forked from this process, which has imported everything already, or by torchrun."""

    def __init__(self, torchrun: bool, folder: Path, *words: str) -> None:
        self.folder, self.place = folder, folder.parent.parent
        self.output = self.place / f"{folder.name}.txt"
        with self.output.open("w") as output:
            if torchrun:
                environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
                self.process: Any = subprocess.Popen(
                    [*RANKS, *words], cwd=self.place, env=environment, start_new_session=True,
                    stdout=output, stderr=subprocess.STDOUT,
                )  # fmt: skip
            else:
                self.process = multiprocessing.get_context("fork").Process(
                    target=self._main, args=(output.fileno(), words)
                )
                self.process.start()

    def _main(self, output: int, words: tuple[str, ...]) -> None:
        os.setsid()
        os.chdir(self.place)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = ["main.py", *words]
        cli.run(main.main)

    @property
    def code(self) -> int | None:
        """Exit code, None while running."""
        return self.process.poll() if isinstance(self.process, subprocess.Popen) else self.process.exitcode

    @property
    def running(self) -> bool:
        return self.code is None

    def wait_for(self, lines: int) -> None:
        log = self.folder / "log.jsonl"
        while self.running and not (log.is_file() and log.read_bytes().count(b"\n") >= lines):
            time.sleep(0.01)

    def processes(self, pattern: str) -> list[int]:
        """Processes of this run whose name or environment matches, the oldest first."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                text = "\0".join((process / part).read_bytes().decode(errors="replace") for part in ("comm", "environ"))
                if re.search(pattern, text) and (process / "cwd").readlink() == self.place.resolve():
                    found.append(int(process.name))
        return sorted(found)

    def end(self) -> str:
        """Wait for the end; returns the output."""
        self.process.wait() if isinstance(self.process, subprocess.Popen) else self.process.join()
        return self.output.read_text()


# --- faults -----------------------------------------------------------------------------------------------------------


def signal_group(number: int) -> Callable[[Run], None]:
    def act(run: Run) -> None:
        os.killpg(run.process.pid, number)

    return act


def kill_process(pattern: str) -> Callable[[Run], None]:
    def act(run: Run) -> None:
        os.kill(run.processes(pattern)[0], signal.SIGKILL)

    return act


def flip_bit(run: Run) -> None:
    """Kill the run, then change one bit of its newest state."""
    os.killpg(run.process.pid, signal.SIGKILL)
    run.end()
    newest = run.folder / "last.safetensors"
    content = bytearray(newest.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    newest.write_bytes(content)


def fill_disk(run: Run) -> None:
    """Fill the disk once, or again and again, so that deleting old states does not help."""
    again = random.random() < 0.5
    with (run.place / "runs" / "ballast").open("ab", buffering=0) as file:
        for size in (2**16, 2**8):
            _fill(file, size)
        while again and run.running:
            time.sleep(0.001)
            _fill(file, 2**12)


def _fill(file: Any, size: int) -> None:
    try:
        while True:
            file.write(bytes(size))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def cut_frame(run: Run) -> None:
    """Truncate every frame of a clip after copying it."""
    for path in sorted((run.place / "clips" / "a").glob("*.png")):
        path.with_suffix(".copy").write_bytes(path.read_bytes())
        path.write_bytes(path.read_bytes()[:200])


def repair(place: Path) -> None:
    """Undo the faults that a user would repair before a resume."""
    for copy in place.glob("clips/*/*.copy"):
        copy.replace(copy.with_suffix(".png"))
    (place / "runs" / "ballast").unlink(missing_ok=True)


class Fault(NamedTuple):
    act: Callable[[Run], None]
    torchrun: bool = False
    saves: bool = True  # whether the run can save the state of the step at which it ends
    config: str = "tiny.yaml"
    states: int = 0  # states on disk before the fault
    disk: bool = False  # the run has a small file system of its own


FAULTS = {
    "SIGKILL to the process group": Fault(signal_group(signal.SIGKILL), saves=False),
    "SIGTERM to the process group, with workers": Fault(signal_group(signal.SIGTERM)),
    "Ctrl-C in the process group, with workers": Fault(signal_group(signal.SIGINT)),
    "a data worker killed": Fault(kill_process("^pt_data_worker")),
    "rank 1 of 2 killed under torchrun": Fault(kill_process("\0RANK=1\0"), torchrun=True),
    "rank 0 of 2 killed under torchrun": Fault(kill_process("\0RANK=0\0"), torchrun=True),
    "SIGKILL, then a flipped bit in the newest state": Fault(flip_bit, saves=False, states=2),
    "the disk full": Fault(fill_disk, saves=False, states=2, disk=True),
    "a clip's frames cut off": Fault(cut_frame, config="frames.yaml"),
}


def disturb(name: str, number: int, place: Path, undisturbed_run: Path) -> str:
    """One try; returns the failure, "" for none."""
    fault = FAULTS[name]
    folder = place / "runs" / f"{re.sub('[^a-z0-9]+', '_', name.lower())}_{number}"
    run = Run(fault.torchrun, folder, "--config", fault.config, f"name={folder.name}", "data.workers=2")
    run.wait_for(random.randint(max(6, SAVE_EVERY * fault.states + 1), STEPS - 15))
    with suppress(ProcessLookupError, IndexError):
        fault.act(run)
    said = run.end()
    repair(place)
    if run.code == 0:
        return "" if fault.disk and same(folder / "last.safetensors", undisturbed_run) else "it had ended before"
    if fault.saves and "saved at step" not in said:
        return f"nothing was saved: {last_line(said)}"
    if not (folder / "last.safetensors").is_file():
        return "no state" if fault.saves or fault.states else ""  # killed before the first was due
    again = Run(fault.torchrun, folder, "--resume", f"runs/{folder.name}", "data.workers=0")
    said = again.end()
    if again.code:
        return f"the resume failed: {last_line(said)}"
    left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    if left:
        return f"temporary files are left: {left}"
    return "" if same(folder / "last.safetensors", undisturbed_run) else "the last state differs"


def last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:160]


def same(first: Path, second: Path) -> bool:
    a, b = load_tensors(first)[0], load_tensors(second)[0]
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- configs and their undisturbed runs -------------------------------------------------------------------------------


def write_configs(place: Path) -> None:
    """tiny.yaml trains on simulated clips, frames.yaml on PNG files that are read again for every sample."""
    mapping = tiny_mapping(Path("runs"), steps=STEPS, save_every=SAVE_EVERY, log_every=1)
    (place / "tiny.yaml").write_text(yaml.safe_dump(mapping))
    numbers = np.random.default_rng(0)
    for clip in "ab":
        for frame in range(5):
            write_image(place / f"clips/{clip}/{frame:04d}.png", numbers.integers(0, 256, (48, 48, 3), dtype=np.uint8))
    mapping["data"] |= {"cache": "none", "train": {"root": "clips"}}
    (place / "frames.yaml").write_text(yaml.safe_dump(mapping))


def undisturbed(place: Path, torchrun: bool, config: str) -> Path:
    """The last state of a run without faults."""
    run = Run(torchrun, place / "runs" / "undisturbed", "--config", config, "name=undisturbed")
    said = run.end()
    assert run.code == 0, said
    state = place / f"undisturbed_{int(torchrun)}_{config}.safetensors"
    (run.folder / "last.safetensors").replace(state)
    for path in sorted(run.folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    run.folder.rmdir()
    return state


@contextmanager
def small_disk(place: Path) -> Iterator[bool]:
    """A file system of `DISK` bytes at PLACE/runs; False if this user may not mount one."""
    runs = place / "runs"
    runs.mkdir(exist_ok=True)
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(runs)], capture_output=True, check=False
    ).returncode
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(runs)], check=True)


def try_fault(name: str, times: int, place: Path, undisturbed_run: Path) -> None:
    """Try one fault and print the counts."""
    if not FAULTS[name].disk:
        problems = [disturb(name, number, place, undisturbed_run) for number in range(times)]
    else:
        problems = []
        for number in range(times):
            with small_disk(place) as mounted:
                if not mounted:
                    print(f"{name}: not tried, this user may not mount a file system", flush=True)
                    return
                problems.append(disturb(name, number, place, undisturbed_run))
    failed = [problem for problem in problems if problem]
    print(f"{name}: tried {times} times, lost {len(failed)}", *failed[:3], sep="; ", flush=True)


def try_all() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="faults whose name matches this pattern")
    options = parser.parse_args()
    undisturbed_run: dict[tuple[bool, str], Path] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_configs(place)
        for name, fault in FAULTS.items():
            if not re.search(options.only, name):
                continue
            random.seed(f"{name} {options.seed}")
            kind = (fault.torchrun, fault.config)
            if kind not in undisturbed_run:
                undisturbed_run[kind] = undisturbed(place, *kind)
            try_fault(name, options.times, place, undisturbed_run[kind])


if __name__ == "__main__":
    try_all()
