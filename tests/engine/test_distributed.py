"""Training with two processes under torchrun equals training with one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import Tensor

from engine.checkpoint import load_tensors
from tests.engine.conftest import tiny_mapping

ROOT = Path(__file__).parents[2]


def _train(folder: Path, mapping: dict[str, Any], state: str) -> list[dict[str, Tensor]]:
    """The tensors of `state` after training with one process and with two."""
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(mapping))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for name, start in (("one", [sys.executable]), ("two", launch)):
        command = [*start, str(ROOT / "main.py"), "--config", str(file), f"name={name}"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
    return [load_tensors(folder / "runs" / name / state)[0] for name in ("one", "two")]


@pytest.mark.slow
def test_two_processes_share_the_batch(tmp_path: Path) -> None:
    mapping = tiny_mapping(tmp_path / "runs", steps=1)
    mapping["network"] = {**mapping["network"], "hat": {**mapping["network"]["hat"], "drop_path": 0.0}}
    one, two = _train(tmp_path, mapping, "last.safetensors")
    gradients = [name for name in one if name.endswith(".exp_avg")]  # one tenth of the gradients
    assert len(gradients) > 100
    largest = max(one[name].abs().max().item() for name in gradients)
    assert all((one[name] - two[name]).abs().max().item() < 1e-5 * largest for name in gradients)


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path: Path) -> None:
    mapping = tiny_mapping(tmp_path / "runs", steps=3)
    # D_F = -D_B: at the start the gradients of the gate's biases are zero except for rounding errors, which Adam scales to full steps.
    mapping["network"] = {**mapping["network"], "ctdm": "off", "hat": {**mapping["network"]["hat"], "drop_path": 0.0}}
    one, two = _train(tmp_path, mapping, "weights.safetensors")
    assert all((one[key] - two[key]).abs().max().item() < 1e-5 for key in one)
