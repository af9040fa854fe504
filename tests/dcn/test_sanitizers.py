"""The CPU kernels under AddressSanitizer and UBSan."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FLAGS = "-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None or sys.platform != "linux", reason="needs g++ on Linux")
def test_sanitizers_find_nothing():
    asan = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(asan).is_absolute():
        pytest.skip("g++ comes without libasan")
    # torch.* libraries are not instrumented: leaks at exit are theirs, and they load before the runtime unless it is preloaded.
    environment = os.environ | {"DCN_CXXFLAGS": FLAGS, "CXX": "g++", "DCN_BACKEND": "compiled"}
    build = "import dcn, sys; sys.exit(not dcn.ensure_built())"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", build], cwd=root, env=environment, capture_output=True, check=False)
    where = "from dcn import build; print(build.library_path())"
    library = subprocess.run(
        [sys.executable, "-c", where], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert b"__asan_report_load" in Path(library.stdout.strip()).read_bytes(), (
        "the library under test is not instrumented"
    )
    environment |= {"LD_PRELOAD": asan, "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0"}
    stress = Path(__file__).with_name("stress.py")
    result = subprocess.run(
        [sys.executable, str(stress)], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "ok" in result.stdout
