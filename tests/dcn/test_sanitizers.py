"""The CPU kernels under AddressSanitizer and UBSan."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dcn import build
from tests.processes import ROOT, Forked

FLAGS = "-g1 -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"


def build_library() -> None:
    print(build.build())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None or sys.platform != "linux", reason="needs g++ on Linux")
def test_sanitizers_find_nothing():
    asan = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(asan).is_absolute():
        pytest.skip("g++ comes without libasan")
    # torch.* libraries are not instrumented: leaks at exit are theirs, and they load before the runtime unless it is preloaded.
    if not os.access(ROOT / "dcn", os.W_OK):
        pytest.skip("needs a clone that this user may write")
    environment = {"DCN_CXXFLAGS": FLAGS, "CXX": "g++", "DCN_BACKEND": "compiled"}
    library = Forked(build_library, environment=environment).result().stdout.splitlines()[-1]
    assert b"__asan_report_load" in Path(library).read_bytes(), "the library under test is not instrumented"
    environment |= {"LD_PRELOAD": asan, "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0"}
    command = [sys.executable, str(ROOT / "tests" / "dcn" / "stress.py")]
    result = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "ok" in result.stdout
