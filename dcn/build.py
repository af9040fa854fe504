"""Build the compiled kernels in place, for the current Python (see setup_dcn.sh).

It calls the C++ compiler in parallel and needs neither ninja nor Python's headers. The library's name contains a hash of all
its dependencies, so that a stale library is never loaded. The library is renamed into place when it is complete, and a `Record`
keeps its checksum, so that a damaged one is not loaded either.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

HERE = Path(__file__).parent
SOURCES = HERE / "csrc"
FOLDER = HERE / "build"
X86 = platform.machine().lower() in ("x86_64", "amd64")
# -fno-trapping-math lets comparisons be vectorised; NaN and infinity keep their meaning (no -ffast-math).
KERNEL = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma", "-mprefer-vector-width=512"]
VARIANTS: dict[str, list[str]] = {"baseline": []} | ({"avx2": ["-mavx2", "-mfma"], "avx512": AVX512} if X86 else {})
ATTENTION = VARIANTS | ({"avx512bf16": [*AVX512, "-mavx512bf16"]} if X86 else {})
SLOW_FAILURE = 10.0  # seconds: after a slower failure the compiler is not called again for a day, unless it changed
DAY = 24 * 3600.0


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
    if torch.version.cuda is None:
        return Cuda(why_not="this PyTorch is a CPU build")
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    nvcc = shutil.which("nvcc", path=str(Path(home, "bin"))) or shutil.which("nvcc")
    if nvcc is None:
        return Cuda(why_not="nvcc was not found (install the CUDA toolkit or set CUDA_HOME)")
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").split()
    if not listed:
        cards = range(torch.cuda.device_count())
        listed = sorted({"{}.{}".format(*torch.cuda.get_device_capability(card)) for card in cards})
    if not listed:
        return Cuda(why_not="no CUDA device is visible (set TORCH_CUDA_ARCH_LIST to build for one that is not)")
    return Cuda(nvcc, listed)


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


def library_path(cuda: Cuda | None = None) -> Path:
    """Path of the library for this PyTorch, machine, sources and cards, whether it exists or not."""
    cuda = cuda or find_cuda()
    digest = hashlib.sha256()
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.name.encode() + source.read_bytes())
    dependencies = [
        *_extra_flags(),
        torch.__version__,
        torch.version.git_version,
        torch.compiled_with_cxx11_abi(),
        platform.machine(),
        platform.system(),
    ]
    digest.update(repr([*dependencies, cuda.architectures, KERNEL, ATTENTION]).encode())
    return FOLDER / f"dcn-{digest.hexdigest()[:16]}.so"


@dataclass
class Record:
    """Facts about a library, stored next to it as JSON."""

    sha256: str
    note: str  # for which devices it is
    nvcc_failed: bool = False

    @staticmethod
    def of(library: Path) -> Record | None:
        """Read the record; None if it is missing or unreadable."""
        try:
            return Record(**json.loads(library.with_suffix(".json").read_text()))
        except (OSError, ValueError, TypeError):
            return None


def intact(library: Path) -> bool:
    """Whether the library exists and is byte for byte as it was built."""
    record = Record.of(library)
    return record is not None and library.is_file() and record.sha256 == _checksum(library)


def build(log: Callable[[str], object] = print, force: bool = False) -> Path:
    """Build the library unless it exists intact; returns its path. Raises BuildError (one line).

    `force` also retries after a slow compiler failure (`SLOW_FAILURE`) or a failure of nvcc.
    """
    began = time.time()
    cuda = find_cuda()
    library = library_path(cuda)
    if _usable(library, force):
        return library
    compiler = find_compiler()
    try:
        FOLDER.mkdir(exist_ok=True)
        with locked():
            if _usable(library, force):  # another process was faster
                return library
            if library.exists() and not intact(library):
                log(f"dcn: {library.name} is damaged: building it again")
            _forget_failure(library.with_suffix(".failed"), compiler, began, force, log)
            log(f"dcn: building the compiled operators with {compiler} (once, about 30 s) ...")
            _build(compiler, cuda, library, log)
    except OSError as error:
        raise BuildError(f"cannot write to {FOLDER}: {error}") from error
    return library


def _usable(library: Path, force: bool) -> bool:
    if not intact(library):
        return False
    record = Record.of(library)
    return not (force and record is not None and record.nvcc_failed)


@dataclass
class Failure:
    """A failed build; stored as JSON under the library's name with the suffix .failed."""

    compiler: str
    identity: str  # of the compiler's file
    seconds: float
    error: str

    def __str__(self) -> str:
        return self.error


def _forget_failure(path: Path, compiler: str, began: float, force: bool, log: Callable[[str], object]) -> None:
    """Remove the record of an earlier failure and log a line, or raise the failure again if another attempt would only cost time."""
    if not path.exists():
        return
    try:
        failure = Failure(**json.loads(path.read_text()))
        same = failure.identity == _identity(compiler)
        age = time.time() - path.stat().st_mtime
        meanwhile = path.stat().st_mtime >= began  # another process failed while this one waited for the lock
        if same and not force and (meanwhile or (failure.seconds > SLOW_FAILURE and age < DAY)):
            raise BuildError(failure.error)
        log(f"dcn: an earlier build with {failure.compiler} failed ({failure.error}): trying again")
    except (ValueError, TypeError):
        log(f"dcn: {path.name} cannot be read: building again")
    path.unlink(missing_ok=True)


def _identity(compiler: str) -> str:
    """A fingerprint of the compiler, which changes when the compiler is replaced."""
    file = Path(compiler).resolve()
    info = file.stat()
    return f"{file} {info.st_size} {info.st_mtime_ns}"


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _build(compiler: str, cuda: Cuda, library: Path, log: Callable[[str], object]) -> None:
    start = time.monotonic()
    nvcc_failed = False
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        work = Path(folder)
        try:
            if cuda.nvcc:
                try:
                    _compile(compiler, cuda, work)
                except BuildError as error:
                    nvcc_failed = True
                    cuda = Cuda(why_not=f"nvcc failed: {error} (bash setup_dcn.sh tries again)")
            if not cuda.nvcc:
                _compile(compiler, cuda, work)
        except BuildError as error:
            failure = Failure(compiler, _identity(compiler), time.monotonic() - start, str(error))
            _write_json(library.with_suffix(".failed"), asdict(failure), work)
            raise
        note = f"for CPU and CUDA ({', '.join(cuda.architectures)})" if cuda.nvcc else f"for CPU only: {cuda.why_not}"
        built = work / "dcn.so"
        _write_json(library.with_suffix(".json"), asdict(Record(_checksum(built), note, nvcc_failed)), work)
        built.replace(library)
    log(f"dcn: built {note}")


def _write_json(path: Path, content: dict[str, object], folder: Path) -> None:
    """Write the file by a rename from `folder`, which is on the same disk."""
    temporary = folder / path.name
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


def _compile(compiler: str, cuda: Cuda, work: Path) -> None:
    """Compile all sources in parallel, then link `work/dcn.so`."""
    standard = language_standard()
    headers = Path(torch.__file__).parent / "include"
    includes = ["-isystem", str(headers), "-isystem", str(headers / "torch" / "csrc" / "api" / "include")]
    defines = abi_flags()
    openmp = [] if platform.system() == "Darwin" else ["-fopenmp"]
    host = [standard, "-O2", "-fPIC", *openmp, *defines, *includes] + (["-DDCN_X86"] if X86 else [])
    commands = {
        "operator": [compiler, *host, *(["-DDCN_CUDA"] if cuda.nvcc else []), "-c", str(SOURCES / "operator.cpp")]
    }
    for name in ("arguments", "cpu", "attention", "query", "motion"):
        commands[name] = [compiler, *host, "-c", str(SOURCES / f"{name}.cpp")]
    for source, variants in (("cpu", VARIANTS), ("attention", ATTENTION), ("query", VARIANTS), ("motion", VARIANTS)):
        for name, flags in variants.items():
            variant = ["-std=c++17", "-fPIC", *KERNEL, *flags, f"-DDCN_ISA={name}"]
            commands[f"{source}_{name}"] = [compiler, *variant, "-c", str(SOURCES / f"{source}_kernel.cpp")]
    if cuda.nvcc:
        commands["cuda"] = [
            cuda.nvcc,
            standard,
            *cuda_flags(cuda.architectures),
            *defines,
            *includes,
            "-ccbin",
            compiler,
        ]
        commands["cuda"] += ["-c", str(SOURCES / "cuda.cu")]
    objects = [str(work / f"{name}.o") for name in commands]
    slow = ["cuda", "cpu", "attention", "query", "motion", "operator", "cpu_avx512", "cpu_avx2", "cpu_baseline"]
    longest_first = sorted(commands, key=lambda name: slow.index(name) if name in slow else len(slow))
    extra = _extra_flags()
    for name in commands.keys() - {"cuda"}:
        commands[name] += extra
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        list(pool.map(lambda name: _run([*commands[name], "-o", str(work / f"{name}.o")]), longest_first))
    _run([compiler, "-shared", *openmp, *extra, *objects, "-o", str(work / "dcn.so"), *_libraries(cuda)])


def cuda_flags(architectures: list[str]) -> list[str]:
    """Flags of nvcc for cuda.cu; architectures as in TORCH_CUDA_ARCH_LIST ("8.0", "9.0a", "8.6+PTX")."""
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


def _extra_flags() -> list[str]:
    """Additional flags of the C++ compiler, from DCN_CXXFLAGS, for sanitizers and experiments; part of the library's name."""
    return os.environ.get("DCN_CXXFLAGS", "").split()


def _libraries(cuda: Cuda) -> list[str]:
    folder = Path(torch.__file__).parent / "lib"
    if not cuda.nvcc:
        return [f"-L{folder}", "-ltorch", "-ltorch_cpu", "-lc10"]
    toolkit = Path(cuda.nvcc).resolve().parent.parent
    runtime = [f"-L{toolkit / 'lib64'}", f"-L{toolkit / 'lib'}", "-lcudart"]
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


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Allow one process at a time to write to FOLDER, across ranks too."""
    with (FOLDER / "lock").open("w") as file:
        try:
            import fcntl
        except ImportError:  # this system has no file locks: the renames still keep every file complete
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Return 0 if the library is built; 1 and print the reason if it cannot be built (everything works without it, but slower)."""
    try:
        before = _usable(library_path(), force=True)
        library = build(force=True)
    except BuildError as error:
        print(f"dcn: not built: {error}. Everything works without it, but slower.")
        return 1
    if before:
        record = Record.of(library)
        print(f"dcn: already built {record.note if record else ''}; nothing to do")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
