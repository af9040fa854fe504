"""Results as files like their source: a folder of frames, a TIFF stack, or a film.

Bit depth, number of bands, stretch and georeference are those of the clip that the results were made from.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile
from torch import Tensor

from data import tiff
from data.clips import Clip, VideoClip
from data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, from_tensor, replacing, write_image
from data.video_writer import VideoWriter
from errors import InputError


class Writer(Protocol):
    """A context manager with `write`; what is written appears under its name once it is complete."""

    def __enter__(self) -> Any: ...

    def write(
        self, frame: Tensor, time: float | None = None, name: str | None = None, index: int | None = None
    ) -> None:
        """Add one (3, H, W) frame in [0, 1].

        time: seconds from the first frame, for films.
        name: file name without suffix, for folders; default that of the n-th frame of the source.
        index: the source's frame whose georeference it has; default the n-th, or the last.
        """

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None: ...


def open_writer(path: str | Path, like: Clip, suffix: str | None = None, **video: Any) -> Writer:
    """A writer chosen by the path: a film (.mp4, .mkv, ...), a TIFF stack (.tif) or a folder of frames.

    like: the source clip.   suffix: of frames in a folder; None keeps PNG and TIFF as they are and makes PNG of others.
    video: `fps`, `codec`, `crf`, `lossless`, `bits` of `VideoWriter`.
    """
    kind = Path(path).suffix.lower()
    if kind in VIDEO_SUFFIXES:
        film = film_of(like)
        options = {"fps": like.fps, **video} if film is None else video
        return VideoWriter(path, like=film, **options)
    if kind in (".tif", ".tiff"):
        return TiffStackWriter(path, like)
    return FolderWriter(path, like, suffix)


def film_of(clip: Clip) -> Any:
    """The film under a clip and the clips made from it, or None."""
    while not isinstance(clip, VideoClip):
        inner = getattr(clip, "clip", None)
        if inner is None:
            return None
        clip = inner
    return clip.film


def stored(frame: Tensor, like: Clip) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H, W, bands) in the type, bands and units of `like`'s files."""
    channels = like.channels
    if like.band_map is not None:
        return like.band_map.invert(from_tensor(frame, np.dtype(np.float32), channels))
    dtype = {8: np.uint8, 32: np.float32}.get(like.bit_depth, np.uint16)
    return from_tensor(frame, np.dtype(dtype), channels)


def scaled_geo(like: Clip, index: int, size: tuple[int, ...]) -> tiff.GeoTags | None:
    """The georeference of frame `index` for an image of `size` (H, W) on the same ground."""
    geo = like.geo(index)
    height, width = like.size
    return geo.scaled(size[0] / height, size[1] / width) if geo else None


class FolderWriter:
    """Frames as files of a folder, named as those of `like` (or as told)."""

    def __init__(self, folder: str | Path, like: Clip, suffix: str | None = None) -> None:
        self.folder, self.like = Path(folder), like
        own = Path(like.source(0)).suffix.lower()
        self.suffix = suffix or (own if own in (".png", ".tif", ".tiff") else ".png")
        if self.suffix == ".png" and like.band_map is not None and like.band_map.dtype not in (np.uint8, np.uint16):
            self.suffix = ".tif"  # PNG holds neither floats nor signed values
        if self.suffix not in IMAGE_SUFFIXES:
            raise InputError(
                f"{folder}: unknown image type {self.suffix!r}; use one of {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        self._count = 0

    def __enter__(self) -> FolderWriter:
        return self

    def write(
        self, frame: Tensor, time: float | None = None, name: str | None = None, index: int | None = None
    ) -> None:
        """See `Writer`."""
        number = min(self._count, len(self.like) - 1) if index is None else index
        if name is None:
            known = self._count < len(self.like)
            name = self.like.frame_names[self._count] if known else f"{self._count:08d}"
        path = self.folder / f"{name}{self.suffix}"
        array = stored(frame, self.like)
        if self.suffix in (".tif", ".tiff"):
            with replacing(path) as temporary:
                tiff.write(temporary, array, scaled_geo(self.like, number, array.shape))
        else:
            write_image(path, array)
        self._count += 1

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        return None


class TiffStackWriter:
    """All frames as pages of one TIFF file, with the georeference of `like` on each."""

    def __init__(self, path: str | Path, like: Clip) -> None:
        self.path, self.like = Path(path), like
        self._temporary = self.path.with_name(f".{self.path.stem}.{os.getpid()}.tmp{self.path.suffix}")
        self._writer: tifffile.TiffWriter | None = None
        self._count = 0

    def __enter__(self) -> TiffStackWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = tifffile.TiffWriter(self._temporary, bigtiff=True)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); choose another output folder"
            ) from error
        return self

    def write(
        self, frame: Tensor, time: float | None = None, name: str | None = None, index: int | None = None
    ) -> None:
        """See `Writer`."""
        assert self._writer is not None
        array = stored(frame, self.like)
        number = min(self._count, len(self.like) - 1) if index is None else index
        tiff.write_page(self._writer, array, scaled_geo(self.like, number, array.shape))
        self._count += 1

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._writer is not None:
            self._writer.close()
        if kind is None and self._count:
            self._temporary.replace(self.path)
            return
        with suppress(OSError):
            self._temporary.unlink()
        if kind is None:
            raise InputError(f"{self.path}: no frames to write")
