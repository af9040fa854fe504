"""Signals that end a run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
import torch
import yaml

from data.sampling import ENDING
from engine import distributed, sources
from engine.checkpoint import load_tensors
from engine.config import config_from_mapping
from engine.train import runs
from engine.train.loop import Trainer
from engine.train.states import STATE
from engine.train.stops import Interrupted, Signals, explained
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


def network_of(state: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in load_tensors(state)[0].items() if not name.startswith("ema.")}


def interrupted(*_: object) -> None:
    raise Interrupted("interrupted", 130)


@pytest.mark.parametrize("place", ["update_norms", "settle"])
def test_interrupted_step_is_undone_until_it_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A second Ctrl-C, or the death of another process, after the update and before the next step."""
    config = config_from_mapping(tiny_mapping(tmp_path, steps=3, save_every=2))
    trainer = Trainer(config, tmp_path / "run", torch.device("cpu"))
    original = trainer.undo.update_norms if place == "update_norms" else trainer.settle

    def stop(*arguments: object, **how: object) -> object:
        if trainer.step == 2 and trainer.saved == 2 and not trainer.signals.ending:
            trainer.saved = None  # so that the state is written again
            interrupted()
        return original(*arguments, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer.undo if place == "update_norms" else trainer, place, stop)
    with pytest.raises(Interrupted, match="saved at step 2; continue with"):
        trainer.fit()
    newest, before = (network_of(tmp_path / "run" / name) for name in (STATE, "last-1.safetensors"))
    assert newest.keys() == before.keys() and all(torch.equal(newest[name], before[name]) for name in newest)


def test_failed_gpu_ends_in_one_line_that_names_the_state_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an illegal access every call fails, so that nothing can be undone and saved."""
    config = config_from_mapping(tiny_mapping(tmp_path, steps=3, save_every=1))
    trainer = Trainer(config, tmp_path / "run", torch.device("cpu"))
    update = trainer.update

    def fail(*_: object) -> NoReturn:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCompile with ...")

    def second(batch: dict[str, object]) -> object:
        if trainer.step < 1:
            return update(batch)
        update(batch)
        monkeypatch.setattr(trainer.undo, "restore", fail)
        return fail()

    monkeypatch.setattr(trainer, "update", second)
    why = "the GPU failed .CUDA error: an illegal memory access was encountered.: the last state on disk is that of step 1; continue"
    with pytest.raises(Interrupted, match=why) as caught:
        trainer.fit()
    assert caught.value.code == 1


@pytest.mark.parametrize("exchange", [1, 2])
def test_state_has_the_trained_weights_if_a_validation_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: int
) -> None:
    """A signal may arrive while the averaged weights are loaded, or the trained ones are loaded again."""
    trainer = Trainer(config_from_mapping(tiny_mapping(tmp_path)), tmp_path / "run", torch.device("cpu"))
    trained = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    assert trainer.average
    trainer.average.state = {name: tensor + 1 for name, tensor in trained.items()}
    load, calls = trainer.network.load_state_dict, []

    def stop(state: dict[str, torch.Tensor]) -> None:
        calls.append(1)
        if len(calls) >= exchange:
            load(dict(list(state.items())[:5]), strict=False)
            interrupted()
        load(state)

    monkeypatch.setattr(trainer.network, "load_state_dict", stop)
    with pytest.raises(Interrupted), trainer.averaged():
        pass
    trainer.save()
    tensors = load_tensors(tmp_path / "run" / STATE)[0]
    assert all(torch.equal(tensors[f"network.{name}"], tensor) for name, tensor in trained.items())


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[/third_party/gloo/gloo/transport/tcp/pair.cc:538] Read error: Connection reset by peer"), True),
        (torch.distributed.DistBackendError("watchdog timeout"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"), False),
    ],
)
def test_only_lost_connections_are_blamed_on_other_ranks(
    error: Exception, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other errors keep their traceback."""
    monkeypatch.setattr(distributed, "world", lambda: 2)
    assert (explained(error) is not None) == lost


def test_interrupted_report_says_how_to_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table has been printed by then."""
    report = {"protocol": "standard", "mean": {"psnr_y": 30.0}}
    monkeypatch.setattr(runs, "train", lambda *arguments: report)
    monkeypatch.setattr(runs, "write_report", lambda *arguments: press(signal.SIGTERM))
    config = tmp_path / "a.yaml"
    config.write_text(yaml.safe_dump(tiny_mapping(tmp_path / "runs")))
    with pytest.raises(Interrupted, match=r"training is done and saved; write the report with: .*--resume") as caught:
        runs.train_and_report(str(config), [], None)
    assert caught.value.code == 128 + signal.SIGTERM
    assert "Evaluation (standard protocol" in capsys.readouterr().out


@pytest.mark.parametrize("world", [1, 2])
def test_signal_after_the_end_of_training_does_not_replace_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default_handlers: None, world: int
) -> None:
    """Here a SIGTERM arrives while the exception leaves the run's folder; torchrun's may also arrive before the last line is printed."""

    @contextmanager
    def folder(_config: object) -> Iterator[Path]:
        try:
            yield tmp_path
        finally:
            press(signal.SIGTERM)

    def train(*_: object) -> NoReturn:
        raise Interrupted("saved at step 7; continue with ...", 1)

    monkeypatch.setattr(runs, "new_folder", folder)
    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setattr(distributed, "world", lambda: world)
    config = tmp_path / "a.yaml"
    config.write_text(yaml.safe_dump(tiny_mapping(tmp_path / "runs")))
    with pytest.raises(Interrupted, match="saved at step 7") as caught:
        runs.train_and_report(str(config), [], None)
    assert caught.value.code == 1
    assert (signal.getsignal(signal.SIGTERM) == signal.SIG_DFL) == (world == 1)
    if world == 2:
        press(signal.SIGTERM)


def test_signal_after_the_state_of_a_surviving_rank_is_saved_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default_handlers: None
) -> None:
    """The run is watched twice: by its steps, and by its folder, whose handler would raise the signal at once."""
    outer, inner = Signals(), Signals()
    monkeypatch.setattr(distributed, "world", lambda: 2)
    with pytest.raises(Interrupted, match="saved"), outer.watch(), outer.raising():
        try:
            with inner.watch():
                inner.ending = True
                raise Interrupted("saved", 1)
        finally:
            press(signal.SIGTERM)
