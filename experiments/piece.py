"""Train one piece of a long run: python experiments/piece.py --config C --minutes 8 --out OUT [key.sub=value ...].

Starts the config's run, or resumes it if its folder runs/NAME contains a state. MINUTES after the start of this script the state is
saved as on Ctrl-C, and the files for the next piece are copied to OUT: the state, the log and, at the end of the run, the weights
and the report. To continue on another machine, copy the content of OUT to runs/NAME. The result is bit-identical to an uninterrupted
run (on a GPU with train.deterministic=true).

PyAV and imagecodecs may be missing where the data need neither (WebP and JPEG pictures, as experiments/pack.py writes).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
import threading
import time
import types
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import cli
from errors import InputError

START = time.monotonic()
OPTIONAL = ("av", "imagecodecs")  # packages that only videos, PNG and TIFF need
KEPT = ("last.safetensors", "log.jsonl", "weights.safetensors", "report.json", "report.md")
EXAMPLE = """  python experiments/piece.py --config experiments/configs/mtdo_s_gpu.yaml --minutes 8 --out OUT
  cp OUT/* runs/mtdo_s_gpu/     # on another machine, then the same command"""


class Missing(types.ModuleType):
    """A package that is not installed: it can be imported, and any use of it is an error of one line."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Missing(f"{self.__name__}.{name}")

    def __call__(self, *_: Any, **__: Any) -> Any:
        package = self.__name__.split(".")[0]
        raise InputError(
            f"{self.__name__} is needed, but the package '{package}' is not installed: pip install {package}"
        )


def allow_missing() -> None:
    """Let the repository be imported without the packages of `OPTIONAL`."""
    for package in OPTIONAL:
        if importlib.util.find_spec(package) is None:
            sys.modules[package] = Missing(package)
    if isinstance(sys.modules.get("av"), Missing):
        sys.modules["av.filter"] = Missing("av.filter")


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """Send this process a SIGTERM after `seconds`: the training loop saves its state and ends."""

    def too_early(*_: Any) -> None:
        raise InputError("the time limit was reached before training began: raise --minutes")

    timer = threading.Timer(max(seconds, 1.0), os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    before = signal.signal(signal.SIGTERM, too_early)  # the loop has its own handler
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)


def train(options: Namespace) -> tuple[Path, bool]:
    """Run the piece; returns the run's folder and whether the run is finished."""
    from engine.config import load_config
    from engine.train import runs
    from engine.train.states import states_in

    config = load_config(options.config, options.overrides)
    folder = Path(config.runs) / config.name
    resume = str(folder) if folder.is_dir() and states_in(folder) else None
    if resume is None and folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"'{folder}' contains no state to resume from: remove it, or set another name")
    with stopped_after(60 * options.minutes - (time.monotonic() - START)):
        try:
            runs.train_and_report(options.config, options.overrides, resume)
        except runs.Interrupted as stop:
            if stop.code != 128 + signal.SIGTERM:
                raise InputError(str(stop)) from None
            print(stop)
            return folder, False
    return folder, True


def main() -> None:
    allow_missing()
    arguments = cli.parser("Train one piece of a long run.", EXAMPLE)
    arguments.add_argument("--config", required=True, help="experiment file")
    arguments.add_argument("--minutes", type=float, required=True, help="time after which the state is saved")
    arguments.add_argument("--out", type=Path, help="folder for the files that the next piece needs")
    options = cli.parse(arguments)
    if not options.minutes > 0:
        raise InputError(f"--minutes {options.minutes:g}: expected more than 0")
    folder, finished = train(options)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            if (folder / name).is_file() and options.out.resolve() != folder.resolve():
                shutil.copy(folder / name, options.out / name)
    print(f"{folder}: {'finished' if finished else 'to be continued'} after {time.monotonic() - START:.0f} s")


if __name__ == "__main__":
    cli.run(main)
