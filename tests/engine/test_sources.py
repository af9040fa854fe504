"""Data sources of a config: regions, frames and clips to use, mixing, the same batches after a resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data.degrade import imresize
from data.media import write_image
from engine.config import Config, StageConfig, config_from_mapping, config_to_mapping
from engine.sources import TrainingData, clips_trained_on, open_source
from errors import InputError
from tests.engine.conftest import tiny_mapping
from tests.engine.small import SMALL_STNO


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        for index in range(4):
            write_image(
                tmp_path / "clips" / name / f"{index:03d}.png", random.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            )
    return tmp_path / "clips"


def config_for(folder: Path, tmp_path: Path, **source: object) -> Config:
    mapping = tiny_mapping(tmp_path)
    mapping["data"] = {"patch": 6, "train": {"root": str(folder), **source}, "val": {"root": str(folder)}}
    return config_from_mapping(mapping)


def test_only_the_region_and_frames_are_read(clips: Path, tmp_path: Path) -> None:
    config = config_for(clips, tmp_path, region=[0.5, 0.0, 1.0, 1.0], frames=[1, 3], clips=["b"])
    (pair,) = open_source(config, "train").pairs
    full = open_source(config, "val").pairs[1]
    assert (pair.name, pair.gt.size, pair.lr.size, len(pair)) == ("b", (40, 24), (20, 12), 2)
    assert torch.equal(pair.gt.frame(0), full.gt.frame(1)[:, :, 24:])
    expected = imresize(pair.gt.frame(0), scale=0.5).mul(255).round().clamp(0, 255) / 255
    torch.testing.assert_close(pair.lr.frame(0), expected, atol=1e-6, rtol=0)


def test_listed_frames_outside_the_range_do_not_mean_all_frames(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a/003.png\na/001.png\nb\n")
    config = config_for(clips, tmp_path, frames=[1, 3], list_file=str(tmp_path / "list.txt"))
    assert [list(pair.wanted()) for pair in open_source(config, "train").pairs] == [[0], [0, 1]]
    config.data.train.frames = (0, 1)
    with pytest.raises(InputError, match="'a': none of its listed frames is within"):
        open_source(config, "train")


def test_space_time_training_names_listed_frames_that_it_does_not_obey(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.txt").write_text("a/003.png\nb\n")
    config = config_for(clips, tmp_path, list_file=str(tmp_path / "list.txt"))
    TrainingData(config)
    assert capsys.readouterr().out == ""
    TrainingData(replace(config, network=config_from_mapping({"network": SMALL_STNO}).network))
    assert "train with all frames of the listed clips" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"clips": ["c"]}, "no clip 'c'"),
        ({"region": [0.6, 0, 0.5, 1]}, "left < right"),
        ({"frames": [9, 12]}, "none is within"),
        ({"root": ""}, "data.train.root"),
        ({"root": "nowhere"}, "nowhere"),
        ({"kind": "jilinn"}, "jilinn"),
    ],
)
def test_wrong_sources_are_named(clips: Path, tmp_path: Path, source: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_source(config_for(clips, tmp_path, **source), "train")


def test_further_sources_are_mixed_by_their_repeats(clips: Path, tmp_path: Path) -> None:
    mapping = tiny_mapping(tmp_path)
    mapping["data"] = {
        "patch": 6,
        "cache": "none",
        "train": {"root": str(clips), "clips": ["a"]},
        "also": [{"root": str(clips), "clips": ["b"], "repeat": 3}],
        "val": {"root": str(clips)},
    }
    mapping["train"] |= {"steps": 8, "batch_size": 2}  # 16 samples: one epoch with 4 frames of a and 3 x 4 frames of b
    sources = [
        source for batch in TrainingData(config_from_mapping(mapping)).batches(0, 0) for source in batch["source"]
    ]
    names = [Path(source).parent.name for source in sources]
    assert {name: names.count(name) for name in "ab"} == {"a": 4, "b": 12}

    mapping["data"]["also"][0]["root"] = ""
    with pytest.raises(InputError, match=r"data\.also\[0\]\.root"):
        next(TrainingData(config_from_mapping(mapping)).batches(0, 0))
    mapping["data"]["also"][0]["repeat"] = 0
    with pytest.raises(InputError, match="repeat"):
        config_from_mapping(mapping)


def test_batches_do_not_depend_on_the_first_step(clips: Path, tmp_path: Path) -> None:
    config = config_for(clips, tmp_path)
    config = replace(config, data=replace(config.data, cache="none"))
    full = list(TrainingData(config).batches(0, 0))
    rest = list(TrainingData(config).batches(2, 2 * config.train.batch_size))
    assert len(full) == 4 and len(rest) == 2
    for a, b in zip(full[2:], rest, strict=True):
        assert torch.equal(a["lr"], b["lr"]) and torch.equal(a["gt"], b["gt"]) and a["source"] == b["source"]


@pytest.mark.parametrize("space_time", [False, True])
def test_damaged_first_picture_is_skipped_like_the_others(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space_time: bool
) -> None:
    """The fingerprint and the scene cuts read it before the first sample."""
    monkeypatch.chdir(tmp_path)
    config = config_for(clips, tmp_path)
    if space_time:
        mapping = config_to_mapping(config) | {"network": SMALL_STNO}
        mapping["data"] |= {"key_frames": 2, "scales": [2, 2]}
        config = config_from_mapping(mapping)
    picture = clips / "a" / "000.png"
    content = picture.read_bytes()
    data = TrainingData(config)
    intact = data.fingerprint()
    picture.write_bytes(content[:300])
    with pytest.raises(InputError, match=r"000\.png"):
        data.fingerprint()
    config.data.on_error = "skip"
    assert data.fingerprint() not in ("", intact)
    reasons = [reason for batch in data.batches(0, 0) for reason in batch["skipped"] if reason]
    assert reasons and all("000.png" in reason for reason in reasons)


def test_batch_that_cannot_be_split(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.distributed.world", lambda: 3)
    with pytest.raises(InputError, match="cannot be divided by 3"):
        next(TrainingData(config_for(clips, tmp_path)).batches(0, 0))


def test_a_later_stage_is_checked_before_the_first_step(clips: Path, tmp_path: Path) -> None:
    config = config_for(clips, tmp_path)
    stages = [StageConfig(2), StageConfig(2, patch=50)]
    config = replace(config, train=replace(config.train, stages=stages))
    with pytest.raises(InputError, match="smaller than the patch of 50"):
        next(TrainingData(config).batches(0, 0))
    stages.reverse()  # a run that has passed the first stage no longer needs it
    config = replace(config, train=replace(config.train, stages=stages))
    assert len(list(TrainingData(config).batches(2, 2 * config.train.batch_size))) == 2


@pytest.mark.parametrize(
    ("train", "val", "expected"),
    [
        ({}, {}, ["a", "b"]),
        ({"clips": ["b"]}, {}, ["b"]),
        ({"region": [0.0, 0.0, 0.5, 1.0]}, {"region": [0.5, 0.0, 1.0, 1.0]}, []),
        ({"region": [0.0, 0.0, 0.6, 1.0]}, {"region": [0.5, 0.0, 1.0, 1.0], "clips": ["a"]}, ["a"]),
        ({"frames": [0, 2]}, {"frames": [2, 4]}, []),
        ({"frames": [0, 3]}, {"frames": [2, 4]}, ["a", "b"]),
    ],
)
def test_validation_clips_that_are_trained_on_are_named(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: dict, val: dict, expected: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = config_for(clips, tmp_path, **train)
    config.data.val = replace(config.data.val, root="clips", **val)  # the same folder by a relative path
    assert clips_trained_on(TrainingData(config).pairs, open_source(config, "val").pairs) == expected
