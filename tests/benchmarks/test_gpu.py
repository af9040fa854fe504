"""The GPU benchmark on a CPU: every step runs, failures are recorded, and `--continue` resumes."""

from __future__ import annotations

import json
import time

import pytest
import torch

import dcn
from benchmarks import gpu
from benchmarks.gpu_steps import STEPS, Step
from errors import InputError

QUICK = ["--device", "cpu", "--quick", "--budget", "600"]


@pytest.mark.slow
def test_dry_run(tmp_path):
    assert gpu.main([*QUICK, "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert {name: entry["status"] for name, entry in content["steps"].items()} == {step.name: "done" for step in STEPS}
    curves = content["steps"]["loss curves"]["rows"]
    assert all(row["from the CPU's"] == 0 for row in curves if row["run"] == "fp32")
    text = (tmp_path / "gpu.md").read_text()
    assert all(f"## {step.name}: done" in text for step in STEPS)
    assert ("| float64 |" in text) == ("compiled" in dcn.backends())


def fails(context):
    context.rows.append({"measured": 2.5})
    raise RuntimeError("CUDA error: an illegal memory access\nmore")


def test_errors_timeouts_and_mismatches_are_recorded(monkeypatch, tmp_path):
    steps = [
        Step("fails", fails, 1),
        Step("hangs", lambda context: time.sleep(600), 1),
        Step("is wrong", lambda context: {"wrong": ["1 is not 2"], "rows": [{"a": 1.23456}, {"b": None}]}, 1),
        Step("is long", lambda context: {}, 1000, 1000),
    ]
    monkeypatch.setattr(gpu, "STEPS", steps)
    report = gpu.Report(tmp_path, go_on=False)
    context = gpu.Context(torch.device("cpu"), quick=True)
    for step in steps[:3]:
        assert gpu.run_step(step, context, report, left=0.2 if step.name == "hangs" else 600) == (step.name != "fails")
    assert gpu.main(["--device", "cpu", "--quick", "--out", str(tmp_path), "--continue", "--budget", "900"]) == 1
    found = json.loads((tmp_path / "gpu.json").read_text())["steps"]
    assert [found[step.name]["status"] for step in steps] == ["failed", "failed", "done", "skipped"]
    assert found["fails"]["error"] == "RuntimeError: CUDA error: an illegal memory access" and "fails(" not in found
    assert found["fails"]["rows"] == [{"measured": 2.5}] and found["hangs"]["rows"] == []
    assert found["hangs"]["error"] == "TimeoutError: stopped after 0 s"
    assert "- 1 is not 2\n\n| a | b |\n|---|---|\n| 1.23 |  |" in (tmp_path / "gpu.md").read_text()


def test_lost_cuda_context_stops_the_run(monkeypatch, tmp_path):
    """Every later call fails too, also those that clean up; the failure may be met only there."""
    report, context = gpu.Report(tmp_path, go_on=False), gpu.Context(torch.device("cuda"), quick=True)
    monkeypatch.setattr(gpu.Context, "clean", fails)
    for step in (Step("fails", fails, 1), Step("seems to work", lambda context: {}, 1)):
        assert not gpu.run_step(step, context, report, left=5)
        assert report.content["steps"][step.name]["status"] == "failed"


def test_skipped_steps_run_with_a_larger_budget(monkeypatch, tmp_path):
    """The time between two runs does not count."""
    ran = []
    steps = [Step(name, lambda context, name=name: ran.append(name) or {}, 100, 100) for name in ("first", "second")]
    monkeypatch.setattr(gpu, "STEPS", steps)
    options = ["--device", "cpu", "--quick", "--out", str(tmp_path), "--budget"]
    monkeypatch.setattr(gpu.Report, "elapsed", lambda self: 100.0 * len(ran))
    assert gpu.main([*options, "150"]) == 1 and ran == ["first"]
    assert gpu.main([*options, "250", "--continue"]) == 0 and ran == ["first", "second"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_error_without_gpu_names_the_dry_run(tmp_path):
    with pytest.raises(InputError, match="--device cpu --quick"):
        gpu.main(["--out", str(tmp_path)])
