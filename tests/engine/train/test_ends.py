"""Runs that end early: errors, signals and unreadable samples."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from data.files import REPOSITORY
from data.media import write_image
from engine.checkpoint import load_tensors
from engine.config import config_from_mapping
from engine.sources import TrainingData
from engine.train import run, validation
from engine.train.loop import Trainer
from engine.train.states import STATE
from engine.train.stops import Interrupted, resume_command
from errors import InputError
from tests.engine.conftest import tiny_mapping

CPU = torch.device("cpu")


def failing(error: Exception) -> type[TrainingData]:
    """Training data that fail after one batch."""

    class Failing(TrainingData):
        def batches(self, start: int, samples: int) -> Iterator[dict]:
            yield next(super().batches(start, samples))
            raise error

    return Failing


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (InputError("a.png: is cut off"), InputError, "a.png: is cut off"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), Interrupted, "data worker was killed"),
        (MemoryError(), Interrupted, "out of memory"),
        (OSError(28, "No space left on device", "x"), Interrupted, "No space left"),
        (ZeroDivisionError("a fault of the program"), ZeroDivisionError, "a fault"),
    ],
)
def test_state_is_saved_on_any_error(
    tmp_path: Path, error: Exception, kind: type, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "TrainingData", failing(error))
    folder = tmp_path / "my run"
    trainer = Trainer(config_from_mapping(tiny_mapping(tmp_path)), folder, CPU)
    with pytest.raises(kind, match=words) as caught:
        trainer.fit()
    if not isinstance(error, ZeroDivisionError):
        assert f"saved at step 1; continue with: {resume_command(folder)}" in str(caught.value)
    assert load_tensors(folder / STATE)[1]["step"] == 1


def test_command_to_continue_fits_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert resume_command(tmp_path / "my run") == f"python main.py --resume '{tmp_path / 'my run'}'"
    monkeypatch.chdir(tmp_path)
    assert resume_command(Path("runs/a")) == f"python {shlex.quote(str(REPOSITORY / 'main.py'))} --resume runs/a"


def test_state_is_saved_on_a_signal_in_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(config_from_mapping(tiny_mapping(tmp_path, val_every=1)), tmp_path / "run", CPU)
    monkeypatch.setattr(validation, "evaluate", lambda *a, **k: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match="saved at step 1") as caught:
        trainer.fit()
    assert caught.value.code == 128 + signal.SIGTERM
    assert load_tensors(tmp_path / "run" / STATE)[1]["step"] == 1


def fake_evaluation(monkeypatch: pytest.MonkeyPatch, trainer: Trainer, stop: Callable[[], None]) -> None:
    """Let validations give a Y PSNR that falls with the steps. stop: called within the first one."""

    def evaluate(*_: object, **__: object) -> dict[str, object]:
        if not (trainer.folder / "best.safetensors").exists():
            stop()
        return {"mean": {"psnr_y": 30.0 - trainer.step, "gain_psnr_y": 0.0}, "baseline": "bicubic"}

    monkeypatch.setattr(validation, "evaluate", evaluate)


def log_lines(folder: Path) -> list[str]:
    return (folder / "log.jsonl").read_text().splitlines()


@pytest.mark.parametrize("moment", ["before", "within", "weights"])
def test_interrupted_validation_is_done_by_the_resumed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A signal in the step before it, within it, and before the best weights are written."""
    config = config_from_mapping(tiny_mapping(tmp_path, steps=3, val_every=2, log_every=1))
    undisturbed = Trainer(config, tmp_path / "one", CPU)
    fake_evaluation(monkeypatch, undisturbed, lambda: None)
    undisturbed.fit()
    disturbed = Trainer(config, tmp_path / "two", CPU)
    kill = partial(os.kill, os.getpid(), signal.SIGTERM)
    fake_evaluation(monkeypatch, disturbed, kill if moment == "within" else lambda: None)
    update = disturbed.update
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="saved at step 2"):
        if moment == "before":
            patch.setattr(disturbed, "update", lambda batch: (kill() if disturbed.step == 1 else None, update(batch)))
        elif moment == "weights":
            patch.setattr(validation, "save_weights", lambda *_, **__: kill())
        disturbed.fit()
    resumed = Trainer(config, tmp_path / "two", CPU, fresh=False)
    resumed.load(tmp_path / "two")
    fake_evaluation(monkeypatch, resumed, lambda: None)
    resumed.fit()
    assert log_lines(tmp_path / "two") == log_lines(tmp_path / "one")
    one, two = (load_tensors(tmp_path / name / "best.safetensors") for name in ("one", "two"))
    assert two[1] == one[1] and all(torch.equal(two[0][key], one[0][key]) for key in one[0])
    assert (load_tensors(tmp_path / "two" / STATE)[1]["validating"], resumed.best) == (False, 28.0)


def test_unreadable_samples_are_skipped_and_counted(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for clip in "ab":
        for number in range(5):
            write_image(
                tmp_path / f"clips/{clip}/{number:04d}.png", random.integers(0, 255, (48, 48, 3), dtype=np.uint8)
            )
    mapping = tiny_mapping(tmp_path / "runs", steps=6, log_every=1)
    mapping["data"] = {
        "patch": 12,
        "cache": "none",
        "train": {"root": str(tmp_path / "clips")},
        "val": mapping["data"]["val"],
    }
    data = TrainingData(config_from_mapping(mapping))  # opened before the damage
    bad = tmp_path / "clips/a/0002.png"
    shutil.copy(bad, tmp_path / "good.png")
    for on_error in ("stop", "skip"):
        mapping["data"]["on_error"] = on_error
        trainer = Trainer(config_from_mapping(mapping), tmp_path / on_error, CPU)
        bad.write_bytes(bad.read_bytes()[:300])
        if on_error == "stop":
            with pytest.raises(InputError, match=r"0002\.png"):
                trainer.fit()
        else:
            trainer.fit()
            records = [json.loads(line) for line in (tmp_path / "skip/log.jsonl").read_text().splitlines()]
            assert records[-1]["skipped_samples"] == trainer.unread > 0
            assert load_tensors(tmp_path / "skip" / STATE)[1]["unread"] == trainer.unread
        shutil.copy(tmp_path / "good.png", bad)
    assert data.fingerprint()
