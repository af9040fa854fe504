"""Build the compiled kernels in place, for the current Python (see setup_dcn.sh).

It calls the C++ compiler in parallel and needs neither ninja nor Python's headers. The library's name contains a hash of all
its dependencies, so that a stale library is never loaded. The library is renamed into place when it is complete, and a `Record`
keeps its checksum, so that a damaged one is not loaded either.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from dcn.toolchain import ATTENTION, KERNEL, BuildError, Cuda, compile_library, extra_flags, find_compiler, find_cuda

HERE = Path(__file__).parent
SOURCES = HERE / "csrc"
FOLDER = HERE / "build"
SLOW_FAILURE = 10.0  # seconds: after a slower failure the compiler is not called again for a day, unless it changed
DAY = 24 * 3600.0


def library_path(cuda: Cuda | None = None) -> Path:
    """Path of the library for this PyTorch, machine, sources and cards, whether it exists or not."""
    cuda = cuda or find_cuda()
    digest = hashlib.sha256()
    for source in sorted(SOURCES.glob("*")):
        digest.update(source.name.encode() + source.read_bytes())
    dependencies = [
        *extra_flags(),
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
    if not SOURCES.is_dir():
        raise BuildError(f"{SOURCES} is missing: install a checkout of the repository with pip install -e")
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
            log(f"dcn: building the compiled operators with {compiler} (once, up to a minute or two) ...")
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
                    compile_library(SOURCES, compiler, cuda, work)
                except BuildError as error:
                    nvcc_failed = True
                    cuda = Cuda(
                        why_not=f"nvcc failed: {error} (bash setup_dcn.sh tries again, with CXX=COMPILER another compiler)"
                    )
            if not cuda.nvcc:
                compile_library(SOURCES, compiler, cuda, work)
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
