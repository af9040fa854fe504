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


SCRIPTS = [
    path
    for folder in ("benchmarks", "experiments")
    for path in sorted((ROOT / folder).glob("*.py"))
    if '__name__ == "__main__"' in path.read_text("utf-8")
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_scripts_find_the_project_from_any_folder(script: Path) -> None:
    """`python folder/script.py` puts the script's folder on the path, not the root: the script must add the root first."""
    rooms = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() or path.suffix == ".py").replace(".py", "")
    lines = script.read_text("utf-8").splitlines()
    first = next((n for n, line in enumerate(lines) if re.match(rf"(from|import) ({rooms})\b", line)), None)
    added = next((n for n, line in enumerate(lines) if line.startswith("sys.path.insert(0, str(Path(__file__)")), None)
    assert first is None or (added is not None and added < first)
