"""Training with two processes equals training with one; under torchrun, failures are reported."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from torch import Tensor
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

import cli
from engine import distributed
from engine.checkpoint import load_tensors
from tests.engine.conftest import tiny_mapping
from tests.processes import ROOT, run_ranks

TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc_per_node",
    "2",
    str(ROOT / "main.py"),
]


def _train(folder: Path, mapping: dict[str, Any], state: str) -> list[dict[str, Tensor]]:
    """The tensors of `state` after training with one process and with two."""
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(mapping))
    for count, name in ((1, "one"), (2, "two")):
        for rank in run_ranks(count, "main.py", "--config", file, f"name={name}", folder=folder):
            assert rank.returncode == 0, rank.stderr[-2000:]
    return [load_tensors(folder / "runs" / name / state)[0] for name in ("one", "two")]


def test_two_processes_share_the_batch(tmp_path: Path) -> None:
    mapping = tiny_mapping(tmp_path / "runs", steps=1)
    mapping["network"] = {**mapping["network"], "hat": {**mapping["network"]["hat"], "drop_path": 0.0}}
    one, two = _train(tmp_path, mapping, "last.safetensors")
    gradients = [name for name in one if name.endswith(".exp_avg")]  # one tenth of the gradients
    assert len(gradients) > 100
    largest = max(one[name].abs().max().item() for name in gradients)
    assert all((one[name] - two[name]).abs().max().item() < 1e-5 * largest for name in gradients)


def test_two_processes_train_like_one(tmp_path: Path) -> None:
    mapping = tiny_mapping(tmp_path / "runs", steps=3)
    # D_F = -D_B: at the start the gradients of the gate's biases are zero except for rounding errors, which Adam scales to full steps.
    mapping["network"] = {**mapping["network"], "ctdm": "off", "hat": {**mapping["network"]["hat"], "drop_path": 0.0}}
    one, two = _train(tmp_path, mapping, "weights.safetensors")
    assert all((one[key] - two[key]).abs().max().item() < 1e-5 for key in one)


def test_ranks_wait_longer_than_any_clip_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With PyTorch's own limits a rank without clips ended the run after 10 or 30 minutes of evaluation by another."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **more: given.update(more))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    distributed.start(torch.device("cpu"))
    assert given["timeout"] >= timedelta(days=1)


# --- the report of torchrun -------------------------------------------------------------------------------------------


def last_line(report: str) -> str:
    """The last line of torchrun's report, without its rule and its label."""
    return report.rstrip("=\n ").splitlines()[-1].removeprefix("  traceback : ")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ({1: ("saved", False)}, "saved"),
        ({0: ("saved", False), 2: ("error: a.png", True)}, "error: a.png"),
        ({0: ("error: a.png", True), 1: ("saved", False)}, "error: a.png"),
    ],
)
def test_the_report_ends_with_the_cause(
    lines: dict[int, tuple[str, bool]], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three ranks failed in the same second; those without a line were killed."""
    for rank, (line, cause) in lines.items():
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / str(rank)))
        cli.complain(line, cause=cause)
    failures = {rank: ProcessFailure(rank, 100 + rank, -9, str(tmp_path / str(rank))) for rank in range(3)}
    assert last_line(str(ChildFailedError("main.py", failures))) == expected


@pytest.mark.slow
def test_bad_input_ends_torchruns_report(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(tiny_mapping(tmp_path / "runs")))
    command = [*TORCHRUN, "--config", str(file), "train.batch_size=3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 1  # torchrun's own
    assert "'train.batch_size'" in last_line(done.stderr) and "exitcode  : 2" in done.stderr
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_in_a_saved_state_and_its_command(rank: int, tmp_path: Path) -> None:
    file, log = tmp_path / "tiny.yaml", tmp_path / "runs" / "tiny" / "log.jsonl"
    endless = {"steps": 10**6, "save_every": 10**6, "log_every": 1}
    file.write_text(yaml.safe_dump(tiny_mapping(tmp_path / "runs", **endless)))
    process = subprocess.Popen([*TORCHRUN, "--config", str(file)], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and not (log.is_file() and log.read_bytes().count(b"\n") > 3):
            time.sleep(0.1)
        (killed,) = [child for child in psutil.Process(process.pid).children() if child.environ()["RANK"] == str(rank)]
        killed.kill()
        line = last_line(process.communicate(timeout=900)[1])
    finally:
        process.terminate()  # if the test failed: torchrun ends its ranks
    match = re.search(r"saved at step (\d+); continue with: python .*main.py --resume .*runs/tiny$", line)
    assert match, line
    assert load_tensors(log.with_name("last.safetensors"))[1]["step"] == int(match[1])
