"""Runs: their output folders, the resume option, and the summary at the end."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatchcase
from itertools import count
from pathlib import Path
from typing import Any

import dcn
from data.files import check_apart, in_repository
from data.locks import lock
from data.naming import LONGEST_NAME
from engine import distributed
from engine.config import Config, config_from_mapping, load_config, read_yaml
from engine.distributed import say
from engine.report.files import console_table, write_report
from engine.train.loop import train
from engine.train.states import STATE, read_newest, read_state, states_in
from engine.train.stops import Interrupted, Signals, resume_command, shell_word
from errors import InputError

__all__ = ["Interrupted", "new_folder", "train_and_report"]

DEMO = "configs/mtdo_demo.yaml"
STARTED = {"config.yaml", "tensorboard"}  # what a run writes before its first record or state
# what a run writes besides config.yaml
WRITTEN = ("last*.safetensors", "new.safetensors", "best.safetensors", "weights.safetensors", "log*.jsonl", "report.*",
           "tensorboard", "pictures", "frames")  # fmt: skip
BUSY = 1000  # runs of one name after which a failed lock is an error


def train_and_report(
    config_file: str | None, overrides: Sequence[str], resume: str | None, accept_changes: bool = False
) -> dict[str, Any]:
    """Train (or resume a run), evaluate, write the report, and print its table and the paths of all files."""
    state = state_place(resume) if resume else None
    if state and not config_file:
        config = config_of(state, overrides)
    else:
        config = load_config(config_file or in_repository(DEMO), overrides)
    if config.dcn in ("auto", "compiled"):
        dcn.ensure_built(log=say)
    distributed.start(distributed.choose_device(config.device))
    signals = Signals()  # a signal removes the lock and an empty folder, also before the first step and after the last
    with signals.watch(), signals.raising(), ExitStack() as held:
        if state:
            folder = state if state.is_dir() else state.parent
            distributed.on_main(lambda: check_run_folder(folder, state))
            distributed.on_main(lambda: held.enter_context(lock(folder)))
        else:
            folder = distributed.on_main(lambda: held.enter_context(new_folder(config)))
        say(f"{config.name}: writing to {folder}")
        try:
            report = train(config, folder, state, accept_changes)
        except BaseException:
            signals.ending = True  # a signal from now on must not replace the reason
            raise
        if distributed.is_main():
            print(console_table(report))
            try:
                write_report(report, folder)
            except Interrupted as stop:
                line = f"interrupted: training is done and saved; write the report with: {resume_command(folder)}"
                raise Interrupted(line, stop.code) from None
            print(f"report:       {folder / 'report.md'} (also .html, .csv, .json)")
            print(f"weights:      {folder / 'weights.safetensors'}")
            print(f"training log: tensorboard --logdir {shell_word(folder / 'tensorboard')}")
    distributed.stop()
    return report


def check_outside_data(config: Config) -> None:
    """Raises InputError if the run would be written into its data, where its pictures would be clips of later runs."""
    sources = (config.data.train, *config.data.also, config.data.val)
    roots = [root for source in sources if source.root and (root := Path(source.root)).is_dir()]
    try:
        check_apart([Path(config.runs) / config.name], roots)
    except InputError as error:
        raise InputError(f"config key 'runs': {error}, such as runs=../runs") from None


def state_place(resume: str) -> Path:
    """The path given to `--resume`: a state file, or a run's folder with at least one state."""
    path = Path(resume)
    if path.is_dir() and not states_in(path):
        raise InputError(
            f"nothing to resume: '{path / STATE}' does not exist: name a run's folder, such as runs/mtdo_demo"
        )
    if not path.exists():
        raise InputError(f"nothing to resume: '{path}' does not exist: name a run's folder, such as runs/mtdo_demo")
    return path


def check_run_folder(folder: Path, state: Path) -> None:
    """Raises InputError for a folder that is not a run's, such as one of downloads: resuming would replace the files in it.

    A run's folder has its config, or only files that runs write (experiments/piece.py moves some of them).
    """
    with suppress(InputError):
        if {"network", "train"} <= read_yaml(folder / "config.yaml").keys():
            return
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    other = next((name for name in names if not any(fnmatchcase(name, written) for written in WRITTEN)), None)
    if other is not None:
        if state.is_file():
            read_state(state)  # weights are named as such
        raise InputError(
            f"'{folder}' is not a run's folder (it has '{other}' and no config of a run), and resuming would replace files in it: "
            "move the state to a folder of its own"
        )


def config_of(state: Path, overrides: Sequence[str]) -> Config:
    """The config in a state file, or in the newest readable state of a folder, with overrides."""
    path, _, header = read_newest(state, say=lambda text: None) if state.is_dir() else (state, *read_state(state))
    try:
        config_from_mapping(header["config"])
    except InputError as error:
        raise InputError(
            f"the config in '{path}' is not of this version ({error}): name one of this version with --config"
        ) from None
    return config_from_mapping(header["config"], overrides)


@contextmanager
def new_folder(config: Config) -> Iterator[Path]:
    """Create and lock RUNS/NAME, or RUNS/NAME-2, -3, ... if it exists. Nothing is overwritten, and runs that start at the
    same time get different folders. The folder of a run that ended before its first record is removed, so that the next try has its name.
    """
    longest = LONGEST_NAME - len(f"-{BUSY}")
    if not re.fullmatch(r"[\w+-][\w.+-]{0,99}", config.name) or len(os.fsencode(config.name)) > longest:
        raise InputError(
            f"config key 'name': '{config.name[:100]}' cannot name a folder: use letters, digits, '-', '_' and '.', not first, "
            f"at most 100 and {longest} bytes"
        )
    check_outside_data(config)
    root = Path(config.runs)
    for number in count(1):
        folder = root / (config.name if number == 1 else f"{config.name}-{number}")
        with ExitStack() as held:
            try:
                held.enter_context(lock(folder))
            except InputError:
                if number > BUSY or not (root.is_dir() and os.access(root, os.W_OK)):
                    raise
                continue
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                continue
            folder.mkdir(parents=True, exist_ok=True)
            try:
                yield folder
            finally:
                if {path.name for path in folder.iterdir()} <= STARTED:
                    shutil.rmtree(folder, ignore_errors=True)
            return
