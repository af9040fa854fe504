"""Which implementation runs, building on demand, and what is said where something is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dcn
from dcn import build
from errors import InputError
from tests.dcn.cases import Case

ROOT = Path(__file__).parents[2]


def call():
    case = Case()
    return dcn.deform_conv2d(**case.tensors(torch.float32), **case.settings())


@pytest.fixture(autouse=True)
def _restore(monkeypatch):
    monkeypatch.delenv("DCN_BACKEND", raising=False)
    yield
    dcn.set_backend(None)


def used(monkeypatch) -> list[str]:
    """Records what runs."""
    seen: list[str] = []
    plain = dcn.plain.deform_conv2d
    monkeypatch.setattr(dcn.plain, "deform_conv2d", lambda *a: seen.append("plain") or plain(*a))
    return seen


def test_plain_is_always_there_and_last():
    assert dcn.backends()[-1] == "plain"
    assert set(dcn.backends()) <= {"compiled", "torchvision", "plain"}


def test_compiled_is_first_where_it_is(compiled, monkeypatch):
    assert dcn.backends()[0] == "compiled"
    seen = used(monkeypatch)
    call()
    assert seen == []


def test_environment_variable_and_set_backend(monkeypatch):
    seen = used(monkeypatch)
    monkeypatch.setenv("DCN_BACKEND", "plain")
    call()
    assert seen == ["plain"]
    dcn.set_backend("auto")
    call()
    assert seen == ["plain", "plain"]
    monkeypatch.delenv("DCN_BACKEND")
    dcn.set_backend("plain")
    call()
    assert len(seen) == 3


def test_unknown_names_are_refused(monkeypatch):
    with pytest.raises(InputError, match="unknown dcn backend 'fast'; use auto, compiled, torchvision, plain"):
        dcn.set_backend("fast")
    monkeypatch.setenv("DCN_BACKEND", "cuda")
    with pytest.raises(InputError, match="environment variable DCN_BACKEND: unknown dcn backend 'cuda'"):
        call()


@pytest.mark.skipif("torchvision" in dcn.backends(), reason="torchvision imports here")
def test_torchvision_missing_is_said():
    dcn.set_backend("torchvision")
    with pytest.raises(InputError, match="torchvision does not import"):
        call()


def test_library_is_named_after_what_it_depends_on(monkeypatch, tmp_path):
    first = build.library_path()
    assert build.library_path() == first
    sources = tmp_path / "csrc"
    shutil.copytree(build.SOURCES, sources)
    monkeypatch.setattr(build, "SOURCES", sources)
    assert build.library_path().name == first.name
    (sources / "cpu.cpp").write_text("// changed")
    assert build.library_path().name != first.name
    monkeypatch.undo()
    monkeypatch.setenv("DCN_CXXFLAGS", "-fsanitize=address")
    assert build.library_path().name != first.name
    monkeypatch.undo()
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    assert build.library_path().name != first.name


@pytest.fixture
def elsewhere(tmp_path):
    """A copy of the operator without anything built."""
    shutil.copytree(ROOT / "dcn", tmp_path / "dcn", ignore=shutil.ignore_patterns("build", "__pycache__"))
    for name in ("errors.py", "setup_dcn.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )


USE = "import dcn, torch; dcn.ensure_built(); dcn.DCNv2Pack(8, 8)(torch.ones(1, 8, 4, 4), torch.ones(1, 8, 4, 4)); print(dcn.backends())"


def test_without_a_compiler_one_clear_line_and_everything_works(elsewhere):
    used = run(elsewhere, sys.executable, "-c", USE, CXX="no-such-compiler")
    assert used.returncode == 0, used.stderr
    line, backends = used.stdout.strip().splitlines()
    assert "$CXX names 'no-such-compiler', which is not there" in line and "going on without" in line
    assert "compiled" not in backends
    script = run(elsewhere, "bash", "setup_dcn.sh", CXX="no-such-compiler", PYTHON=sys.executable)
    assert script.returncode == 1 and "not built" in script.stdout and "Traceback" not in script.stderr


def test_a_compiler_that_fails_is_asked_once(elsewhere):
    broken = elsewhere / "broken-c++"
    broken.write_text("#!/bin/sh\necho called >>calls\necho 'x.cpp:1: error: no such header' >&2\nexit 1\n")
    broken.chmod(0o755)
    for _ in range(2):
        used = run(elsewhere, sys.executable, "-c", USE, CXX=str(broken))
        assert used.returncode == 0 and "error: no such header" in used.stdout
    calls = (elsewhere / "calls").read_text().count("called")
    run(elsewhere, sys.executable, "-c", USE, CXX=str(broken))
    assert (elsewhere / "calls").read_text().count("called") == calls


def test_setup_script_usage_and_cleaning(elsewhere):
    assert run(elsewhere, "bash", "setup_dcn.sh", "--nonsense").returncode == 2
    assert "TORCH_CUDA_ARCH_LIST" in run(elsewhere, "bash", "setup_dcn.sh", "--help").stdout
    (elsewhere / "dcn" / "build").mkdir()
    assert run(elsewhere, "bash", "setup_dcn.sh", "--clean").returncode == 0
    assert not (elsewhere / "dcn" / "build").exists()


def test_why_cuda_is_left_out(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert build.find_cuda().why_not == "this PyTorch is a CPU build"
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    monkeypatch.setattr(shutil, "which", lambda *a, **k: None)
    assert "nvcc was not found" in build.find_cuda().why_not
    monkeypatch.setattr(shutil, "which", lambda *a, **k: "/cuda/bin/nvcc")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    assert "no CUDA device is visible" in build.find_cuda().why_not
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0;9.0+PTX")
    assert build.find_cuda().architectures == ["8.0", "9.0+PTX"]
    assert "-gencode=arch=compute_90,code=compute_90" in build.cuda_flags(["8.0", "9.0+PTX"])
