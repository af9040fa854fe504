"""The CUDA source without a GPU: its kernels run on the CPU and are compared with `dcn.plain`; nvcc compiles it for all cards.

`cuda_on_cpu/` replaces the launch by a loop over threads, in any order, and g++ adds AddressSanitizer and UBSan (out-of-bounds and
misaligned accesses). `cuda_source.py` has the comparisons.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from dcn import build, toolchain
from tests.dcn.cuda_source import BOUNDS

HERE = Path(__file__).parent
SHIM = HERE / "cuda_on_cpu"
ROOT = HERE.parents[1]
CASES = 248
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g1"]
ARCHITECTURES = os.environ.get("DCN_TEST_ARCHITECTURES", "7.5 9.0").split()


def sanitizer_libraries() -> list[str]:
    """libasan and libstdc++, which must be preloaded in this order; empty if g++ has no libasan."""
    found = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    return found if all(Path(name).is_absolute() for name in found) else []


def build_shim(folder: Path, flags: list[str]) -> Path:
    """Compile the CUDA source, the argument checks and the registration with g++; return the library's path."""
    host = folder / "host.cpp"  # one file: PyTorch's headers are read once
    parts = (build.SOURCES / "cuda.cpp", build.SOURCES / "arguments.cpp", SHIM / "register.cpp")
    host.write_text("".join(f'#include "{part}"\n' for part in parts))
    command = ["g++", "-O1", "-fPIC", *flags, "-DDCN_CHUNK_BYTES=4096", f"-I{SHIM}", f"-I{build.SOURCES}"]
    command += [*toolchain.torch_flags(), "-x", "c++", "-c"]
    sources = [build.SOURCES / "cuda_kernel.cu", host]
    objects = [folder / f"{source.stem}.o" for source in sources]
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(
            pool.map(lambda pair: run([*command, str(pair[0]), "-o", str(pair[1])]), zip(sources, objects, strict=True))
        )
    library = folder / "cuda_on_cpu.so"
    libraries = [f"-L{Path(torch.__file__).parent / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10"]
    run(["g++", "-shared", *flags, *map(str, objects), "-o", str(library), *libraries])
    return library


def run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    if shutil.which("g++") is None or sys.platform != "linux":
        pytest.skip("needs g++ on Linux")
    preload = sanitizer_libraries()
    library = build_shim(tmp_path_factory.mktemp("cuda_on_cpu"), SANITIZERS if preload else [])
    environment = dict(os.environ)
    if preload:  # PyTorch is not instrumented: leaks at exit are its own
        environment |= {"LD_PRELOAD": " ".join(preload), "ASAN_OPTIONS": "detect_leaks=0"}
    command = [sys.executable, str(HERE / "cuda_source.py"), str(library), str(CASES)]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return [json.loads(line) for line in ran.stdout.splitlines()]


def of(results: list[dict[str, Any]], check: str) -> list[dict[str, Any]]:
    chosen = [result for result in results if result["check"] == check]
    assert chosen
    return chosen


def assert_near(results: list[dict[str, Any]]) -> None:
    worst: dict[tuple[str, str], tuple[float, str]] = defaultdict(lambda: (0.0, ""))
    for result in results:
        for name, value in result["errors"].items():
            key = (result["kind"], name)
            worst[key] = max(worst[key], (value, result["case"]))
    far = {key: found for key, found in worst.items() if not found[0] < BOUNDS[key[0].split()[0]]}
    assert not far


@pytest.mark.slow
def test_random_cases_equal_plain(results):
    cases = of(results, "random")
    assert len(cases) == CASES and max(case["launches"] for case in cases) > 6  # several chunks of columns
    assert_near(cases)


@pytest.mark.slow
def test_deterministic_mode_does_not_depend_on_thread_order(results):
    cases = of(results, "deterministic")
    assert [case for case in cases if not case["same"]] == []
    exact = [case for case in cases if case["kind"] == "float64"]
    # Fixed-point numbers: about 1e-12 of the largest term
    assert all(case["errors"]["input"] < 1e-11 for case in exact)
    assert_near([case for case in cases if case["kind"] != "float64"])


@pytest.mark.slow
def test_unaligned_arguments(results):
    assert_near(of(results, "views"))


@pytest.mark.slow
def test_far_infinite_and_nan_offsets_and_empty_maps(results):
    assert [case for case in of(results, "hostile") + of(results, "empty") if not case["same"]] == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc was not found")
def test_nvcc_compiles_the_source(tmp_path):
    """For the oldest architecture and the one with 16-byte atomic operations; DCN_TEST_ARCHITECTURES names others."""
    flags = [*toolchain.torch_flags(), *toolchain.cuda_flags(ARCHITECTURES), "-Werror", "all-warnings"]
    for source, kind in (("cuda_kernel.cu", "-fatbin"), ("cuda.cpp", "-c")):
        target = tmp_path / source
        run(["nvcc", *flags, kind, str(build.SOURCES / source), "-o", str(target)])
        assert target.stat().st_size > 10_000
