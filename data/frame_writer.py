"""Write frames: lossless buffers for unfinished work, image files, and TIFF stacks with their georeference."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from data import tiff
from data.files import replacing
from data.media import IMAGE_SUFFIXES, write_image
from errors import InputError

STACK_SUFFIXES = (".tif", ".tiff")


def store_frame(path: Path, array: np.ndarray) -> None:
    """Keep (H, W, C) losslessly and fast; a reader never sees half a file."""
    with replacing(path) as temporary:
        rows = imagecodecs.delta_encode(np.ascontiguousarray(array), axis=1)
        temporary.write_bytes(imagecodecs.zstd_encode(rows.tobytes(), level=1))


def load_frame(path: Path, shape: tuple[int, int, int], dtype: np.dtype) -> np.ndarray:
    """What `store_frame` wrote."""
    rows = np.frombuffer(imagecodecs.zstd_decode(path.read_bytes()), dtype).reshape(shape)
    return imagecodecs.delta_decode(rows, axis=1)


def write_frame(path: Path, array: np.ndarray, geo: tiff.GeoTags | None) -> None:
    """One frame as an image file; `geo` (of the output's size) is for TIFF."""
    if path.suffix.lower() in STACK_SUFFIXES:
        with replacing(path) as temporary:
            tiff.write(temporary, array, geo)
    else:
        write_image(path, array)


def write_stack(
    path: Path, frames: Iterable[np.ndarray], total_bytes: int, geos: Iterable[tiff.GeoTags | None]
) -> None:
    """All frames as the pages of one TIFF, each with its georeference; above 2 GiB as BigTIFF."""
    with replacing(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=total_bytes > 2**31) as writer:
        for array, geo in zip(frames, geos, strict=True):
            tiff.write_page(writer, array, geo)


def check_free(out: Path, kind: str, overwrite: bool) -> None:
    """Raises InputError if something that nobody gave up lies where the output is to go."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise InputError(f"'{out}' exists: say --overwrite to replace it, or name another output")
    if out.is_dir() != (kind == "frames"):
        raise InputError(f"'{out}' is {'a folder' if out.is_dir() else 'a file'}: name another output")
    if kind == "frames":
        foreign = next((path for path in out.iterdir() if path.suffix.lower() not in IMAGE_SUFFIXES), None)
        if foreign:
            raise InputError(
                f"'{out}' holds more than frames ({foreign.name}): it is not replaced, name another output"
            )
