"""Runs: which folder they write to, how they are resumed, and what is printed at the end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dcn
from engine import distributed
from engine.checkpoint import load_tensors
from engine.config import Config, config_from_mapping, in_repository, load_config
from engine.distributed import say
from engine.report.files import console_table, write_report
from engine.train.loop import STATE, Interrupted, train
from errors import InputError

__all__ = ["Interrupted", "run_folder", "train_and_report"]

DEMO = "configs/mtdo_demo.yaml"


def train_and_report(config_file: str | None, overrides: Sequence[str], resume: str | None) -> dict[str, Any]:
    """Train (or go on with a run), evaluate, write the report and print its table and where everything lies."""
    dcn.ensure_built(log=say)
    state = state_file(resume) if resume else None
    if state and not config_file:
        config = config_from_mapping(load_tensors(state)[1].get("config", {}), overrides)
    else:
        config = load_config(config_file or in_repository(DEMO), overrides)
    distributed.start(distributed.choose_device(config.device))
    folder = state.parent if state else distributed.broadcast(run_folder(config))
    say(f"{config.name}: writing to {folder}")
    report = train(config, folder, state)
    if distributed.is_main():
        write_report(report, folder)
        print(console_table(report))
        print(f"report:       {folder / 'report.md'} (also .html, .csv, .json)")
        print(f"weights:      {folder / 'weights.safetensors'}")
        print(f"training log: tensorboard --logdir {folder / 'tensorboard'}")
    distributed.stop()
    return report


def state_file(resume: str) -> Path:
    """The state file meant by `--resume`: a file, or a run's folder."""
    path = Path(resume)
    if path.is_dir():
        path = path / STATE
    if not path.is_file():
        raise InputError(f"nothing to resume: '{path}' does not exist: name a run's folder, such as runs/mtdo_demo")
    return path


def run_folder(config: Config) -> Path:
    """RUNS/NAME, or RUNS/NAME-2, -3, ... where a run of that name lies already: nothing is overwritten."""
    if not re.fullmatch(r"[\w.+-]+", config.name):
        raise InputError(
            f"config key 'name': '{config.name}' cannot name a folder: use letters, digits, '-', '_' and '.'"
        )
    root = Path(config.runs)
    folder, number = root / config.name, 1
    while folder.exists() and any(folder.iterdir()):
        number += 1
        folder = root / f"{config.name}-{number}"
    return folder
