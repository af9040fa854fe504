"""Read and write image files, and convert between stored values and tensors.

Stored arrays are (H, W, C), RGB order, uint8, uint16 or float32; C is 1 (grey), 2 (grey, alpha), 3, 4 (with alpha) or
the number of bands of a TIFF. Tensors are (3, H, W) float32 in [0, 1]. TIFF and video have separate modules.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

import formulas
from data import details as picture_details
from data import png_details, tiff, world_file
from data.decoders import (
    HEAD,
    ImageInfo,
    levels_of_ppm,
    open_pillow,
    probe_pillow,
    probe_png,
    read_deep_ppm,
    read_pillow,
    read_png,
)
from data.details import Details
from data.files import named_errors, replacing
from data.foreign import PICTURES, kind_of_file
from data.geo_tags import GeoTags
from data.png_details import PNG_MAGIC
from data.tiff_pages import is_tiff
from data.tiff_pixels import upright
from errors import InputError

WRITTEN_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"))
IMAGE_SUFFIXES = WRITTEN_SUFFIXES | {".jfif", ".jpe", ".ppm", ".pgm", ".pbm", ".pnm", ".gif", ".apng"}
RASTER_SUFFIXES = frozenset(
    (".img", ".bil", ".bsq", ".bip", ".vrt", ".nc", ".h5", ".he5", ".hdf", ".hdf5", ".asc", ".ntf", ".nitf", ".grb", ".grib",
     ".grib2", ".hgt", ".dem", ".dt0", ".dt1", ".dt2", ".ers", ".ecw", ".sid", ".rst", ".fits", ".gpkg", ".mbtiles")
)  # fmt: skip
UNREAD_SUFFIXES = RASTER_SUFFIXES | frozenset(
    (".heic", ".heif", ".avif", ".jxl", ".jxr", ".psd", ".xcf", ".svg", ".pdf", ".eps", ".exr", ".hdr", ".pfm", ".pam", ".dng",
     ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".dcm", ".tga", ".dds", ".pcx", ".qoi", ".ico", ".npy", ".npz",
     ".mat", ".czi", ".lif", ".nd2", ".oib", ".nii", ".mrc")
)  # fmt: skip
ALPHA_SUFFIXES = frozenset((".png", ".webp", ".tif", ".tiff"))  # of files that hold transparency
LEVELS = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0, np.dtype(np.float32): 1.0}
LUMA = np.array(formulas.LUMA, np.float32)
NO_DETAILS = Details()


# --- reading ----------------------------------------------------------------------------------------------------------


def probe(path: str | Path) -> ImageInfo:
    """Read only the header of a file. InputError names the file if it is not an image or cannot be opened."""
    with _naming(path), Path(path).open("rb") as file:
        head = file.read(HEAD)
        if not head:
            raise ValueError("the file is empty")
        if head.startswith(PNG_MAGIC):
            info = probe_png(head, file)
            return replace(info, size=info.size[::-1]) if png_details.png_orientation(file) > 4 else info
        if is_tiff(head):
            return ImageInfo(*tiff.probe(path))
        file.seek(0)
        return probe_pillow(file, head)


def holds_tiff(path: str | Path) -> bool:
    """Whether a file of any name is a TIFF. InputError if it cannot be opened."""
    with _naming(path), Path(path).open("rb") as file:
        return is_tiff(file.read(4))


def is_image(path: str | Path) -> bool:
    """Whether a file of any name has the header of an image."""
    try:
        probe(path)
        return True
    except InputError:
        return False


def read_image(path: str | Path) -> np.ndarray:
    """Decode one image of any supported kind.

    Returns: (H, W, C) as stored: uint8, uint16 or float32, RGB order. Palette, 1-bit and CMYK images come as
        RGB or grey uint8; the orientation tag of a photograph is applied (JPEG, PNG, WebP, TIFF without a georeference).
    Raises InputError (one line, with the path) for a missing, truncated, foreign, animated or multi-page file.
    """
    with _naming(path):
        content = Path(path).read_bytes()
        if not content:
            raise ValueError("the file is empty")
        if content.startswith(PNG_MAGIC):
            array = upright(read_png(content), png_details.png_orientation(io.BytesIO(content)))
        elif is_tiff(content):
            array = tiff.read(path)
        elif levels_of_ppm(content) > 255:
            array = read_deep_ppm(content)
        else:
            array = read_pillow(path)
        return array[..., None] if array.ndim == 2 else array


def read_measured(
    path: str | Path, page: int | None = None, exact: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """An image as in `read_image`, or with `exact` in the type of the file, and where its values are measured, (H, W, C) bool;
    None: everywhere. Missing values are declared by TIFF files only; they are returned as stored.
    """
    if holds_tiff(path):
        with _naming(path):
            return tiff.read_measured(path, page, exact)
    return read_image(path), None


def read_mask(path: str | Path, page: int | None = None) -> np.ndarray | None:
    """(H, W, 1) bool: where the mask of a TIFF declares values as measured; None for files without a mask."""
    if not holds_tiff(path):
        return None
    with _naming(path):
        return tiff.read_mask(path, page)


def page_numbers(path: str | Path) -> list[int]:
    """Numbers in the file of a TIFF stack's images."""
    with _naming(path):
        return tiff.page_numbers(path)


def probe_pages(path: str | Path) -> list[ImageInfo]:
    """The headers of a TIFF stack's images."""
    with _naming(path):
        return [ImageInfo(*header) for header in tiff.probe_pages(path)]


def read_geo(path: str | Path, page: int | None = None) -> GeoTags | None:
    """The georeference of an image file: of a TIFF or a page of it, or from a world file next to the image; else None."""
    path = Path(path)
    with _naming(path):
        found = tiff.read_geo(path, page) if holds_tiff(path) else None
        return world_file.read(path) if found is None else found


def read_details(path: str | Path, page: int | None = None) -> Details:
    """ICC profile, EXIF, XMP, resolution and texts of an image file, or of a page of a TIFF."""
    with _naming(path), Path(path).open("rb") as file:
        head = file.read(8)
        if is_tiff(head):
            return tiff.read_details(path, page)
        if head == PNG_MAGIC:
            return png_details.of_png(file)
        file.seek(0)
        with open_pillow(file) as image:
            return picture_details.of_pillow(image)


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Convert any exception of a decoder (they have no common base class) to one line that names the file."""
    try:
        with named_errors(path, "an image file"):
            mode = Path(path).stat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise InputError(f"{path}: is a pipe or a device, expected an image file")
            yield
    except InputError:
        raise
    except Exception as error:
        if kind := kind_of_file(path, PICTURES):
            raise InputError(f"{path}: cannot be read as an image: its content is of another kind {kind}") from None
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else str(error).split("\n")[0]
        reason = reason or type(error).__name__
        raise InputError(f"{path}: cannot be read as an image ({reason}); it is damaged or of another kind") from error


# --- writing ----------------------------------------------------------------------------------------------------------


def write_image(path: str | Path, array: np.ndarray, quality: int = 95, details: Details = NO_DETAILS) -> None:
    """Write (H, W, C) or (H, W), RGB order: PNG keeps uint8 and uint16, TIFF everything; JPEG, WebP, BMP are 8-bit.

    quality: of JPEG and WebP; a WebP of 100 is lossless. details: kept as far as the format can hold them (`Details.lost`), the
    ICC profile if it is for the array's kind of colours. Raises InputError where the format cannot hold the array.
    """
    details = details if _fits(details.profile, array) else replace(details, profile=None)
    path = Path(path)
    suffix = path.suffix.lower()
    array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    if suffix in (".tif", ".tiff"):
        with replacing(path) as temporary:
            tiff.write(temporary, array, details=details)
        return
    if suffix not in WRITTEN_SUFFIXES:
        raise InputError(f"{path}: cannot write this image type; use one of {', '.join(sorted(WRITTEN_SUFFIXES))}")
    bands = 1 if array.ndim == 2 else array.shape[-1]
    fits = array.dtype == np.uint8 or (suffix == ".png" and array.dtype == np.uint16)
    if not fits or bands not in ((1, 2, 3, 4) if suffix in ALPHA_SUFFIXES else (1, 3)):
        raise InputError(
            f"{path}: {suffix} cannot hold {bands} band(s) of {array.dtype}; write .tif (or .png for 16 bits)"
        )
    with replacing(path) as temporary:
        if suffix == ".png":
            content = bytes(imagecodecs.png_encode(np.ascontiguousarray(array), level=4))
            temporary.write_bytes(png_details.with_chunks(content, details))
        else:
            exact = suffix == ".webp" and quality == 100  # other formats ignore the two
            known = picture_details.pillow_options(details, suffix)
            Image.fromarray(array).save(temporary, quality=quality, lossless=exact, exact=exact, **known)


def _fits(profile: bytes | None, array: np.ndarray) -> bool:
    """Whether the profile describes the kind of colours that the array has."""
    space = b"GRAY" if array.ndim == 2 or array.shape[-1] <= 2 else b"RGB "
    return profile is None or profile[16:20] == space


# --- arrays and tensors -----------------------------------------------------------------------------------------------


def rgb(array: np.ndarray) -> np.ndarray:
    """(H, W, C) as stored -> (H, W, 3) of the same type: grey repeated, alpha dropped. A view without a copy."""
    bands = array.shape[-1]
    if bands in (1, 2):
        return np.broadcast_to(array[..., :1], (*array.shape[:-1], 3))
    if bands in (3, 4):
        return array[..., :3]
    raise InputError(f"an image of {bands} bands has no RGB bands; choose bands (for example bands: [3, 2, 1])")


def colours(array: np.ndarray) -> np.ndarray:
    """(H, W, C) as stored -> its first band (grey) or its first three bands, without alpha. A view."""
    return array[..., :1] if array.shape[-1] <= 2 else rgb(array)


def to_tensor(array: np.ndarray) -> Tensor:
    """(H, W, C) as stored -> (3, H, W) float32 in [0, 1]: grey repeated, alpha dropped, 0..255 or 0..65535 scaled."""
    return to_float(to_planes(array))


def to_planes(array: np.ndarray) -> Tensor:
    """(..., H, W, C) as stored -> (..., 3, H, W): uint8 stays uint8, 16-bit becomes float32 in [0, 1], float stays."""
    planes = np.moveaxis(rgb(array), -1, -3)
    if array.dtype == np.uint8:
        return torch.from_numpy(np.array(planes, order="C"))  # a copy: `array` may be a view of a read-only cache
    return torch.from_numpy(np.divide(planes, np.float32(LEVELS[array.dtype]), dtype=np.float32))


def to_float(frames: Tensor) -> Tensor:
    """uint8 -> float32 in [0, 1]; float tensors as they are. The last step before the network, on its device."""
    return frames.float().div_(255) if frames.dtype == torch.uint8 else frames


def to_uint8(frames: Tensor) -> np.ndarray:
    """(..., 3, H, W) in [0, 1] -> (..., H, W, 3) uint8, rounded and clamped."""
    return from_tensor(frames, np.dtype(np.uint8))


def from_tensor(frames: Tensor, dtype: np.dtype, channels: int = 3) -> np.ndarray:
    """(..., 3, H, W) in [0, 1] -> (..., H, W, channels) of uint8, uint16 (rounded, clamped) or float32 (as it is).

    channels: 3, or 1 for the mean of the three (a grey frame that was repeated comes back as it was).
    """
    dtype = np.dtype(dtype)
    values = frames.detach().movedim(-3, -1)
    values = values.mean(-1, keepdim=True) if channels == 1 else values
    if dtype == np.float32:
        return values.float().cpu().contiguous().numpy()
    levels = LEVELS[dtype]
    scaled = values.float().mul(levels).round_().clamp_(0, levels)
    return scaled.to(torch.uint8 if dtype == np.uint8 else torch.uint16).cpu().contiguous().numpy()
