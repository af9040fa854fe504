"""Resume: permitted changes, messages, and states that do not fit."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch

from data.sampling import StepBatches
from engine.checkpoint import load_tensors, save_tensors, save_weights
from engine.config import Config, config_from_mapping
from engine.restore import precision
from engine.train import runs
from engine.train.loop import Trainer
from engine.train.optim import load_optimizer_tensors
from engine.train.resume import check_changes
from engine.train.states import STATE, states_in
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
    machine = header["machine"]
    assert check_changes(header, config, header["data"], 1, machine, False) == ""
    assert check_changes(header | {"world": 4}, config, header["data"], 1, machine, False) == "4 processes -> 1"


def test_another_machine_is_reported(begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its sums are rounded differently, so the run has not the bits of an undisturbed one."""
    header, config = load_tensors(begun / STATE)[1], config_with(begun, "train.steps=2")
    threads, machine = torch.get_num_threads(), header["machine"] | {"threads": 64}
    changed = check_changes(header | {"machine": machine}, config, header["data"], 1, header["machine"], False)
    assert changed == f"threads 64 -> {threads} (rounding may differ)"
    older = {key: value for key, value in header.items() if key != "machine"}  # states of earlier versions
    assert check_changes(older, config, header["data"], 1, machine, False) == ""
    torch.set_num_threads(threads + 1)
    try:
        Trainer(config, tmp_path, CPU, fresh=False).load(begun)
    finally:
        torch.set_num_threads(threads)
    words = f"continuing at step 2 with changes: threads {threads} -> {threads + 1} (rounding may differ)"
    assert words in capsys.readouterr().out


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


def test_best_weights_of_the_final_evaluation_count_when_more_steps_follow(begun: Path, tmp_path: Path) -> None:
    """The state is older than the final evaluation, so that only the file itself has its PSNR."""
    folder = shutil.copytree(begun, tmp_path / "begun")
    trainer = Trainer(config_with(begun), folder, CPU, fresh=False)
    for step, best in ((3, -math.inf), (2, 31.5)):  # a later one belongs to steps that are repeated
        save_weights(folder / "best.safetensors", trainer.network, step=step, psnr_y=31.5)
        trainer.load(folder)
        assert trainer.best == best
