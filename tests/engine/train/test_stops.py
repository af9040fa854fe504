"""Signals that end a run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from data.sampling import ENDING
from engine import sources
from engine.checkpoint import load_tensors
from engine.config import config_from_mapping
from engine.train.loop import Trainer
from engine.train.states import STATE
from engine.train.stops import Interrupted, Signals
from tests.engine.conftest import tiny_mapping


def press(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture
def default_handlers() -> Iterator[None]:
    """Default handlers, also if the tests run under nohup."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_each_signal_is_recorded_until_the_step_ends(number: int, default_handlers: None) -> None:
    signals = Signals()
    with signals.watch():
        press(number)
        assert signals.caught == [number] and signals.code == 128 + number
    assert signal.getsignal(number) == signal.SIG_DFL
    with pytest.raises(Interrupted) as caught, signals.watch(), signals.raising():
        raise AssertionError("a signal before the block is raised at its start")
    assert caught.value.code == 128 + number


def test_second_ctrl_c_ends_the_step_and_third_the_saving() -> None:
    signals = Signals()
    with signals.watch():
        press()
        with pytest.raises(Interrupted):
            press()
        signals.ending = True
        press(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            press()
        signals.saved = True
        press()


def test_hangup_stays_ignored_under_nohup(default_handlers: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Signals().watch():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_training_in_a_thread_handles_no_signals(tmp_path: Path) -> None:
    trainer = Trainer(config_from_mapping(tiny_mapping(tmp_path, steps=1)), tmp_path / "run", torch.device("cpu"))
    thread = threading.Thread(target=trainer.fit)
    thread.start()
    thread.join()
    assert load_tensors(tmp_path / "run" / STATE)[1]["step"] == 1


def test_signal_interrupts_the_preparation_of_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(config_from_mapping(tiny_mapping(tmp_path)), tmp_path / "run", torch.device("cpu"))
    monkeypatch.setattr(sources, "cache_pairs", lambda *arguments: press(signal.SIGTERM))
    with pytest.raises(Interrupted, match="saved at step 0; continue with"):
        trainer.fit()
