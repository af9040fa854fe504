"""All measurements that need a GPU, unattended in at most five minutes: python benchmarks/gpu.py [--out FOLDER] [--budget 300].

The steps (gpu_steps.py and gpu_training.py) run in the order of their importance. Each is guarded: an error or a step that takes too
long is recorded with the rows it has measured, and the next one runs. `gpu.json` and `gpu.md` are written after every step, so an
interruption loses nothing. An error of the GPU would make every later step fail, so the work continues in a new process. A step that
may exceed the remaining budget is skipped; --continue with a larger budget runs it. Exit code 0: every step ran and found nothing
wrong; 1: otherwise.

    python benchmarks/gpu.py --device cpu --quick     a dry run with tiny sizes, in seconds, without a GPU
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

import cli
from benchmarks.gpu_context import Context
from benchmarks.gpu_steps import STEPS, Step
from data.files import replacing
from engine.train.stops import is_gpu_failure
from errors import InputError

TOO_LONG = 3  # times its expected duration: a step is stopped, so that it does not use the budget of the others


class Report:
    """The results so far, on disk after every step."""

    def __init__(self, folder: Path, go_on: bool) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.content: dict[str, Any] = {"steps": {}}
        if go_on:
            self.content = json.loads((folder / "gpu.json").read_text(encoding="utf-8"))

    def elapsed(self) -> float:
        """Seconds of all steps; the time between two runs does not count."""
        return sum(entry["seconds"] for entry in self.content["steps"].values())

    def has(self, step: Step) -> bool:
        return self.content["steps"].get(step.name, {"status": "skipped"})["status"] != "skipped"

    def add(self, step: Step, status: str, seconds: float, **result: Any) -> None:
        self.content["steps"][step.name] = {"status": status, "seconds": round(seconds, 1), **result}
        with replacing(self.folder / "gpu.json") as temporary:
            temporary.write_text(json.dumps(self.content, indent=1), encoding="utf-8")
        with replacing(self.folder / "gpu.md") as temporary:
            temporary.write_text(markdown(self.content), encoding="utf-8")

    @property
    def fine(self) -> bool:
        return all(entry["status"] == "done" and not entry.get("wrong") for entry in self.content["steps"].values())


def markdown(content: dict[str, Any]) -> str:
    """A section with a table for each step."""
    lines = ["# GPU report", ""]
    for name, entry in content["steps"].items():
        lines += [f"## {name}: {entry['status']}, {entry['seconds']:.1f} s", ""]
        lines += [
            f"- {text}" for text in (entry.get("error"), *entry.get("wrong", []), *entry.get("notes", [])) if text
        ]
        rows = entry.get("rows", [])
        if rows:
            columns = list(dict.fromkeys(column for row in rows for column in row))
            lines += ["", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
            lines += [f"| {' | '.join(shown(row.get(column)) for column in columns)} |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after that time (main thread, Unix)."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(_number: int, _frame: Any) -> None:
        raise TimeoutError(f"stopped after {seconds:.0f} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def run_step(step: Step, context: Context, report: Report, left: float) -> bool:
    """Run and record one step; False: the GPU does nothing more for this process."""
    start = time.monotonic()
    context.rows = []
    try:
        with limited(left):
            result = step.run(context)
        context.clean()  # it meets errors of the step's last kernels
    except Exception as error:
        line = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        kept = {"error": line, "rows": context.rows, "traceback": traceback.format_exc()}
        report.add(step, "failed", time.monotonic() - start, **kept)
        print(f"{step.name}: failed: {line}", flush=True)
        return not is_gpu_failure(error) and cleaned(context)
    report.add(step, "done", time.monotonic() - start, **result)
    for line in (*result.get("wrong", []), *result.get("notes", [])):
        print(f"{step.name}: {line}", flush=True)
    print(f"{step.name}: done in {time.monotonic() - start:.1f} s", flush=True)
    return True


def cleaned(context: Context) -> bool:
    """Clean up after an error; False: the GPU has failed."""
    try:
        context.clean()
    except RuntimeError:
        return False
    return True


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--budget", type=float, default=300.0, help="seconds in all")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, no compilation: a dry run of the script")
    parser.add_argument("--only", nargs="+", metavar="STEP", choices=[step.name for step in STEPS])
    parser.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="keep the recorded steps and run the others and the skipped",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("no CUDA device is usable here: --device cpu --quick tries the script without one")
    report, context = Report(options.out, options.go_on), Context(device, options.quick)
    for step in STEPS:
        if report.has(step) or (options.only and step.name not in options.only):
            continue
        left = options.budget - report.elapsed()
        needed = step.seconds_quick if options.quick else step.seconds
        if left < needed:
            report.add(step, "skipped", 0, error=f"{left:.0f} s are left of the budget, it needs about {needed:.0f} s")
            continue
        limit = left if options.quick else min(left, TOO_LONG * needed)
        if not run_step(step, context, report, limit):
            again = [*sys.argv, "--continue"] if "--continue" not in sys.argv else sys.argv
            os.execv(sys.executable, [sys.executable, *again])
    print(f"results: {options.out / 'gpu.md'} and gpu.json, {report.elapsed():.0f} s", flush=True)
    return 0 if report.fine else 1


if __name__ == "__main__":
    cli.run(main)
