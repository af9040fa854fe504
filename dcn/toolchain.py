"""Compilers of the kernels, their flags and commands."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch

X86 = platform.machine().lower() in ("x86_64", "amd64")
# -fno-trapping-math lets comparisons be vectorised; NaN and infinity keep their meaning (no -ffast-math).
KERNEL = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma", "-mprefer-vector-width=512"]
VARIANTS: dict[str, list[str]] = {"baseline": []} | ({"avx2": ["-mavx2", "-mfma"], "avx512": AVX512} if X86 else {})
ATTENTION = VARIANTS | ({"avx512bf16": [*AVX512, "-mavx512bf16"]} if X86 else {})
VARIANTS_OF = {"cpu": VARIANTS, "attention": ATTENTION, "query": VARIANTS, "motion": VARIANTS}  # of NAME_kernel.cpp
HOST = ("operator", "arguments", "cpu", "attention", "query", "motion")  # NAME.cpp


class BuildError(RuntimeError):
    """The kernels cannot be built here; the message is one line."""


@dataclass
class Cuda:
    """How to build the CUDA kernel, or why not."""

    nvcc: str = ""
    architectures: list[str] = field(default_factory=list)
    why_not: str = ""


def find_cuda() -> Cuda:
    """nvcc and the architectures to build for: TORCH_CUDA_ARCH_LIST, else those of the cards present."""
    if torch.version.hip:
        return Cuda(why_not="this PyTorch is for AMD's GPUs, and the operator is for NVIDIA's only")
    if torch.version.cuda is None:
        return Cuda(why_not="this PyTorch is a CPU build")
    nvcc, why_not = _find_nvcc(torch.version.cuda)
    if not nvcc:
        return Cuda(why_not=why_not)
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").split()
    if not listed:
        listed, why_not = _architectures_present()
    return Cuda(nvcc, listed) if listed else Cuda(why_not=why_not)


def _architectures_present() -> tuple[list[str], str]:
    """The architectures of the cards, or the reason why there are none."""
    try:
        cards = range(torch.cuda.device_count())
        listed = sorted({"{}.{}".format(*torch.cuda.get_device_capability(card)) for card in cards})
    except (RuntimeError, AssertionError) as error:  # cards are counted without the driver, which may be too old
        return [], f"no CUDA device can be used ({str(error).partition(chr(10))[0]})"
    return listed, "no CUDA device is visible (set TORCH_CUDA_ARCH_LIST to build for one that is not)"


def _find_nvcc(version: str) -> tuple[str, str]:
    """nvcc of CUDA_HOME, of PATH, or of the pip package nvidia-cuda-nvcc, which exists from CUDA 13 on: the first one of PyTorch's
    major version. Empty if there is none, with the reason.
    """
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    packages = importlib.util.find_spec("nvidia")
    folders = packages.submodule_search_locations if packages and packages.submodule_search_locations else []
    major = version.split(".")[0]
    pip = [str(Path(folder, f"cu{major}", "bin")) for folder in folders]
    places = [str(Path(home, "bin")), *os.environ.get("PATH", os.defpath).split(os.pathsep), *pip]
    other = ""
    for nvcc in filter(None, (shutil.which("nvcc", path=place) for place in places)):
        release = _release(nvcc)
        if release.split(".")[0] in ("", major):
            return nvcc, ""
        other = other or f"{nvcc} is of CUDA {release}, this PyTorch of CUDA {version}"
    return "", f"{other or 'nvcc was not found'} (install the CUDA toolkit, set CUDA_HOME, or see docs/gpu.md for pip)"


@cache
def _release(nvcc: str) -> str:
    """The CUDA version of an nvcc, such as "13.0"; empty if it does not say."""
    try:
        text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"release (\d+\.\d+)", text)
    return found[1] if found else ""


def find_compiler() -> str:
    """The C++ compiler: $CXX, else c++, g++ or clang++ on PATH. Raises BuildError."""
    if platform.system() == "Windows":
        raise BuildError("they are built on Linux and macOS only (on Windows: use WSL)")
    named = os.environ.get("CXX")
    for candidate in [named] if named else ["c++", "g++", "clang++"]:
        found = shutil.which(candidate)
        if found:
            return found
    where = f"$CXX names {named!r}, which was not found" if named else "no C++ compiler (c++, g++, clang++) on PATH"
    raise BuildError(f"{where}; install one (Debian, Ubuntu: apt install g++)")


def compile_library(sources: Path, compiler: str, cuda: Cuda, work: Path) -> None:
    """Compile the files in `sources` in parallel, then link `work/dcn.so`. Raises BuildError."""
    openmp = [] if platform.system() == "Darwin" else ["-fopenmp"]
    extra = extra_flags()
    commands = _cuda_commands(sources, compiler, cuda)
    host = work / "host.cpp"  # one file, because PyTorch's headers take most of the time
    host.write_text("".join(f'#include "{name}.cpp"\n' for name in HOST))
    commands["host"] = [compiler, *torch_flags(), "-O2", "-fPIC", *openmp, f"-I{sources}"]
    commands["host"] += [
        *(["-DDCN_X86"] if X86 else []),
        *(["-DDCN_CUDA"] if cuda.nvcc else []),
        *extra,
        "-c",
        str(host),
    ]
    for kernel, variants in VARIANTS_OF.items():
        for variant, flags in variants.items():
            command = [compiler, "-std=c++17", "-fPIC", *KERNEL, *flags, f"-DDCN_ISA={variant}", *extra]
            commands[f"{kernel}_{variant}"] = [*command, "-c", str(sources / f"{kernel}_kernel.cpp")]
    objects = {name: str(work / f"{name}.o") for name in commands}
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:  # they start in this order: the slowest first
        list(pool.map(lambda name: _run([*commands[name], "-o", objects[name]]), commands))
    _run([compiler, "-shared", *openmp, *extra, *objects.values(), "-o", str(work / "dcn.so"), *_libraries(cuda)])


def _cuda_commands(sources: Path, compiler: str, cuda: Cuda) -> dict[str, list[str]]:
    if not cuda.nvcc:
        return {}
    command = [cuda.nvcc, *torch_flags(), *cuda_flags(cuda.architectures), "-ccbin", compiler, "-c"]
    return {"cuda_kernel": [*command, str(sources / "cuda_kernel.cu")], "cuda": [*command, str(sources / "cuda.cpp")]}


def torch_flags() -> list[str]:
    """Flags for files that include PyTorch's headers."""
    headers = Path(torch.__file__).parent / "include"
    folders = (headers, headers / "torch" / "csrc" / "api" / "include")
    return [language_standard(), *abi_flags(), *(word for folder in folders for word in ("-isystem", str(folder)))]


def cuda_flags(architectures: list[str]) -> list[str]:
    """Flags of nvcc for cuda.cpp and cuda_kernel.cu; architectures as in TORCH_CUDA_ARCH_LIST ("8.0", "9.0a", "8.6+PTX")."""
    flags = [
        "-O3",
        "-DDCN_CUDA",
        "-DC10_USING_CUSTOM_GENERATED_MACROS",
        "--expt-relaxed-constexpr",
        "-Xcompiler",
        "-fPIC",
    ]
    for architecture in architectures:
        number = architecture.removesuffix("+PTX").replace(".", "")
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if architecture.endswith("+PTX"):
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


def extra_flags() -> list[str]:
    """Additional flags of the C++ compiler, from DCN_CXXFLAGS, for sanitizers and experiments; part of the library's name."""
    return os.environ.get("DCN_CXXFLAGS", "").split()


def _libraries(cuda: Cuda) -> list[str]:
    folder = Path(torch.__file__).parent / "lib"
    if not cuda.nvcc:
        return [f"-L{folder}", "-ltorch", "-ltorch_cpu", "-lc10"]
    toolkit = Path(cuda.nvcc).resolve().parent.parent
    runtime = [f"-L{toolkit / 'lib64'}", f"-L{toolkit / 'lib'}", "-lcudart"]
    versioned = sorted((toolkit / "lib").glob("libcudart.so.*"))
    if versioned and not (toolkit / "lib" / "libcudart.so").exists():  # as pip installs it
        runtime = [str(versioned[0])]
    return [f"-L{folder}", "-ltorch", "-ltorch_cpu", "-ltorch_cuda", "-lc10", "-lc10_cuda", *runtime]


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if result.returncode:
        lines = (result.stderr + result.stdout).splitlines()
        telling = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "no message")
        raise BuildError(f"{Path(command[0]).name} failed with code {result.returncode}: {telling.strip()}")


def language_standard() -> str:
    """The flag for the C++ standard that PyTorch's headers need."""
    major, minor = torch.__version__.split(".")[:2]
    return "-std=c++20" if (int(major), int(minor)) >= (2, 9) else "-std=c++17"


def abi_flags() -> list[str]:
    return [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"]
