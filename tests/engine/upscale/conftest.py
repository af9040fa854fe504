"""Weights files of the small networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.checkpoint import save_weights
from tests.engine.small import near_bicubic_mtdo, small_mtdo, small_stno


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights files of `small_mtdo()` and `small_stno()` by the network's name."""
    folder = tmp_path_factory.mktemp("weights")
    for name, network in (("mtdo", small_mtdo()), ("stno", small_stno())):
        save_weights(folder / f"{name}.safetensors", network)
    return {name: folder / f"{name}.safetensors" for name in ("mtdo", "stno")}


@pytest.fixture(scope="session")
def weight(weights: dict[str, Path]) -> Path:
    """The weights file of `small_mtdo()`."""
    return weights["mtdo"]


@pytest.fixture(scope="session")
def scene_weight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights file of `near_bicubic_mtdo()`."""
    path = tmp_path_factory.mktemp("weights") / "near_bicubic.safetensors"
    save_weights(path, near_bicubic_mtdo())
    return path
