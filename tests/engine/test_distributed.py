"""Two processes under torchrun train what one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from engine.checkpoint import load_tensors
from tests.engine.conftest import tiny_mapping

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_share_the_batch(tmp_path: Path) -> None:
    mapping = tiny_mapping(tmp_path / "runs", steps=3)
    # D_F = -D_B makes gradients of the gate's biases vanish at the start but for their rounding, of which Adam makes whole steps.
    mapping["network"] = {**mapping["network"], "ctdm": "off", "hat": {**mapping["network"]["hat"], "drop_path": 0.0}}
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(mapping))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for name, start in (("one", [sys.executable]), ("two", launch)):
        command = [*start, str(ROOT / "main.py"), "--config", str(file), f"name={name}"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (load_tensors(tmp_path / "runs" / name / "weights.safetensors")[0] for name in ("one", "two"))
    assert all((one[key] - two[key]).abs().max().item() < 1e-5 for key in one)
