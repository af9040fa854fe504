"""Choice of implementation, building on demand, and messages about missing parts."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dcn
from dcn import build, toolchain
from dcn import compiled as compiled_module
from errors import InputError
from tests.dcn.cases import Case

ROOT = Path(__file__).parents[2]


def call():
    case = Case()
    return dcn.deform_conv2d(**case.tensors(torch.float32), **case.settings())


def used(monkeypatch) -> list[str]:
    """Record the calls of the plain implementation."""
    seen: list[str] = []
    plain = dcn.plain.deform_conv2d
    monkeypatch.setattr(dcn.plain, "deform_conv2d", lambda *a: seen.append("plain") or plain(*a))
    return seen


def test_plain_is_always_the_last_backend():
    assert dcn.backends()[-1] == "plain"
    assert set(dcn.backends()) <= {"compiled", "torchvision", "plain"}


def test_compiled_is_the_first_backend(compiled, monkeypatch):
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
def test_missing_torchvision_is_named():
    dcn.set_backend("torchvision")
    with pytest.raises(InputError, match="torchvision does not import"):
        call()


def test_library_name_depends_on_sources_flags_and_torch(monkeypatch, tmp_path):
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
    """A copy of the operator that has not been built."""
    shutil.copytree(ROOT / "dcn", tmp_path / "dcn", ignore=shutil.ignore_patterns("build", "__pycache__"))
    for name in ("errors.py", "setup_dcn.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )


USE = "import dcn, torch; dcn.ensure_built(); dcn.DCNv2Pack(8, 8)(torch.ones(1, 8, 4, 4), torch.ones(1, 8, 4, 4)); print(dcn.backends())"


def test_without_compiler_one_warning_and_plain_works(elsewhere):
    used = run(elsewhere, sys.executable, "-c", USE, CXX="no-such-compiler")
    assert used.returncode == 0, used.stderr
    line, backends = used.stdout.strip().splitlines()
    assert "$CXX names 'no-such-compiler', which was not found" in line and "continuing without" in line
    assert "compiled" not in backends
    script = run(elsewhere, "bash", "setup_dcn.sh", CXX="no-such-compiler", PYTHON=sys.executable)
    assert script.returncode == 1 and "not built" in script.stdout and "Traceback" not in script.stderr


BROKEN = "#!/bin/sh\necho called >>{calls}\necho 'x.cpp:1: error: no such header' >&2\nexit 1\n"


@pytest.fixture
def broken(monkeypatch, tmp_path):
    """A compiler that always fails, and an empty build folder."""
    path = tmp_path / "broken-c++"
    path.write_text(BROKEN.format(calls=shlex.quote(str(tmp_path / "calls"))))
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))
    monkeypatch.setattr(build, "FOLDER", tmp_path / "build")
    monkeypatch.setattr(build, "SLOW_FAILURE", 10_000.0)  # slower than this compiler on any machine
    return path


def failed_build(compiler: Path) -> tuple[list[str], bool]:
    """The messages, and whether the compiler was called."""
    lines: list[str] = []
    calls = compiler.with_name("calls")
    calls.unlink(missing_ok=True)
    with pytest.raises(build.BuildError, match=r"broken-c\+\+ failed with code 1: x.cpp:1: error: no such header"):
        build.build(lines.append)
    return lines, calls.exists()


def test_missing_sources_are_named(monkeypatch, tmp_path):
    """As in a wheel, which holds Python files only."""
    monkeypatch.setattr(build, "SOURCES", tmp_path / "csrc")
    monkeypatch.setattr(compiled_module, "_loaded", False)
    lines: list[str] = []
    assert not dcn.ensure_built(lines.append)
    assert len(lines) == 1 and "csrc is missing" in lines[0] and lines[0].endswith("continuing without them")


def test_failed_build_is_repeated(broken):
    lines, asked = failed_build(broken)
    assert len(lines) == 1 and asked
    lines, asked = failed_build(broken)
    assert lines[0].startswith(f"dcn: an earlier build with {broken} failed (broken-c++ failed with code 1") and asked


@pytest.mark.parametrize("content", ["not JSON", "{}", '{"compiler": 3}', "[]"])
def test_unreadable_failure_record_is_removed(broken, content):
    failed_build(broken)
    (trace,) = build.FOLDER.glob("*.failed")
    trace.write_text(content)
    lines, asked = failed_build(broken)
    assert lines[0] == f"dcn: {trace.name} cannot be read: building again" and asked


def test_slow_failed_build_is_repeated_after_a_day_or_a_change(broken):
    failed_build(broken)
    (trace,) = build.FOLDER.glob("*.failed")
    trace.write_text(json.dumps(json.loads(trace.read_text()) | {"seconds": 10_001.0}))
    assert failed_build(broken) == ([], False)
    os.utime(trace, (0, 0))
    assert failed_build(broken)[1]
    trace.write_text(json.dumps(json.loads(trace.read_text()) | {"seconds": 10_001.0}))
    broken.write_text(broken.read_text() + "# another release\n")
    assert failed_build(broken)[1]


@pytest.fixture
def copied(compiled, monkeypatch, tmp_path):
    """A fake compiler that copies the existing library into an empty build folder, so that nothing is compiled."""
    good, folder = build.library_path(), tmp_path / "build"
    fake = tmp_path / "c++"
    place, library = shlex.quote(str(folder)), shlex.quote(str(good))
    fake.write_text(
        f'#!/bin/sh\ncase "$*" in *-shared*) for work in {place}/tmp*; do cp {library} "$work/dcn.so"; done;; esac\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("CXX", str(fake))
    monkeypatch.setattr(build, "FOLDER", folder)
    return build.build()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no record", "foreign record"])
def test_damaged_library_is_rebuilt(copied, damage):
    content, record = copied.read_bytes(), copied.with_suffix(".json")
    if damage == "truncated":
        copied.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        copied.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    elif damage == "no record":
        record.unlink()
    else:
        record.write_text("[]")
    lines: list[str] = []
    assert build.build(lines.append) == copied and copied.read_bytes() == content
    assert lines[0] == f"dcn: {copied.name} is damaged: building it again"
    assert build.build(lines.append) == copied and len(lines) == 3


def test_library_that_does_not_load_is_rebuilt(copied, monkeypatch):
    """The checksum matches the record. Loading the new library would register the operators twice, so loading is patched."""
    content, record = copied.read_bytes(), copied.with_suffix(".json")
    copied.write_bytes(b"not a library")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"sha256": build._checksum(copied)}))
    load = torch.ops.load_library

    def load_foreign(path):
        return load(path) if Path(path).read_bytes() != content else None

    monkeypatch.setattr(torch.ops, "load_library", load_foreign)
    monkeypatch.setattr(compiled_module, "_register", lambda: None)
    for name, value in (("_loaded", False), ("_tried", False), ("_why_not", "")):
        monkeypatch.setattr(compiled_module, name, value)
    lines: list[str] = []
    assert dcn.ensure_built(lines.append)
    assert f"dcn: {copied.name} does not load (" in lines[0] and lines[0].endswith("): building it again")
    assert copied.read_bytes() == content


def test_setup_script_usage_and_cleaning(elsewhere):
    assert run(elsewhere, "bash", "setup_dcn.sh", "--nonsense").returncode == 2
    assert "TORCH_CUDA_ARCH_LIST" in run(elsewhere, "bash", "setup_dcn.sh", "--help").stdout
    (elsewhere / "dcn" / "build").mkdir()
    assert run(elsewhere, "bash", "setup_dcn.sh", "--clean").returncode == 0
    assert not (elsewhere / "dcn" / "build").exists()


def test_reasons_for_building_without_cuda(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert toolchain.find_cuda().why_not == "this PyTorch is a CPU build"
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    monkeypatch.setattr(shutil, "which", lambda *a, **k: None)
    assert "nvcc was not found" in toolchain.find_cuda().why_not
    monkeypatch.setattr(shutil, "which", lambda *a, **k: "/cuda/bin/nvcc")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    assert "no CUDA device is visible" in toolchain.find_cuda().why_not
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0;9.0+PTX")
    assert toolchain.find_cuda().architectures == ["8.0", "9.0+PTX"]
    assert "-gencode=arch=compute_90,code=compute_90" in toolchain.cuda_flags(["8.0", "9.0+PTX"])
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert toolchain.find_cuda().why_not == "this PyTorch is for AMD's GPUs, and the operator is for NVIDIA's only"


def test_driver_that_is_too_old_is_no_error(monkeypatch):
    """Cards are counted without the driver; what needs it fails, also for runs on the CPU."""

    def fails(card):
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nPlease update")

    monkeypatch.setattr(torch.version, "cuda", "12.4")
    monkeypatch.setattr(toolchain, "_find_nvcc", lambda version: ("/cuda/bin/nvcc", ""))
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", fails)
    why_not = "no CUDA device can be used (The NVIDIA driver on your system is too old (found version 11040).)"
    assert toolchain.find_cuda() == toolchain.Cuda(why_not=why_not)


def test_nvcc_of_another_version_is_not_used(monkeypatch, tmp_path):
    """A toolkit of another major version would bring a second CUDA runtime into the process."""
    for version in ("11.8", "13.1"):
        nvcc = tmp_path / version / "nvcc"
        nvcc.parent.mkdir()
        nvcc.write_text(f"#!/bin/sh\necho Cuda compilation tools, release {version}, V{version}.89\n")
        nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "11.8"), str(tmp_path / "13.1"), os.environ["PATH"]]))
    assert toolchain._find_nvcc("13.0") == (str(tmp_path / "13.1" / "nvcc"), "")
    nvcc, why_not = toolchain._find_nvcc("12.8")
    assert not nvcc and why_not.startswith(
        f"{tmp_path / '11.8' / 'nvcc'} is of CUDA 11.8, this PyTorch of CUDA 12.8 (install"
    )


def test_nvcc_of_pip_is_found_and_its_runtime_linked(monkeypatch, tmp_path):
    """pip installs nvidia/cu13/bin/nvcc and lib/libcudart.so.13, without the name libcudart.so."""
    toolkit = tmp_path / "nvidia" / "cu13"
    for name in ("bin/nvcc", "lib/libcudart.so.13"):
        (toolkit / name).parent.mkdir(parents=True, exist_ok=True)
        (toolkit / name).write_text("")
        (toolkit / name).chmod(0o755)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    cuda = toolchain.find_cuda()
    assert cuda.nvcc == str(toolkit / "bin" / "nvcc")
    libraries = toolchain._libraries(cuda)
    assert str(toolkit / "lib" / "libcudart.so.13") in libraries and "-lcudart" not in libraries
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert "nvcc was not found" in toolchain.find_cuda().why_not


def test_windows_error_says_that_nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain.platform, "system", lambda: "Windows")
    with pytest.raises(build.BuildError, match="built on Linux and macOS only"):
        toolchain.find_compiler()
