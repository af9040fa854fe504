"""A config whose network and clips are so small that a training step takes milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.config import Config, config_from_mapping
from tests.engine.small import SMALL_STNO

NETWORK = {
    "name": "mtdo",
    "frames": 3,
    "scale": 2,
    "channels": 8,
    "deformable_groups": 2,
    "feature_blocks": 1,
    "correction_blocks": 1,
    "residual": "bicubic",
    "hat": {"embed": 8, "depths": [2], "heads": 2, "window": 4, "squeeze": 4, "drop_path": 0.2},
}
CLIPS = {"clips": 2, "frames": 4, "size": [64, 64], "objects": {"buildings": 0, "vehicles": 2}}


def tiny_mapping(runs: Path, **train: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "seed": 3,
        "runs": str(runs),
        "device": "cpu",
        "dcn": "plain",
        "network": NETWORK,
        "data": {
            "patch": 12,
            "train": {"kind": "simulated", "simulate": CLIPS},
            "val": {"kind": "simulated", "simulate": {**CLIPS, "clips": 1}},
        },
        "train": {"steps": 4, "batch_size": 2, "lr": 1e-3, "ema": 0.9, "save_every": 100, **train},
        "eval": {"frames": 2},
    }


@pytest.fixture
def tiny(tmp_path: Path) -> Config:
    return config_from_mapping(tiny_mapping(tmp_path / "runs"))


def space_time(runs: Path, **train: object) -> Config:
    """A tiny STNO on simulated clips: first the operator, then the full network, then any scale and two strides."""
    mapping = tiny_mapping(runs, **train)
    clips = {"clips": 2, "frames": 9, "size": [64, 64], "objects": {"buildings": 0, "vehicles": 2}}
    mapping["network"] = SMALL_STNO
    mapping["data"] = {
        "patch": 8,
        "train": {"kind": "simulated", "simulate": clips},
        "val": {"kind": "simulated", "simulate": {**clips, "clips": 1}},
    }
    mapping["loss"] = {"kind": "charbonnier", "lr_intermediate": 1.0, "lr_census": 0.1, "lr_warp": 2.0}
    return config_from_mapping(mapping)
