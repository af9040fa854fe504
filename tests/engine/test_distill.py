"""Distillation: targets made by teachers, frames that get a target, resuming, refusals, training on the result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import engine.distill
from data.files import released_weights
from data.media import read_image, to_tensor
from engine.checkpoint import save_weights
from engine.config import Config, config_from_mapping
from engine.distill import Teacher, distill, make_teacher, targets
from engine.restore import restore
from engine.restore.jobs import inverse_transform, transform
from engine.sources import training_pairs
from engine.train.loop import Trainer
from errors import InputError
from tests.engine.conftest import tiny_mapping
from tests.engine.small import small_mtdo, small_stno

REPEAT = "tests.engine.test_distill:repeat"


def repeat():
    """A teacher from a function: repeats every LR pixel twice in both directions."""
    return lambda frame: frame.repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_weights(tmp_path / "w.safetensors", small_mtdo())
    return tmp_path / "w.safetensors"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_targets_are_weighted_means_of_truth_and_teachers(tiny: Config, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert distill(tiny, out, [Teacher(str(weights), 0.5), Teacher(REPEAT, 0.2)], truth=0.3) == 2
    network, listed = small_mtdo(), (out / "train.txt").read_text().split()
    for number, pair in enumerate(training_pairs(tiny)[0]):
        name = f"{number:05d}_{pair.name}"
        for index in range(4):
            low = read_image(out / "training_set" / "LR" / name / f"{index:08d}.png")
            assert np.array_equal(low, pair.lr.array(index))
            got = to_tensor(read_image(out / "training_set" / "GT" / name / f"{index:08d}.png"))
            truth = pair.gt.frame(index)
            if index in (1, 2):
                window = pair.lr.window(index, 3)
                with torch.no_grad():
                    eight = [
                        inverse_transform(network(transform(window, orientation)[None]), orientation)[0]
                        for orientation in range(8)
                    ]
                mean = torch.stack(eight).mean(0)
                truth = 0.3 * truth + 0.5 * mean + 0.2 * repeat()(window[1])
            assert f"{name}/{index:08d}.png" in listed or index in (0, 3)
            assert (got - truth.clamp(0, 1)).abs().max() <= 0.51 / 255
    assert len(listed) == 4


def test_frames_with_complete_windows_are_targets() -> None:
    assert list(targets(7, 3)) == [1, 2, 3, 4, 5]
    assert list(targets(5, 5)) == [2]
    assert list(targets(2, 5)) == [1]


def test_resumed_run_equals_an_uninterrupted_one(tiny: Config, weights: Path, tmp_path: Path) -> None:
    teachers = [Teacher(str(weights), 1.0)]
    distill(tiny, tmp_path / "full", teachers)
    distill(tiny, tmp_path / "out", teachers)
    first, second = sorted((tmp_path / "out" / "training_set" / "GT").iterdir())
    times = {path: path.stat().st_mtime_ns for path in first.iterdir()}
    second.rename(second.with_name(f".{second.name}.part"))  # ground truth is written last
    (tmp_path / "out" / "train.txt").unlink()
    distill(tiny, tmp_path / "out", teachers)
    assert files(tmp_path / "out") == files(tmp_path / "full")
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    with pytest.raises(InputError, match=r"other settings.*truth"):
        distill(tiny, tmp_path / "out", [Teacher(str(weights), 0.5)], truth=0.5)
    with pytest.raises(InputError, match="not empty"):
        distill(tiny, weights.parent, teachers)


def test_network_trains_on_the_listed_frames(tiny: Config, weights: Path, tmp_path: Path) -> None:
    distill(tiny, tmp_path / "out", [Teacher(str(weights), 1.0)])
    mapping = tiny_mapping(tmp_path / "runs", steps=2)
    mapping["data"]["train"] = {"root": str(tmp_path / "out"), "list_file": "train.txt"}
    config = config_from_mapping(mapping)
    pairs, _ = training_pairs(config)
    assert [pair.listed for pair in pairs] == [[1, 2], [1, 2]]
    trainer = Trainer(config, tmp_path / "run", torch.device("cpu"))
    trainer.fit()
    assert trainer.step == 2


@pytest.mark.parametrize(
    ("teachers", "truth", "message"),
    [
        ([("W", 0.6)], 0.3, "add up to 0.9"),
        ([("no.safetensors", 1.0)], 0.0, "no.safetensors"),
        ([("no_such_module:f", 1.0)], 0.0, "no_such_module.*MODULE:FUNCTION"),
        ([("tests.engine.test_distill:nothing", 1.0)], 0.0, "nothing.*MODULE:FUNCTION"),
        ([("STNO", 1.0)], 0.0, "is stno"),
        ([("X4", 1.0)], 0.0, "mtdo x4, expected a window network x2"),
    ],
)
def test_unusable_teachers_are_refused(tiny: Config, weights: Path, tmp_path: Path, teachers, truth, message) -> None:
    save_weights(tmp_path / "stno.safetensors", small_stno())
    save_weights(tmp_path / "x4.safetensors", small_mtdo(scale=4))
    places = {"W": weights, "STNO": tmp_path / "stno.safetensors", "X4": tmp_path / "x4.safetensors"}
    chosen = [Teacher(str(places.get(name, name)), share) for name, share in teachers]
    with pytest.raises(InputError, match=message):
        distill(tiny, tmp_path / "out", chosen, truth)
    assert not (tmp_path / "out").exists()


def test_space_time_networks_are_refused(tiny: Config, weights: Path, tmp_path: Path) -> None:
    stno = replace(tiny, network=small_stno().config)
    with pytest.raises(InputError, match="distillation needs a window network"):
        distill(stno, tmp_path / "out", [Teacher(str(weights), 1.0)])


def test_parsing_of_teachers() -> None:
    assert Teacher.parse("a/w.safetensors:0.25") == Teacher("a/w.safetensors", 0.25)
    assert Teacher.parse("a/w.safetensors") == Teacher("a/w.safetensors", 1.0)
    assert Teacher.parse("module:function") == Teacher("module:function", 1.0)
    assert Teacher.parse("module:function:0.5") == Teacher("module:function", 0.5)
    released = str(released_weights()["mtdo_s"])
    assert Teacher.parse("mtdo_s:0.8") == Teacher(released, 0.8) and Teacher.parse("mtdo_s") == Teacher(released, 1.0)


def test_windows_of_a_clip_share_their_features(tiny: Config, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass over the frames: with a temporal filter a pass for every frame would restore its neighbours again and again."""
    passes = []
    monkeypatch.setattr(
        engine.distill, "restore", lambda *words, **options: passes.append(1) or restore(*words, **options)
    )
    teach, pair = make_teacher(Teacher(str(weights), 1.0), tiny), training_pairs(tiny)[0][0]
    together = list(teach(pair, range(1, 4)))
    assert len(passes) == 1
    for index, frame in enumerate(together, 1):
        torch.testing.assert_close(frame, *teach(pair, range(index, index + 1)), rtol=0, atol=1e-5)
