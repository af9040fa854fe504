"""Write frames: lossless temporary files, image files, and TIFF stacks with georeference."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from data import tiff
from data.details import Details
from data.files import replacing, temporary_path, unfinished_next_to
from data.geo_tags import GeoTags
from data.media import NO_DETAILS, probe, write_image
from errors import InputError

STACK_SUFFIXES = (".tif", ".tiff")
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def store_frame(path: Path, array: np.ndarray) -> None:
    """Store (H, W, C) losslessly and fast; readers never see a partial file. It is not flushed to disk: `is_sound` detects
    damage by a power failure.
    """
    with replacing(path, sync=False) as temporary:
        rows = imagecodecs.delta_encode(np.ascontiguousarray(array).view(_bits(array.dtype)), axis=1)
        temporary.write_bytes(imagecodecs.zstd_encode(rows.tobytes(), level=1))


def load_frame(path: Path, shape: tuple[int, int, int], dtype: np.dtype) -> np.ndarray:
    """Read a frame written by `store_frame`."""
    rows = np.frombuffer(imagecodecs.zstd_decode(path.read_bytes()), _bits(dtype)).reshape(shape)
    return imagecodecs.delta_decode(rows, axis=1).view(dtype)


def _bits(dtype: np.dtype) -> np.dtype:
    """Unsigned integers of the same size: their differences are exact for every type, also for NaN."""
    return np.dtype(f"u{np.dtype(dtype).itemsize}")


def write_frame(
    path: Path,
    array: np.ndarray,
    geo: GeoTags | None,
    details: Details = NO_DETAILS,
    alpha: bool = False,
    rgb: bool = False,
    mask: np.ndarray | None = None,
) -> None:
    """Write one frame as an image file; `geo` and `details` are for the output's size. `geo` and `mask` are written into TIFF only.

    alpha: the last band is transparency.   rgb, mask: as in `tiff.write`.
    """
    if path.suffix.lower() in STACK_SUFFIXES:
        with replacing(path) as temporary:
            tiff.write(temporary, array, geo, details, alpha, rgb, mask)
    else:
        write_image(path, array, details=details)


WEBP_LIMIT = 16_383  # pixels a side


def check_image_size(suffix: str, size: tuple[int, int]) -> None:
    """InputError if an image of `size` = (H, W) cannot be written with that suffix."""
    limit = {".webp": WEBP_LIMIT, ".jpg": 65_535, ".jpeg": 65_535}.get(suffix.lower())
    if limit and max(size) > limit:
        raise InputError(
            f"frames of {size[1]}x{size[0]} are too large for {suffix}, which takes {limit} pixels a side: choose "
            "--image-format png"
        )


def check_image_depth(suffix: str, dtype: np.dtype) -> None:
    """InputError if values of that type cannot be written with that suffix."""
    known = {".png": (np.uint8, np.uint16), **dict.fromkeys(STACK_SUFFIXES, (dtype,))}
    if dtype not in known.get(suffix.lower(), (np.uint8,)):
        raise InputError(
            f"{suffix} cannot hold {dtype} values: choose .tif" + (" or .png" if dtype == np.uint16 else "")
        )


def write_stack(
    path: Path,
    frames: Iterable[np.ndarray],
    total_bytes: int,
    tags: Iterable[tuple[GeoTags | None, Details, np.ndarray | None]],
    alpha: bool = False,
    rgb: bool = False,
) -> None:
    """Write all frames as pages of one TIFF, each with its georeference, details and mask; as BigTIFF above 2 GiB.

    alpha: the last band is transparency.   rgb: as in `tiff.write`.
    """
    with replacing(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=total_bytes > 2**31) as writer:
        for array, (geo, details, mask) in zip(frames, tags, strict=True):
            tiff.write_page(writer, array, geo, details, alpha, rgb, mask)


def is_sound(path: Path, shape: tuple[int, int, int], dtype: np.dtype) -> bool:
    """Whether a stored frame is complete: a raw frame (.zst) is decoded; of an image, the header and the end are checked."""
    try:
        if path.suffix == ".zst":
            load_frame(path, shape, dtype)
            return True
        size = probe(path).size
        with path.open("rb") as file:
            file.seek(-len(PNG_END), os.SEEK_END)
            return size == shape[:2] and (path.suffix != ".png" or file.read() == PNG_END)
    except Exception:  # decoders raise nearly any exception for a damaged file
        return False


def check_free(out: Path, kind: str, overwrite: bool, made: Container[str] | None = None) -> None:
    """Raises InputError if the output exists and must not be replaced.

    made: names of the files that the output folder will hold; with `overwrite` only these are replaced.
    """
    if not out.exists():
        return
    frames = kind == "frames" and out.is_dir()
    if (frames or overwrite) and not os.access(out, os.W_OK):
        raise InputError(f"'{out}' is read-only: make it writable or name another output")
    if frames and os.path.ismount(out):
        raise InputError(
            f"'{out}' is a mount point and cannot be replaced: name a folder in it, such as '{out / 'frames'}'"
        )
    if frames and not any(out.iterdir()):
        return
    if not overwrite and not (out.is_dir() and kind != "frames"):
        raise InputError(f"'{out}' exists: use --overwrite to replace it, or name another output")
    if out.is_dir() != (kind == "frames"):
        raise InputError(f"'{out}' is {'a folder' if out.is_dir() else 'a file'}: name another output")
    if kind == "frames" and made is not None:
        foreign = next((path for path in out.iterdir() if path.name not in made or not path.is_file()), None)
        if foreign:
            raise InputError(
                f"'{out}' holds more than the frames to be written ({foreign.name}): it is not replaced, name another output"
            )


def replace_folder(frames: Path, out: Path, overwrite: bool, made: Container[str]) -> None:
    """Rename a finished folder to `out`. An existing folder is replaced if `check_free` allows it; only files that the new
    folder also holds are removed.
    """
    check_free(out, "frames", overwrite, made)
    old = temporary_path(out)
    if out.exists():
        out.rename(old)
    try:
        frames.rename(out)
    except OSError as error:
        if old.exists() and not out.exists():
            old.rename(out)
        raise InputError(f"'{out}' was created meanwhile or cannot be written ({error.strerror}): '{frames}' keeps the "
                         "result; move the other away and continue with --resume") from None  # fmt: skip
    if old.exists():
        _remove_replaced(old, out, made)


def remove_replaced(out: Path, made: Container[str]) -> None:
    """Remove earlier versions of the folder `out` that `replace_folder` had renamed when it was killed."""
    for old in unfinished_next_to(out):
        if old.is_dir():
            _remove_replaced(old, out, made)


def _remove_replaced(old: Path, out: Path, made: Container[str]) -> None:
    for path in old.iterdir():
        if path.name in made and path.is_file():
            path.unlink()
    try:
        old.rmdir()
    except OSError:
        raise InputError(f"'{old}' keeps files that appeared in '{out}' while it was replaced") from None
