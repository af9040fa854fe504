"""Random faults during training: `python -m tests.fuzz.faults --times 5`.

A tiny run is interrupted by a fault at a random step and resumed; its last state must equal that of an uninterrupted run, bit
for bit. Prints the number of tries of each fault, of lost steps and of different results.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
import yaml

from engine.checkpoint import load_tensors
from tests.engine.conftest import tiny_mapping

ROOT = Path(__file__).parents[2]
STEPS = 60
PLAIN = [sys.executable, str(ROOT / "main.py")]
RANKS = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(ROOT / "main.py")]


class Run:
    """A run in a separate process group."""

    def __init__(self, command: list[str], folder: Path, *words: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.folder = folder
        self.process = subprocess.Popen(
            [*command, *words], cwd=folder.parent.parent, env=environment, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def wait_for(self, lines: int) -> None:
        log = self.folder / "log.jsonl"
        while self.process.poll() is None and not (log.is_file() and log.read_bytes().count(b"\n") >= lines):
            time.sleep(0.01)

    def children(self, pattern: str) -> list[int]:
        """Processes of this run's group whose command, name or environment matches."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                text = "\n".join((place / part).read_bytes().decode(errors="replace") for part in ("comm", "environ"))
                same = os.getpgid(int(place.name)) == self.process.pid or pattern.startswith("RANK")
                if (
                    same
                    and re.search(pattern, text)
                    and str(self.folder.parent.parent) in str((place / "cwd").readlink())
                ):
                    found.append(int(place.name))
            except OSError:
                continue
        return sorted(found)

    def end(self) -> str:
        return self.process.communicate(timeout=300)[0]


def kill(run: Run) -> None:
    os.killpg(run.process.pid, signal.SIGKILL)


def terminate_group(run: Run) -> None:
    os.killpg(run.process.pid, signal.SIGTERM)


def interrupt_group(run: Run) -> None:
    os.killpg(run.process.pid, signal.SIGINT)


def kill_worker(run: Run) -> None:
    for worker in run.children("^pt_data_worker")[:1]:
        os.kill(worker, signal.SIGKILL)


def kill_rank(number: int) -> Callable[[Run], None]:
    def kill_it(run: Run) -> None:
        for rank in run.children(f"RANK={number}\x00")[:1]:
            os.kill(rank, signal.SIGKILL)

    return kill_it


def flip_bit(run: Run) -> None:
    """Kill the run, then damage its newest state."""
    kill(run)
    run.process.wait()
    newest = run.folder / "last.safetensors"
    if newest.is_file():
        content = bytearray(newest.read_bytes())
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
        newest.write_bytes(content)


FAULTS: dict[str, tuple[list[str], Callable[[Run], None], bool]] = {  # start, fault, whether the run can save its state
    "SIGKILL to the process group": (PLAIN, kill, False),
    "SIGTERM to the process group, with workers": (PLAIN, terminate_group, True),
    "Ctrl-C in the process group, with workers": (PLAIN, interrupt_group, True),
    "a data worker killed": (PLAIN, kill_worker, True),
    "rank 1 of 2 killed under torchrun": (RANKS, kill_rank(1), True),
    "rank 0 of 2 killed under torchrun": (RANKS, kill_rank(0), True),
    "SIGKILL, then a flipped bit in the newest state": (PLAIN, flip_bit, False),
}


def same(first: Path, second: Path) -> bool:
    a, b = load_tensors(first)[0], load_tensors(second)[0]
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def disturb(name: str, number: int, config: Path, whole: Path) -> str:
    """One try. Returns the reason of a failure, else an empty string."""
    command, act, saves = FAULTS[name]
    folder = config.parent / "runs" / f"{re.sub('[^a-z0-9]+', '_', name.lower())}_{number}"
    run = Run(command, folder, "--config", config.name, f"name={folder.name}", "data.workers=2")
    run.wait_for(random.randint(8, STEPS - 20))
    with suppress(ProcessLookupError):
        act(run)
    said = run.end()
    if run.process.returncode == 0:
        return "it had ended before"
    if saves and "saved at step" not in said:
        return f"nothing was saved: {said.strip().splitlines()[-1][:120]}"
    if not (folder / "last.safetensors").is_file():
        return "" if not saves else "no state"  # killed before the first was due
    again = Run(command, folder, "--resume", f"runs/{folder.name}", "data.workers=0")
    said = again.end()
    if again.process.returncode:
        return f"the resume failed: {said.strip().splitlines()[-1][:120]}"
    left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    if left:
        return f"temporary files are left: {left}"
    return "" if same(folder / "last.safetensors", whole) else "the end is another one"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="faults whose name matches this pattern")
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as place:
        config = Path(place) / "tiny.yaml"
        config.write_text(yaml.safe_dump(tiny_mapping(Path("runs"), steps=STEPS, save_every=5, log_every=1)))
        whole = {}
        for command, name in ((PLAIN, "whole"), (RANKS, "whole_ranks")):
            run = Run(command, Path(place) / "runs" / name, "--config", config.name, f"name={name}")
            assert "weights:" in run.end(), "the undisturbed run failed"
            whole[command[1]] = run.folder / "last.safetensors"
        for name, (command, _, _) in FAULTS.items():
            if not re.search(options.only, name):
                continue
            problems = [disturb(name, number, config, whole[command[1]]) for number in range(options.times)]
            failed = [problem for problem in problems if problem]
            print(f"{name}: tried {options.times} times, lost {len(failed)}", *failed[:3], sep="; ", flush=True)


if __name__ == "__main__":
    main()
