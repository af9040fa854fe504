"""Steps enqueued before the numbers of the previous step are known, as on a GPU; tested on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine.config import Config, config_from_mapping
from engine.train.ahead import Pending, on_device, some_unused
from engine.train.loop import Trainer
from engine.train.states import STATE
from engine.train.stops import Interrupted
from errors import InputError
from tests.engine.conftest import tiny_mapping


class RecordingLogger:
    """Stand-in for the logger."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def trainer_of(config: Config, folder: Path, ahead: bool) -> Trainer:
    trainer = Trainer(config, folder, torch.device("cpu"))
    trainer.ahead = ahead
    trainer.log = RecordingLogger()  # type: ignore[assignment]
    return trainer


def batch(number: int, factor: float = 1.0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(number)
    gt = factor * torch.rand(2, 3, 24, 24, generator=generator)
    return {"lr": torch.rand(2, 3, 3, 12, 12, generator=generator), "gt": gt, "source": [f"{number}.png"] * 2}


def run(trainer: Trainer, batches: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The loss terms of every step."""
    losses = []
    for each in batches:
        trainer.update(each)
        trainer.step += 1
        if not trainer.ahead or trainer.step > 1:
            losses.append(trainer.latest[0])
    if trainer.ahead:
        trainer.settle()
        losses.append(trainer.latest[0])
    return losses


def assert_same(first: Trainer, second: Trainer) -> None:
    for a, b in zip(first.undo._tensors(), second.undo._tensors(), strict=True):
        assert torch.equal(a, b)
    assert first.guard.state() == second.guard.state() and first.step == second.step


@pytest.mark.parametrize("train", [{"accumulate": 2}, {"optimizer": "muon"}, {"clip_grad": 0.1, "ema": 0.9}])
def test_equals_sequential_steps_bit_for_bit(tmp_path, train):
    config = config_from_mapping(tiny_mapping(tmp_path, **train))
    batches = [batch(number) for number in range(5)]
    at_once, ahead = (trainer_of(config, tmp_path / str(way), way) for way in (False, True))
    assert run(at_once, batches) == run(ahead, batches)
    assert_same(at_once, ahead)


@pytest.mark.parametrize("where", [22, 24])
def test_unusual_step_is_skipped_and_the_next_one_recomputed(tmp_path, where):
    tiny = config_from_mapping(tiny_mapping(tmp_path, steps=100))
    batches = [batch(number, 1e4 if number == where else 1.0) for number in range(25)]
    at_once, ahead = (trainer_of(tiny, tmp_path / str(way), way) for way in (False, True))
    run(at_once, batches)
    run(ahead, batches)
    assert at_once.log.lines == ahead.log.lines and f"step {where + 1} skipped" in ahead.log.lines[0]
    assert_same(at_once, ahead)


@pytest.mark.parametrize("where", [0, 3])
def test_non_finite_loss_stops_at_the_same_state(tiny, tmp_path, where):
    batches = [batch(number, float("nan") if number == where else 1.0) for number in range(5)]
    texts, trainers = [], [trainer_of(tiny, tmp_path / str(way), way) for way in (False, True)]
    for trainer in trainers:
        with pytest.raises(InputError, match=f"step {where + 1}: the loss is not finite") as caught:
            run(trainer, batches)
        texts.append(str(caught.value).replace(str(trainer.folder), ""))
        assert (trainer.folder / STATE).is_file()
    assert texts[0] == texts[1] and f"{where}.png" in texts[1]
    assert_same(*trainers)


def test_state_and_signal_wait_for_the_numbers_of_the_step(tiny, tmp_path):
    trainer = trainer_of(tiny, tmp_path / "run", True)
    run(trainer, [batch(0)])
    trainer.signals.caught.append(15)
    trainer.update(batch(1))
    trainer.step += 1
    with pytest.raises(Interrupted):
        trainer.settle()
    assert trainer.step == 2 and trainer.pending is None
    trainer.update(batch(2))
    trainer.step += 1
    trainer.save()
    assert trainer.pending is None and trainer.saved == 3


class Reads(TorchDispatchMode):
    """Counts reads of numbers from tensors, which would synchronise with a GPU. Adam's step counters are on the CPU."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        self.counters = {entry["step"].data_ptr() for entry in trainer.optimizer.state.values()}
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waits = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero")
        if func.overloadpacket.__name__ in waits and args[0].data_ptr() not in self.counters:
            self.count += 1
        return func(*args, **(kwargs or {}))


def test_no_step_waits_for_its_own_numbers(tiny, tmp_path, monkeypatch):
    """The guard reads one tensor, that of the previous step, after the next backward pass."""
    trainer, order = trainer_of(tiny, tmp_path / "run", True), []
    run(trainer, [batch(0)])
    take, gradients = Pending.take, Trainer._gradients
    monkeypatch.setattr(Pending, "take", lambda pending: (order.append(pending.step), take(pending))[1])
    monkeypatch.setattr(Trainer, "_gradients", lambda self, b: (gradients(self, b), order.append("backward"))[0])
    with Reads(trainer) as reads:
        for number in (1, 2, 3):
            trainer.update(batch(number))
            trainer.step += 1
    assert reads.count == 0
    assert order == ["backward", "backward", 1, "backward", 2]


def test_cpu_batches_are_not_copied():
    batches = [batch(0), batch(1)]
    assert [a is b for a, b in zip(on_device(iter(batches), torch.device("cpu")), batches, strict=True)] == [True, True]


def test_unused_parameters_are_found_by_a_backward_pass(tiny):
    before = torch.get_rng_state()
    assert not some_unused(tiny)
    assert torch.equal(before, torch.get_rng_state())
    tiny.network.ctdm = "as_shipped"  # its convolutions are not used
    assert some_unused(tiny)


def test_deterministic_and_compile_cannot_be_combined(tmp_path):
    with pytest.raises(InputError, match="cannot be combined"):
        config_from_mapping(tiny_mapping(tmp_path, deterministic=True, compile=True))
