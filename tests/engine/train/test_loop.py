"""The training loop: exact resume, signals, divergence, accumulation, falling loss."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as distributed
import yaml

import models
from data.files import temporary_path
from engine.checkpoint import load_network, load_tensors, save_weights
from engine.config import Config, StageConfig, config_from_mapping
from engine.train.ahead import parallel
from engine.train.logger import LABEL, labelled
from engine.train.loop import Trainer, train
from engine.train.states import STATE
from engine.train.updates import split_batch
from engine.train.validation import FINAL
from errors import InputError
from tests.engine.conftest import NETWORK, space_time, tiny_mapping
from tests.processes import Forked, Script, run_script


def fitted(config: Config, folder: Path, state: Path | None = None) -> Trainer:
    trainer = Trainer(config, folder, torch.device("cpu"))
    if state:
        trainer.load(state)
    trainer.fit()
    return trainer


def same_tensors(first: Path, second: Path) -> bool:
    a, b = load_tensors(first)[0], load_tensors(second)[0]
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tiny: Config, tmp_path: Path, optimizer: str) -> None:
    tiny = replace(tiny, train=replace(tiny.train, optimizer=optimizer))  # type: ignore[arg-type]
    fitted(tiny, tmp_path / "uninterrupted")
    fitted(replace(tiny, train=replace(tiny.train, steps=2)), tmp_path / "half")
    temporary_path(tmp_path / "half" / STATE).write_bytes(b"half")  # as left by a killed process
    fitted(tiny, tmp_path / "half", tmp_path / "half" / STATE)
    (tmp_path / "half").rename(tmp_path / "resumed")
    assert not [path.name for path in (tmp_path / "resumed").iterdir() if path.name.startswith(".")]
    assert load_tensors(tmp_path / "resumed" / STATE)[1]["step"] == 4
    assert same_tensors(tmp_path / "uninterrupted" / STATE, tmp_path / "resumed" / STATE)


def test_stages_resume_exactly(tmp_path: Path) -> None:
    config = config_from_mapping(tiny_mapping(tmp_path, stages=[{"steps": 2}, {"steps": 2, "patch": 8}]))
    fitted(config, tmp_path / "uninterrupted")
    stages = [config.train.stages[0], replace(config.train.stages[1], steps=1)]
    fitted(replace(config, train=replace(config.train, stages=stages)), tmp_path / "part")
    fitted(config, tmp_path / "resumed", tmp_path / "part" / STATE)
    assert same_tensors(tmp_path / "uninterrupted" / STATE, tmp_path / "resumed" / STATE)


def test_space_time_stages_resume_exactly(tmp_path: Path) -> None:
    stages = [
        {"steps": 2, "operator_only": True},
        {"steps": 2},
        {"steps": 2, "scales": [2, 4], "strides": [2, 4]},
    ]
    config = space_time(tmp_path, stages=stages)
    full = fitted(config, tmp_path / "uninterrupted")
    for stop in (1, 3, 5):  # inside every stage
        kept = replace(config.train, stages=cut(config.train.stages, stop), schedule=config.train.schedule)
        fitted(replace(config, train=kept), tmp_path / f"{stop}")
        fitted(config, tmp_path / f"{stop}_on", tmp_path / f"{stop}" / STATE)
        assert same_tensors(tmp_path / "uninterrupted" / STATE, tmp_path / f"{stop}_on" / STATE), stop
    assert full.step == 6


def cut(stages: list[StageConfig], steps: int) -> list[StageConfig]:
    """The stages up to a total of `steps` steps."""
    kept = []
    for stage in stages:
        taken = min(stage.steps, steps)
        steps -= taken
        if taken:
            kept.append(replace(stage, steps=taken))
    return kept


def test_operator_stage_trains_the_operator_only(tmp_path: Path) -> None:
    config = space_time(tmp_path, stages=[{"steps": 2, "operator_only": True}])
    before = Trainer(config, tmp_path / "a", torch.device("cpu")).network.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    after = fitted(config, tmp_path / "b").network.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"operator"}

    with pytest.raises(InputError, match="operator_only is not for 'mtdo'"):
        fitted(config_from_mapping(tiny_mapping(tmp_path, stages=[{"steps": 1, "operator_only": True}])), tmp_path)
    silent = replace(config, loss=replace(config.loss, lr_intermediate=0.0, lr_census=0.0, lr_warp=0.0))
    with pytest.raises(InputError, match=r"set loss\.lr_warp"):
        fitted(silent, tmp_path / "c")


def test_training_writes_report_weights_and_log(tiny: Config, tmp_path: Path) -> None:
    report = train(replace(tiny, train=replace(tiny.train, val_every=2, log_every=2)), tmp_path / "run")
    assert report["mean"]["psnr_y"] > 15 and report["mean"]["bicubic_psnr_y"] > 15
    assert report["mean"]["gain_psnr_y"] == pytest.approx(report["mean"]["psnr_y"] - report["mean"]["bicubic_psnr_y"])
    assert (tmp_path / "run" / FINAL).is_file() and (tmp_path / "run" / "best.safetensors").is_file()
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 2, 4, 4]
    assert lines[-1]["val/psnr_y"] == report["mean"]["psnr_y"]
    assert all("loss/l1" in line or "val/psnr_y" in line for line in lines)
    assert list((tmp_path / "run" / "tensorboard").iterdir())

    train(replace(tiny, train=replace(tiny.train, val_every=2, log_every=2)), tmp_path / "run", tmp_path / "run")
    resumed = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert resumed == lines  # a finished run is evaluated again, but its validation is not logged twice


def test_tensorboard_pictures_are_labelled() -> None:
    left, right = torch.zeros(3, 20, 60), torch.full((3, 20, 40), 0.5)
    row = labelled({"baseline": left, "ours": right})
    assert row.shape == (3, LABEL + 20, 100)
    assert torch.equal(row[:, LABEL:], torch.cat([left, right], dim=-1))
    for part in (row[:, :LABEL, :60], row[:, :LABEL, 60:]):
        assert part.min() < 0.3 and part.max() == 1  # black letters on white


def test_loss_decreases_on_one_batch(tiny: Config, tmp_path: Path) -> None:
    config = config_from_mapping(tiny_mapping(tmp_path, lr=3e-3, ema=0.0))
    trainer = Trainer(config, tmp_path / "run", torch.device("cpu"))
    random = torch.Generator().manual_seed(0)
    gt = torch.rand(2, 3, 24, 24, generator=random)
    lr = torch.nn.functional.avg_pool2d(gt, 2)[:, None].repeat(1, 3, 1, 1, 1)
    batch = {"lr": lr, "gt": gt, "source": ["a", "b"]}
    losses = []
    for _ in range(60):
        losses.append(sum(trainer.update(batch)[0].values()))
        trainer.step += 1
    assert losses[-1] < 0.8 * losses[0]


def test_accumulation_equals_the_full_batch(tmp_path: Path) -> None:
    results = []
    for accumulate in (1, 2):
        mapping = tiny_mapping(tmp_path, accumulate=accumulate)
        mapping["network"] = {**mapping["network"], "hat": {**mapping["network"]["hat"], "drop_path": 0.0}}
        trainer = Trainer(config_from_mapping(mapping), tmp_path, torch.device("cpu"))
        random = torch.Generator().manual_seed(1)
        batch = {
            "lr": torch.rand(2, 3, 3, 12, 12, generator=random),
            "gt": torch.rand(2, 3, 24, 24, generator=random),
            "source": ["a", "b"],
        }
        losses, norm = trainer.update(batch)
        results.append((sum(losses.values()), norm))
    assert results[0] == pytest.approx(results[1], rel=1e-4)


def test_accumulation_exchanges_gradients_once(tmp_path: Path) -> None:
    """DistributedDataParallel decides in the forward pass whether the backward pass exchanges gradients."""
    trainer = Trainer(config_from_mapping(tiny_mapping(tmp_path, accumulate=2)), tmp_path, torch.device("cpu"))
    batch = {"lr": torch.rand(2, 3, 3, 12, 12), "gt": torch.rand(2, 3, 24, 24), "source": ["a", "b"]}
    trainer.update(batch)
    alone = [parameter.grad.clone() for parameter in trainer.network.parameters() if parameter.grad is not None]
    trainer.network.load_state_dict(Trainer(trainer.config, tmp_path, torch.device("cpu")).network.state_dict())
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        trainer.model = parallel(trainer.model, trainer.config)
        exchanged: list[torch.Tensor] = []

        def count(_, bucket):  # PyTorch compares annotations, which are strings here
            exchanged.append(bucket.buffer())
            done = torch.futures.Future()
            done.set_result(bucket.buffer())
            return done

        trainer.model.register_comm_hook(None, count)
        trainer._gradients(batch)
        parameters = sum(p.numel() for p in trainer.network.parameters() if p.requires_grad)
        assert sum(buffer.numel() for buffer in exchanged) == parameters
        found = [parameter.grad for parameter in trainer.network.parameters() if parameter.grad is not None]
        torch.testing.assert_close(found, alone)
    finally:
        distributed.destroy_process_group()


def test_split_batch_keeps_every_sample() -> None:
    batch = {"lr": torch.arange(4), "source": ["a", "b", "c", "d"]}
    parts = list(split_batch(batch, 2))
    assert [part["lr"].tolist() for part in parts] == [[0, 1], [2, 3]]
    assert [part["source"] for part in parts] == [["a", "b"], ["c", "d"]]


def test_not_finite_loss_names_step_files_and_state(tiny: Config, tmp_path: Path) -> None:
    trainer = Trainer(tiny, tmp_path / "run", torch.device("cpu"))
    good = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    batch = {
        "lr": torch.rand(2, 3, 3, 12, 12),
        "gt": torch.full((2, 3, 24, 24), float("nan")),
        "source": ["a.png", "b.png"],
    }
    with pytest.raises(InputError) as caught:
        trainer.update(batch)
    for part in ("step 1", "a.png, b.png", STATE):
        assert part in str(caught.value)
    saved = load_tensors(tmp_path / "run" / STATE)[0]
    assert all(torch.equal(saved[f"network.{name}"], tensor) for name, tensor in good.items())


def test_weights_without_state_cannot_be_resumed(tiny: Config, tmp_path: Path) -> None:
    train(tiny, tmp_path / "run")
    with pytest.raises(InputError, match="not a training state"):
        train(tiny, tmp_path / "again", tmp_path / "run" / FINAL)


def test_training_state_is_loaded_as_averaged_weights(tiny: Config, tmp_path: Path) -> None:
    train(tiny, tmp_path / "run")
    state = load_network(tmp_path / "run" / STATE).state_dict()
    final = load_network(tmp_path / "run" / FINAL).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in final.items())


def test_tensors_missing_in_partial_weights_are_reported(
    tiny: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message lists the first tensors and the number of further ones."""
    start = tmp_path / "start.safetensors"
    other = {**NETWORK, "hat": {**NETWORK["hat"], "embed": 16}}
    save_weights(start, models.build(other))
    settings = replace(tiny.train, init=str(start), init_partial=True)
    Trainer(replace(tiny, train=settings), tmp_path / "run", torch.device("cpu"))
    line = capsys.readouterr().out
    count = int(re.search(r"(\d+) tensors of this network are not in it", line)[1])
    assert count > 4 and line.endswith(f", and {count - 4} more\n")


def test_averaged_swaps_weights_and_restores_them(tiny: Config, tmp_path: Path) -> None:
    trainer = fitted(tiny, tmp_path / "run")
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    with trainer.averaged() as network:
        assert not torch.equal(next(iter(network.state_dict().values())), next(iter(before.values())))
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.network.state_dict().items())


def test_clips_that_cannot_be_validated_end_a_run_before_its_first_step(tmp_path: Path) -> None:
    config = space_time(tmp_path)
    config.eval.frames = 2
    with pytest.raises(InputError, match="a key frame every 2 frames needs at least 3"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def terminated_in_step(number: int, *arguments: str) -> None:
    """Run main.py; a SIGTERM arrives during that step."""
    update = Trainer.update

    def update_and_signal(self: Trainer, batch: dict[str, Any]) -> tuple[dict[str, float], float]:
        if self.step + 1 == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, batch)

    Trainer.update = update_and_signal  # type: ignore[method-assign]
    run_script("main.py", *arguments)


def test_resume_after_sigterm_is_exact(tmp_path: Path) -> None:
    mapping = tiny_mapping(tmp_path / "runs", steps=12, log_every=1)
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(mapping))
    stopped = Forked(terminated_in_step, 5, "--config", str(file), folder=tmp_path).result()
    assert stopped.returncode == 128 + signal.SIGTERM and "--resume" in stopped.stderr
    assert load_tensors(tmp_path / "runs" / "tiny" / STATE)[1]["step"] == 5  # the step was finished
    for arguments in (["--resume", "runs/tiny"], ["--config", file, "name=uninterrupted"]):
        assert Script("main.py", *arguments, folder=tmp_path).result().returncode == 0
    assert same_tensors(tmp_path / "runs" / "tiny" / STATE, tmp_path / "runs" / "uninterrupted" / STATE)
    log = (tmp_path / "runs" / "tiny" / "log.jsonl").read_text()
    steps = [json.loads(line)["step"] for line in log.splitlines()]
    assert steps == [*range(1, 13), 12]  # the last one is the final validation
