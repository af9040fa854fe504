"""The recipes in experiments/README.md belong to the released networks."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from engine.checkpoint import load_network
from engine.config import load_config

ROOT = Path(__file__).parents[2]
RELEASED = sorted((ROOT / "checkpoints").glob("*.safetensors"))


def recipe(name: str) -> str:
    """The text of a section of the README."""
    sections = (ROOT / "experiments" / "README.md").read_text("utf-8").split("\n## ")
    return next(section for section in sections if section.startswith(f"{name}\n"))


@pytest.mark.parametrize("weights", RELEASED, ids=lambda path: path.stem)
def test_last_config_of_a_recipe_equals_the_config_in_the_weights(weights: Path) -> None:
    text = recipe(weights.stem).replace("stno_s_$part", "stno_s_1")
    named = re.findall(r"--config (experiments/configs/\w+\.yaml)", text)
    assert named and all((ROOT / path).is_file() for path in named)
    network = load_network(weights).config
    assert asdict(load_config(str(ROOT / named[-1]), []).network) == asdict(network)
    assert f"checkpoints/{weights.name}" in text  # the command that writes the file


@pytest.mark.parametrize("weights", RELEASED, ids=lambda path: path.stem)
def test_every_config_of_a_recipe_has_a_log(weights: Path) -> None:
    logs = {path.stem for path in (ROOT / "experiments" / "logs").glob("*.jsonl")}
    assert any(log == weights.stem or log.startswith(f"{weights.stem}_") for log in logs)
