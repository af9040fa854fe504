"""Cache decoded frames, so that training reads memory instead of decoding PNGs.

Every frame has a fixed position in one block of bytes, up to a limit; frames beyond the limit are decoded on every access.
The block is either memory shared by forked workers ("ram") or a memory-mapped file that later runs and other ranks reuse
("file"). A frame is valid once its checksum is in the table at the beginning, so a killed run leaves no partial frame.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data.clips import Clip, DegradedClip
from data.clips.derived import Derived
from data.files import temporary_path
from data.layouts import Pair
from data.media import colours
from errors import InputError

KINDS = ("ram", "file", "none")
ALIGN = 64  # bytes; frames start on cache lines
ABANDONED = 3600  # seconds after which an unfinished file counts as abandoned


@dataclass(frozen=True)
class CachedFrames:
    """Position of the first `count` frames of a clip: number in the table, first byte, shape and type."""

    number: int
    offset: int
    count: int
    shape: tuple[int, int, int]
    dtype: np.dtype

    @property
    def step(self) -> int:
        """Bytes from one frame to the next."""
        return _aligned(math.prod(self.shape) * self.dtype.itemsize)


class Store:
    """A block of bytes: a table of checksums (uint32, 0 for empty), then the frames."""

    def __init__(self, frames: int, nbytes: int, path: Path | None) -> None:
        self.frames, self.nbytes, self.path = frames, nbytes, path
        self._open()

    def _open(self) -> None:
        if self.path is None:
            block = mmap.mmap(-1, self.nbytes)  # anonymous and shared: forked workers see each other's frames
        else:
            with self.path.open("r+b") as file:
                block = mmap.mmap(file.fileno(), self.nbytes)
        self._block = block
        self._table = np.frombuffer(block, np.uint32, self.frames)
        self._checked: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {"frames": self.frames, "nbytes": self.nbytes, "path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)  # where workers are spawned, "ram" is one block per worker
        self._open()

    def get(self, places: CachedFrames, index: int) -> np.ndarray | None:
        """A read-only view of the frame, or None if it is missing or damaged."""
        number = places.number + index
        checksum = int(self._table[number])
        if checksum == 0:
            return None
        frame = self._view(places, index)
        if number not in self._checked:
            if _checksum(frame) != checksum:
                return None
            self._checked.add(number)
        frame.flags.writeable = False
        return frame

    def put(self, places: CachedFrames, index: int, frame: np.ndarray) -> None:
        """Store the frame `index` of a clip and its checksum."""
        target = self._view(places, index)
        target[...] = frame
        self._table[places.number + index] = _checksum(target)
        self._checked.add(places.number + index)

    def _view(self, places: CachedFrames, index: int) -> np.ndarray:
        values = np.frombuffer(self._block, places.dtype, math.prod(places.shape), places.offset + index * places.step)
        return values.reshape(places.shape)


def _checksum(frame: np.ndarray) -> int:
    return zlib.crc32(frame.reshape(-1).view(np.uint8).data) | 1  # never 0, which means empty


class CachedClip(Derived):
    """A clip that caches decoded frames in a store; `array` returns read-only views without alpha."""

    def __init__(self, clip: Clip, store: Store, places: CachedFrames) -> None:
        super().__init__(clip)
        self.store, self.places = store, places

    def array(self, index: int) -> np.ndarray:
        index = self.check_index(index)
        if index >= self.places.count:
            return self.clip.array(index)
        kept = self.store.get(self.places, index)
        if kept is not None:
            return kept
        together = self.clip.computed_together
        return {number: self._read(number) for number in (range(self.places.count) if together else [index])}[index]

    def _read(self, index: int) -> np.ndarray:
        """Read and store a frame."""
        frame = colours(self.clip.array(index))
        if frame.shape[-1] <= self.places.shape[-1]:  # not a colour frame in a grey clip
            self.store.put(self.places, index, frame)
        return frame


def cache_clips(clips: Sequence[Clip], kind: str, gigabytes: float, folder: str | Path = ".cache") -> list[Clip]:
    """Cache the decoded frames of clips.

    Args:
        kind: "ram", "file" or "none".   gigabytes: limit; frames are taken in the order of `clips` until it is reached.
        folder: where "file" keeps its files; the sum of all files there stays within the limit, the oldest go first.
    """
    if kind not in KINDS:
        raise InputError(f"cache is {kind!r}: expected one of {', '.join(KINDS)}")
    if kind == "none" or gigabytes <= 0:
        return list(clips)
    places, nbytes = _plan(clips, int(gigabytes * 2**30))
    frames = sum(mine.count for mine in places)
    if frames == 0:
        return list(clips)
    path = _file(clips, places, nbytes, Path(folder), gigabytes) if kind == "file" else None
    store = Store(frames, nbytes, path)
    return [CachedClip(clip, store, mine) if mine.count else clip for clip, mine in zip(clips, places, strict=True)]


def cache_pairs(
    pairs: Sequence[Pair], kind: str, gigabytes: float, folder: str | Path = ".cache", lr: bool = True
) -> list[Pair]:
    """`cache_clips` for ground truth and (with `lr`) low resolution; LR that is computed from GT uses the cached GT.

    Low resolution comes first: it is small and read most often.
    """
    if any(pair.gt is None for pair in pairs):
        raise InputError("only pairs with ground truth can be kept for training")
    gts = [pair.gt for pair in pairs if pair.gt is not None]
    kept = cache_clips([*(pair.lr for pair in pairs if lr), *gts], kind, gigabytes, folder)
    kept_lr, kept_gt = (kept[: len(pairs)], kept[len(pairs) :]) if lr else ([pair.lr for pair in pairs], kept)
    result = []
    for pair, low, gt in zip(pairs, kept_lr, kept_gt, strict=True):
        inner = low.clip if isinstance(low, CachedClip) else low
        if isinstance(inner, DegradedClip) and inner.clip is pair.gt:
            made = DegradedClip(gt, inner.configured, inner.scale)
            low = CachedClip(made, low.store, low.places) if isinstance(low, CachedClip) else made
        result.append(replace(pair, gt=gt, lr=low))
    return result


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGN) * ALIGN


def _plan(clips: Sequence[Clip], limit: int) -> tuple[list[CachedFrames], int]:
    """Assign cache positions in the order of clips and frames until `limit` bytes are used; also returns the bytes used."""
    end = _aligned(4 * sum(len(clip) for clip in clips))
    number, result = 0, []
    for clip in clips:
        dtype = np.dtype({8: np.uint8, 32: np.float32}.get(clip.bit_depth, np.uint16))
        places = CachedFrames(number, end, len(clip), (*clip.size, clip.channels), dtype)
        places = replace(places, count=max(min(len(clip), (limit - end) // places.step), 0))
        result.append(places)
        number, end = number + places.count, end + places.count * places.step
    return result, end


def _file(clips: Sequence[Clip], places: list[CachedFrames], nbytes: int, folder: Path, gigabytes: float) -> Path:
    """The cache file for exactly these frames, created if it is missing."""
    digest = hashlib.sha256(str(nbytes).encode())
    for clip, mine in zip(clips, places, strict=True):
        digest.update(f"{mine}".encode())
        for index in range(mine.count):
            digest.update(clip.identity(index).encode())
    path = folder / f"frames_{digest.hexdigest()[:24]}.cache"
    if path.is_file() and path.stat().st_size == nbytes:
        os.utime(path)  # in use: removed last
        return path
    if path.exists():
        print(f"{path}: is damaged (its size has changed): creating it again", flush=True)
        path.unlink()
    _make_room(folder, int(gigabytes * 2**30) - nbytes)
    temporary = temporary_path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.truncate(nbytes)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, nbytes)  # a full disk fails here, not during training
        _publish(temporary, path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be created ({error.strerror}); lower cache_gb or choose another folder"
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink()
    return path


def _publish(temporary: Path, path: Path) -> None:
    """Give a finished file its name, unless another rank was faster: then use that file."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links; ranks that replace each other's file keep their mappings
        temporary.replace(path)


def _make_room(folder: Path, allowed: int) -> None:
    """Remove the files used longest ago until the rest fits into `allowed` bytes (running users keep their mapping)."""
    for path in folder.glob(".frames_*.tmp.cache"):  # an old one belongs to a killed process
        with suppress(FileNotFoundError):  # its maker was just done with it
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()
    files = sorted(folder.glob("frames_*.cache"), key=lambda path: path.stat().st_mtime) if folder.is_dir() else []
    total = sum(path.stat().st_size for path in files)
    for path in files:
        if total <= allowed:
            return
        total -= path.stat().st_size
        with suppress(PermissionError):  # Windows keeps files that are mapped
            path.unlink(missing_ok=True)
