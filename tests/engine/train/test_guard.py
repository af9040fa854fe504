"""Unusual steps are detected and undone; a run that diverges keeps its last good state."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoint import load_tensors
from engine.config import Config
from engine.train.guard import ENOUGH, Guard
from engine.train.loop import Trainer
from engine.train.states import STATE
from engine.train.updates import SKIPS, Diverged
from tests.engine.conftest import space_time


def test_only_values_far_above_their_median_are_unusual() -> None:
    guard = Guard(30)
    assert not any(guard.unusual(loss=value) for value in (1000.0, *[1.0] * ENOUGH))
    assert not guard.unusual(loss=29.0) and not guard.unusual(loss=0.0)
    assert "the loss is 31, 31 times its running median" in guard.unusual(loss=31.0)
    again = Guard(30)
    again.load(guard.state())
    assert again.unusual(loss=31.0) and not Guard(0).unusual(loss=1e9)


def batch(value: float = 1.0) -> dict[str, Any]:
    random = torch.Generator().manual_seed(0)
    gt = torch.rand(2, 3, 24, 24, generator=random)
    lr = torch.nn.functional.avg_pool2d(gt, 2)[:, None].repeat(1, 3, 1, 1, 1)
    return {"lr": lr, "gt": gt * value, "source": ["a.png", "b.png"]}


@pytest.fixture
def trainer(tiny: Config, tmp_path: Path) -> Trainer:
    """A run of a few steps with given medians."""
    trainer = Trainer(tiny, tmp_path / "run", torch.device("cpu"))
    trainer.log = Silent()  # type: ignore[assignment]
    for _ in range(3):
        trainer.update(batch())
        trainer.step += 1
    trainer.guard.seen = {name: type(v)(list(v) * ENOUGH, v.maxlen) for name, v in trainer.guard.seen.items()}
    return trainer


class Silent:
    messages: list[str]

    def __init__(self) -> None:
        self.messages = []

    def say(self, text: str) -> None:
        self.messages.append(text)


def everything(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {str(number): tensor.clone() for number, tensor in enumerate(trainer.undo._tensors())}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", ["loss", "update"])
def test_unusual_step_is_skipped_with_a_message(trainer: Trainer, kind: str) -> None:
    before = everything(trainer)
    if kind == "update":
        trainer.config = replace(trainer.config, train=replace(trainer.config.train, lr=1000.0))
    trainer.update(batch(1e4 if kind == "loss" else 1.0))
    assert same(before, everything(trainer))
    (line,) = trainer.log.messages  # type: ignore[attr-defined]
    assert "step 4 skipped" in line and kind in line and "a.png" in line
    trainer.step += 1
    trainer.config = replace(trainer.config, train=replace(trainer.config.train, lr=1e-3))
    trainer.update(batch())
    assert not same(before, everything(trainer)) and trainer.unusual is None


def test_too_many_unusual_steps_stop_the_run_at_the_last_good_state(trainer: Trainer) -> None:
    good = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    trainer.config = replace(trainer.config, train=replace(trainer.config.train, lr=1000.0))
    with pytest.raises(Diverged, match=f"{SKIPS} unusual steps in a row: the update is larger than the weights"):
        for _ in range(SKIPS):
            trainer.update(batch())
            trainer.step += 1
    tensors, header = load_tensors(trainer.folder / STATE)
    assert header["step"] == 3 and all(torch.equal(tensors[f"network.{name}"], good[name]) for name in good)


def test_run_can_stop_at_the_first_unusual_step(trainer: Trainer) -> None:
    trainer.config = replace(trainer.config, train=replace(trainer.config.train, on_spike="stop"))
    with pytest.raises(Diverged, match="training stopped at step 4: the loss is"):
        trainer.update(batch(1e4))


def test_divergence_saves_the_state_before_the_update_that_led_to_it(trainer: Trainer) -> None:
    """The update of step 4 may have caused the infinite loss of step 5, so the state of step 3 is saved."""
    good = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    trainer.update(batch())
    trainer.step += 1
    with pytest.raises(Diverged, match="loss is not finite"):
        trainer.update(batch(float("nan")))
    tensors, header = load_tensors(trainer.folder / STATE)
    assert header["step"] == 3 and all(torch.equal(tensors[f"network.{name}"], good[name]) for name in good)


def test_update_larger_than_the_weights_is_undone_without_detection(trainer: Trainer) -> None:
    trainer.guard.factor = 0.0
    good = everything(trainer)
    trainer.config = replace(trainer.config, train=replace(trainer.config.train, lr=math.inf))
    with pytest.raises(Diverged, match=f"{SKIPS} unusual steps in a row: the update is larger than the weights"):
        for _ in range(SKIPS):
            trainer.update(batch())
            trainer.step += 1
    assert same(good, everything(trainer)) and load_tensors(trainer.folder / STATE)[1]["step"] == 3


def test_diverged_state_does_not_replace_a_good_one_without_detection(trainer: Trainer) -> None:
    """The loss rises far above its median, and is not finite two steps later."""
    trainer.guard.factor = 0.0
    trainer.config = replace(trainer.config, train=replace(trainer.config.train, steps=100))
    trainer.save()
    assert trainer._is_good()
    for value in (1e4, 1e6):
        trainer.update(batch(value))
        trainer.step += 1
        assert not trainer._is_good()
    with pytest.raises(
        Diverged, match=r"step 4 has diverged \(its loss is .*\); the last state on disk is that of step 3"
    ):
        trainer.update(batch(float("nan")))
    assert load_tensors(trainer.folder / STATE)[1]["step"] == 3


def test_undone_update_of_a_new_stage_leaves_the_moments_of_the_stage_before(tmp_path: Path) -> None:
    """The second stage trains more parameters than the first; an undone first update must not leave their moments behind."""
    config = space_time(tmp_path, stages=[{"steps": 1, "operator_only": True}, {"steps": 2}])
    trainer = Trainer(config, tmp_path / "run", torch.device("cpu"))
    trainer.log = Silent()  # type: ignore[assignment]
    batches = trainer.data.batches(0, 0)
    trainer.update(next(batches))
    trainer.step += 1
    before = everything(trainer)
    bad = next(batches)
    bad["gt"] = bad["gt"].float() * math.nan
    with pytest.raises(Diverged, match="the loss is not finite"):
        trainer.update(bad)
    assert trainer.step == 0 and not trainer.optimizer.state
    assert before.keys() > everything(trainer).keys()
