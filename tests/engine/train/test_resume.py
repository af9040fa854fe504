"""Resume: permitted changes, messages, and runs that end early."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data.files import REPOSITORY
from data.media import write_image
from data.sampling import StepBatches
from engine.checkpoint import load_tensors, save_tensors, save_weights
from engine.config import Config, config_from_mapping, dump_yaml
from engine.restore import precision
from engine.sources import TrainingData
from engine.train import run, runs, validation
from engine.train.logger import Logger
from engine.train.loop import Trainer
from engine.train.optim import load_optimizer_tensors
from engine.train.resume import check_changes
from engine.train.states import STATE, states_in
from engine.train.stops import Interrupted, resume_command
from errors import InputError
from tests.engine.conftest import tiny_mapping

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("runs") / "begun"
    config = config_from_mapping(tiny_mapping(folder.parent, steps=2))
    Trainer(config, folder, CPU).fit()
    return folder


def config_with(folder: Path, *overrides: str) -> Config:
    return config_from_mapping(tiny_mapping(folder.parent), overrides)


def test_samples_are_counted_over_batch_sizes(begun: Path, tmp_path: Path) -> None:
    """2 steps of 2, then 2 of 4: samples 0 to 11 of the run, none twice."""
    config = config_with(begun, "train.batch_size=4")
    trainer = Trainer(config, tmp_path, CPU, fresh=False)
    trainer.load(begun)
    assert (trainer.step, trainer.samples) == (2, 4)
    trainer.step = 4
    assert trainer.samples == 12


def test_a_run_stores_the_precision_that_auto_chose(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it continues in the same precision on a machine where auto would choose another one."""
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    Trainer(config_with(begun, "train.precision=auto", "train.steps=1"), tmp_path, CPU).fit()
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)
    assert runs.config_of(tmp_path, []).train.precision == "bf16"


class Positions:
    def draw(self, seed: int, step: int, slot: int, position: int) -> int:
        return position


def test_every_sample_once_for_any_batch_size_and_process_count() -> None:
    drawn: list[int] = []
    for step, steps, batch, world in ((0, 3, 8, 1), (3, 2, 8, 4), (5, 4, 12, 3), (9, 1, 2, 2)):
        ranks = [
            list(StepBatches(Positions(), batch // world, 0, step, steps, rank, world, len(drawn)))  # type: ignore[arg-type]
            for rank in range(world)
        ]
        drawn += [position for parts in zip(*ranks, strict=True) for part in parts for position in part]
    assert drawn == list(range(len(drawn)))


def test_changes_are_reported(begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_with(begun, "train.batch_size=4", "train.lr=1e-4", "train.ema=0")
    Trainer(config, tmp_path, CPU, fresh=False).load(begun)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("continuing at step 2 with changes: ")
    for part in ("train.batch_size 2 -> 4", "train.lr 0.001 -> 0.0001", "train.ema 0.9 -> 0"):
        assert part in line


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=9", "seed 3 -> 9"),
        ("train.optimizer=adamw", "train.optimizer adam -> adamw"),
        ("train.optimizer=muon", "adam -> muon"),
        ("network.residual=none", "network.residual"),
        ("data.train.simulate.clips=1", "training clips"),
        ("data.train.simulate.seed=5", "training clips"),
    ],
)
def test_other_runs_are_refused_without_accept_changes(begun: Path, tmp_path: Path, override: str, words: str) -> None:
    config = config_with(begun, override)
    with pytest.raises(InputError, match=f"{words}.*--accept-changes"):
        Trainer(config, tmp_path, CPU, fresh=False).load(begun)
    trainer = Trainer(config, tmp_path, CPU, fresh=False)
    trainer.load(begun, accept_changes=True)
    assert trainer.step == 2


def test_fewer_steps_than_done_are_refused(begun: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is at step 2, more than train\.steps=1"):
        Trainer(config_with(begun, "train.steps=1"), tmp_path, CPU, fresh=False).load(begun)


def test_initial_weights_are_not_needed_for_resume(begun: Path, tmp_path: Path) -> None:
    config = config_with(begun, "train.init=gone.safetensors")
    Trainer(config, tmp_path, CPU, fresh=False).load(begun)
    with pytest.raises(InputError, match="gone"):
        Trainer(config, tmp_path, CPU)


def test_another_number_of_processes_is_reported(begun: Path) -> None:
    header, config = load_tensors(begun / STATE)[1], config_with(begun, "train.steps=2")
    assert check_changes(header, config, header["data"], 1, False) == ""
    assert check_changes(header | {"world": 4}, config, header["data"], 1, False) == "4 processes -> 1"


def test_a_moved_run_continues_in_its_new_folder(
    begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (begun / STATE).read_bytes()
    moved = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(begun, moved)
    runs.train_and_report(None, ["train.steps=3"], str(moved))
    assert load_tensors(moved / STATE)[1]["step"] == 3 and (moved / "report.json").is_file()
    assert (begun / STATE).read_bytes() == before
    said = capsys.readouterr().out
    assert f"writing to {moved}" in said and "changes: train.steps 2 -> 3" in said


@pytest.mark.parametrize(("name", "text"), [("config.yaml", "server: mine"), ("config.yaml", "- {"), ("notes.txt", "")])
def test_other_folders_with_a_state_are_refused(begun: Path, tmp_path: Path, name: str, text: str) -> None:
    """Resuming there would replace the user's config.yaml, and remove temporary files below it."""
    shutil.copy(begun / STATE, tmp_path)
    runs.check_run_folder(tmp_path, tmp_path / STATE)  # as experiments/piece.py prepares it
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=rf"is not a run's folder \(it has '{name}'.*move the state"):
        runs.train_and_report(None, ["train.steps=3"], str(tmp_path / STATE))
    assert (tmp_path / name).read_text() == text and len(list(tmp_path.iterdir())) == 2


def test_the_last_state_gets_its_name_if_no_step_is_left(begun: Path, tmp_path: Path) -> None:
    """A kill between writing and renaming it leaves new.safetensors."""
    (tmp_path / "new.safetensors").write_bytes((begun / STATE).read_bytes())
    trainer = Trainer(config_with(begun, "train.steps=2"), tmp_path, CPU, fresh=False)
    trainer.load(tmp_path)
    trainer.fit()
    assert [path.name for path in states_in(tmp_path)] == [STATE]
    assert load_tensors(tmp_path / STATE)[1]["step"] == 2


def test_moments_of_other_parameters_are_refused(begun: Path, tmp_path: Path) -> None:
    trainer = Trainer(config_with(begun), tmp_path, CPU, fresh=False)
    tensors = {"0.exp_avg": torch.zeros(3, 3, 3)}
    with pytest.raises(InputError, match="moments in 'x' do not fit"):
        load_optimizer_tensors(trainer.optimizer, tensors, "x")


@pytest.mark.parametrize(
    ("value", "words"), [(None, "do not fit this network: 1 missing"), (float("nan"), "contain NaN")]
)
def test_bad_averages_are_refused(begun: Path, tmp_path: Path, value: float | None, words: str) -> None:
    tensors, header = load_tensors(begun / STATE)
    name = next(name for name in tensors if name.startswith("ema."))
    tensor = tensors.pop(name)
    save_tensors(tmp_path / STATE, tensors if value is None else {**tensors, name: tensor * value}, header)
    with pytest.raises(InputError, match=words):
        Trainer(config_with(begun), tmp_path, CPU, fresh=False).load(tmp_path)


@pytest.mark.parametrize("missing", ["best", "guard", "samples", "unread", "world", "data"])
def test_states_of_earlier_versions_lack_entries(begun: Path, tmp_path: Path, missing: str) -> None:
    tensors, header = load_tensors(begun / STATE)
    save_tensors(tmp_path / STATE, tensors, {key: value for key, value in header.items() if key != missing})
    trainer = Trainer(config_with(begun), tmp_path, CPU, fresh=False)
    trainer.load(tmp_path)
    assert (trainer.step, trainer.samples) == (2, 4)


def test_state_of_a_later_version_asks_for_a_config(begun: Path, tmp_path: Path) -> None:
    tensors, header = load_tensors(begun / STATE)
    save_tensors(tmp_path / STATE, tensors, header | {"config": header["config"] | {"new": 1}})
    with pytest.raises(InputError, match=r"not of this version.*--config"):
        runs.config_of(tmp_path, [])


# --- ends -------------------------------------------------------------------------------------------------------------


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


def test_best_weights_of_the_final_evaluation_count_when_more_steps_follow(begun: Path, tmp_path: Path) -> None:
    """The state is older than the final evaluation, so that only the file itself has its PSNR."""
    folder = shutil.copytree(begun, tmp_path / "begun")
    trainer = Trainer(config_with(begun), folder, CPU, fresh=False)
    for step, best in ((3, -math.inf), (2, 31.5)):  # a later one belongs to steps that are repeated
        save_weights(folder / "best.safetensors", trainer.network, step=step, psnr_y=31.5)
        trainer.load(folder)
        assert trainer.best == best


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


# --- folders and logs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "a/b", "", "x" * 200, "日" * 100, "a\nb"])
def test_run_names_cannot_leave_the_folder(tiny: Config, name: str) -> None:
    with pytest.raises(InputError, match="cannot name a folder"), runs.new_folder(replace(tiny, name=name)):
        pass


def test_runs_with_the_same_name_get_different_folders(tiny: Config) -> None:
    with runs.new_folder(tiny) as first, runs.new_folder(tiny) as second:
        assert (first.name, second.name) == ("tiny", "tiny-2")
        (first / "log.jsonl").write_text("")
    assert first.is_dir() and not second.exists()  # it is still empty
    with runs.new_folder(tiny) as third:
        assert third.name == "tiny-2"


def test_a_run_that_cannot_start_leaves_no_folder(tiny: Config, tmp_path: Path) -> None:
    """The patch is found to be too large when the first batch is drawn; the corrected run has the same name."""
    file = tmp_path / "tiny.yaml"
    file.write_text(dump_yaml(tiny))
    with pytest.raises(InputError, match="smaller than the patch"):
        runs.train_and_report(str(file), ["data.patch=500"], None)
    assert not list(Path(tiny.runs).glob("*"))


def test_foreign_lines_are_removed_from_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.jsonl"
    good = [json.dumps({"step": step}).encode() for step in (1, 2, 3)]
    log.write_bytes(b"\n".join([good[0], b"\xff", b"[1]", b'{"step": "x"}', good[1], good[2], b'{"st']))
    Logger(tmp_path, start=2, total=5).close()
    assert log.read_bytes() == good[0] + b"\n" + good[1] + b"\n"
    assert "3 lines do not belong to this log" in capsys.readouterr().out
    assert b"\xff" in (tmp_path / "log-damaged.jsonl").read_bytes()


def test_curves_of_a_resumed_run_have_each_step_once(tmp_path: Path) -> None:
    """The first run logged a step after its last state, which the resumed run takes again."""
    for start, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        logger = Logger(tmp_path, start=start, total=5)
        for step in steps:
            logger.scalars(step, {"loss": float(start)})
        logger.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [(1, 0.0), (2, 0.0), (3, 2.0), (4, 2.0)]
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3, 4]


def test_unwritable_log_does_not_stop_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = Logger(tmp_path, start=0, total=5)
    (tmp_path / "log.jsonl").mkdir()
    for step in (1, 2):
        logger.scalars(step, {"loss": 1.0})
    logger.close()
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count("cannot be written") == 1


@pytest.mark.parametrize("inside", ["runs", "GT/deeper"])
def test_runs_inside_the_data_are_refused(tiny, tmp_path: Path, inside: str) -> None:
    """The pictures of a run would be clips of the next one."""
    (tmp_path / "data" / "GT").mkdir(parents=True)
    data = replace(tiny.data, val=replace(tiny.data.val, kind="auto", root=str(tmp_path / "data")))
    config = replace(tiny, data=data, runs=str(tmp_path / "data" / inside))
    with pytest.raises(InputError, match=r"config key 'runs': .* is inside the input"), runs.new_folder(config):
        pass
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["GT"]
