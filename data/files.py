"""Write files and folders atomically, and protect the user's files."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from data.naming import LONGEST_NAME
from errors import InputError

WINDOWS = os.name == "nt"
REPOSITORY = Path(__file__).resolve().parents[1]
UNFINISHED = re.compile(r"\.(?P<stem>.+)\.(?:\d+|[0-9a-f]{16})\.tmp(?P<suffix>\.[^.]+)?")  # digits: earlier releases
LONGEST_SUFFIX = 16  # bytes of a suffix that temporary names keep
# of this repository, in which no output may be written
OWN_FOLDERS = (".ci", ".git", "benchmarks", "checkpoints", "configs", "data", "dcn", "docs", "engine", "experiments", "losses",
               "metrics", "models", "tests")  # fmt: skip
MARKER = ".made-by-mtdo-stno"  # marker in every folder that this program creates and may remove


def in_repository(name: str) -> Path:
    """Path of a file or folder of this repository, relative if it is below the working folder."""
    path, here = REPOSITORY / name, Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def released_weights() -> dict[str, Path]:
    """The weights that come with this repository, by name."""
    return {path.stem: path for path in sorted((REPOSITORY / "checkpoints").glob("*.safetensors"))}


@contextmanager
def named_errors(path: str | Path, kind: str) -> Iterator[None]:
    """Convert the errors of opening `path` to one line. kind: the expected file, such as "an image file"."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, expected {kind}") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read it") from None


# --- temporary names ------------------------------------------------------------------------------------------------


def temporary_path(path: Path) -> Path:
    """A random temporary name for `path`: hidden, in the same folder, with the same suffix."""
    stem, suffix = _stem_and_suffix(path)
    return path.with_name(f".{stem}.{secrets.token_hex(8)}.tmp{suffix}")


def _stem_and_suffix(path: Path) -> tuple[str, str]:
    """Stem, shortened so that the temporary name is not too long, and suffix of a temporary name."""
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= LONGEST_SUFFIX else ""
    stem = path.stem if suffix else path.name
    return shortened(stem, LONGEST_NAME - len("..0123456789abcdef.tmp") - len(os.fsencode(suffix))), suffix


def hidden_path(path: Path, ending: str) -> Path:
    """The path `.NAME.ENDING` next to `path`, for a work folder or a lock."""
    name = shortened(path.name, LONGEST_NAME - len("..") - len(ending))
    return path.with_name(f".{name}.{ending}")


def shortened(name: str, room: int) -> str:
    """A name of at most `room` bytes: its beginning and a checksum of the full name if it is longer."""
    encoded = os.fsencode(name)
    if len(encoded) <= room:
        return name
    return f"{encoded[: room - 9].decode(errors='ignore')}~{hashlib.sha256(encoded).hexdigest()[:8]}"


def is_file(path: Path) -> bool:
    """Like `Path.is_file`; False for a name that is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


@contextmanager
def replacing(path: str | Path, *, replace: bool = True, sync: bool = True) -> Iterator[Path]:
    """A temporary file that is renamed to `path` when the block ends without an error.

    Args:
        replace: False raises InputError if `path` was created meanwhile.
        sync: flush the file and its folder to disk, so that a power failure leaves either the old or the new content.

    The temporary file is created exclusively and never through a link.
    """
    path = Path(path)
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
        os.close(os.open(temporary, flags, 0o666))
        yield temporary
        if sync:
            flush(temporary)
        move(temporary, path, replace=replace)
        if sync:
            flush(path.parent)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); choose another output folder"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_texts(texts: Mapping[Path, str]) -> None:
    """Write files in UTF-8 under temporary names, and rename them when all are complete and on disk, the first one first."""
    with ExitStack() as stack:
        for path in reversed(list(texts)):  # the stack is unwound from its end
            temporary = stack.enter_context(replacing(path, sync=False))
            temporary.write_text(texts[path], "utf-8", "backslashreplace")  # names of any bytes
            flush(temporary)
    for folder in {path.parent for path in texts}:
        flush(folder)


def move(source: Path, target: Path, *, replace: bool) -> None:
    """Rename a file. With `replace` False, InputError if `target` exists, checked by the file system itself."""
    if replace:
        source.replace(target)
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        raise InputError(
            f"'{target}' was created meanwhile and is not replaced: move it away or name another output"
        ) from None
    except (OSError, NotImplementedError):  # a file system without hard links
        if os.path.lexists(target):
            raise InputError(
                f"'{target}' was created meanwhile and is not replaced: move it away or name another output"
            ) from None
        source.rename(target)
        return
    source.unlink()


def holds(path: Path, content: bytes) -> bool:
    """Whether a file exists with this content."""
    try:
        return path.is_file() and path.read_bytes() == content
    except OSError:
        return False


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def flush(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk."""
    try:
        handle = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)  # Windows can flush only writable files
    except OSError:
        return  # a folder on Windows
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EROFS, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def remove_unfinished(place: Path) -> None:
    """Remove temporary files and folders of killed processes: inside a folder (recursively), or those next to a file.

    Call it only while no other process is writing.
    """
    inside = place.is_dir()
    remove(
        [path for path in place.rglob(".*") if UNFINISHED.fullmatch(path.name)] if inside else unfinished_next_to(place)
    )


def unfinished_next_to(place: Path) -> list[Path]:
    """Temporary files and folders of killed processes for the path `place`."""
    names = ((path, UNFINISHED.fullmatch(path.name)) for path in place.parent.glob(".*"))
    expected = _stem_and_suffix(place)
    return [path for path, match in names if match and (match["stem"], match["suffix"] or "") == expected]


def remove(found: Iterable[Path]) -> None:
    """Remove files and folders with their content, as far as possible."""
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


# --- protection of the user's files ---------------------------------------------------------------------------------


def resolved(path: str | Path) -> Path:
    """Resolve links and `..`. InputError for a loop of links or an invalid name."""
    try:
        return Path(path).resolve()  # `~` is a name like any other: shells expand it
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"'{path}': its links cannot be resolved ({error})") from None


def check_apart(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raises InputError if an output equals, contains or is inside an input, or overlaps the repository's own files.

    Outputs may have new names in the repository's root (such as `runs`), but not inside its own folders (`engine`, `data`, ...).
    """
    sources = [resolved(path) for path in inputs]
    linked = _files_by_number(sources)
    for output in outputs:
        target = resolved(output)
        if target.is_file() and (other := linked.get(_number(target))) not in (None, target):
            raise InputError(f"'{output}' is another name (a hard link) of the input '{other}': name another output")
        for source in sources:
            if target == source:
                raise InputError(f"'{output}' is the input itself: name another output")
            if source.is_relative_to(target):
                raise InputError(f"'{output}' contains the input '{source}': name another output")
            if target.is_relative_to(source):
                raise InputError(f"'{output}' is inside the input '{source}': name an output outside of it")
        if REPOSITORY.is_relative_to(target):
            raise InputError(f"'{output}' contains this program: name another output")
        inside = target.relative_to(REPOSITORY).parts if target.is_relative_to(REPOSITORY) else ()
        if inside and inside[0] in _own_names():
            raise InputError(f"'{output}' is among the files of this program: name an output elsewhere")


def _number(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _files_by_number(sources: Iterable[Path]) -> dict[tuple[int, int], Path]:
    """Input files that have several names (hard links), by device and number; of folders, the files in them."""
    found: dict[tuple[int, int], Path] = {}
    for source in sources:
        with suppress(OSError):
            for path in source.iterdir() if source.is_dir() else (source,):
                if path.is_file() and path.stat().st_nlink > 1:
                    found[_number(path)] = path
    return found


def _own_names() -> set[str]:
    """The repository's own entries in its root: folders of modules and files with known suffixes."""
    names = {path.name for path in REPOSITORY.iterdir() if path.suffix in (".py", ".md", ".toml", ".sh")}
    return names | set(OWN_FOLDERS)


def make_own_folder(folder: Path) -> None:
    """Create a folder with the marker that allows this program to remove it. An existing empty folder is reused."""
    folder.mkdir(parents=True, exist_ok=True)
    if not is_own_folder(folder) and any(folder.iterdir()):
        raise InputError(f"'{folder}' was not made by this program: move it away or name another output")
    with suppress(FileExistsError):
        os.close(os.open(folder / MARKER, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


def is_own_folder(folder: Path) -> bool:
    """Whether this program created the folder: it is a folder, not a link, and has the marker."""
    return folder.is_dir() and not folder.is_symlink() and (folder / MARKER).is_file()


def remove_own_folder(folder: Path) -> None:
    """Remove a folder created by `make_own_folder`, with its content; InputError for any other folder."""
    if not is_own_folder(folder):
        raise InputError(f"'{folder}' was not made by this program and is not removed: move it away yourself")
    doomed = temporary_path(folder)
    folder.rename(doomed)  # rename first: if the removal is killed, the rest is not mistaken for unfinished work
    shutil.rmtree(doomed, ignore_errors=True)
