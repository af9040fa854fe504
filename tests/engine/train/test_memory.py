"""Runs that cannot fit into memory are refused with one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import models
from engine.config import config_from_mapping
from engine.train import memory
from engine.train.loop import Trainer
from errors import InputError
from tests.engine.conftest import tiny_mapping

CPU = torch.device("cpu")
WIDE = {"channels": 512, "feature_blocks": 256, "correction_blocks": 256, "frames": 99}


def test_parameters_are_counted_without_allocating_them(tmp_path: Path) -> None:
    config = config_from_mapping(tiny_mapping(tmp_path))
    expected = sum(parameter.numel() for parameter in models.build(config.network).parameters())
    assert memory.parameters(config) == expected


@pytest.mark.parametrize(("ema", "count"), [(0.0, 10), (0.9, 13)])
def test_copies_of_the_parameters(tmp_path: Path, ema: float, count: int) -> None:
    assert memory.copies(config_from_mapping(tiny_mapping(tmp_path, ema=ema))) == count


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            [f"network.{key}={value}" for key, value in WIDE.items()],
            r"parameters and training holds 13 copies .*'network'",
        ),
        (
            ["train.batch_size=65536", "data.patch=4096"],
            r"65536 samples with data\.patch=4096 needs .*lower train\.batch_size",
        ),
    ],
)
def test_run_larger_than_the_memory_is_refused(
    tmp_path: Path, overrides: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "total_memory", lambda device: 16 * 2**30)
    config = config_from_mapping(tiny_mapping(tmp_path), overrides)
    with pytest.raises(InputError, match=words):
        Trainer(config, tmp_path / "run", CPU)
