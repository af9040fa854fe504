"""Read GeoTIFF with rasterio (GDAL): windows of large scenes, validity masks and metadata of the values.

rasterio is optional (requirements-geo.txt): without it `data.tiff` reads TIFF files as full frames and without validity masks.
Arrays are (bands, rows, columns) in the file's own type, as in GDAL.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data import tiff
from data.raster_info import raster_info
from data.tiff_pixels import straight
from data.validity import undeclared_fill, without_fill
from errors import InputError

SAMPLE = 1024  # pixels a side of the copy from which the range of values is estimated
CACHE = 128  # MiB of decoded blocks in GDAL's cache
JPEG_2000_SUFFIXES = (".jp2", ".j2k", ".jpf", ".jpx")
JPEG_2000 = (b"\0\0\0\x0cjP  \r\n", b"\xff\x4f\xff\x51")


def available() -> bool:
    """Whether rasterio is installed."""
    return importlib.util.find_spec("rasterio") is not None


def is_jpeg_2000(path: str | Path) -> bool:
    """Whether a file begins like JPEG 2000 (as delivered for Sentinel-2)."""
    try:
        with Path(path).open("rb") as file:
            return file.read(12).startswith(JPEG_2000)
    except OSError:
        return False


def is_scene(path: str | Path) -> bool:
    """Whether a file is JPEG 2000, or a TIFF of one image of measured values or colours.

    Not: stacks of pages, inks, photographs with 1 bit per value or turned by an orientation tag.
    """
    if not available():
        return False
    if is_jpeg_2000(path):
        return True
    try:
        page = tiff.describe(path)
    except Exception:  # damaged: the reader of plain images reports the reason
        return False
    known = page.kind in ("MINISBLACK", "MINISWHITE", "RGB", "YCBCR", "PALETTE")
    return page.pages == 1 and known and (page.georeferenced or (page.orientation == 1 and page.bits > 1))


@contextmanager
def gdal(path: str | Path) -> Iterator[Any]:
    """Use rasterio with a small cache and without warnings; convert its errors to one line that names the file."""
    import rasterio
    from rasterio.errors import RasterioError

    options = {
        "GDAL_CACHEMAX": CACHE,
        "GDAL_TIFF_INTERNAL_MASK": True,
        "GDAL_NUM_THREADS": 1,
        "GDAL_ERROR_ON_LIBJPEG_WARNING": True,
    }
    check_name(Path(path))
    try:
        with warnings.catch_warnings(), rasterio.Env(**options):
            warnings.simplefilter("ignore")
            yield rasterio
    except (RasterioError, rasterio._err.CPLE_BaseError) as error:
        reason = str(error.__cause__ or error).split("\n")[0]
        hint = (
            ": it is damaged, or compressed in a way that GDAL does not read: convert it first"
            if "IReadBlock" in reason
            else ""
        )
        raise InputError(f"{path}: cannot be read or written as a GeoTIFF ({reason}){hint}") from None


def check_written(path: Path) -> None:
    """InputError if parts of a written GeoTIFF are missing: GDAL does not report a disk that is full when it closes the file."""
    try:
        tiff.check_complete(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be written ({error}); free space or choose another folder") from None


def check_name(path: Path) -> None:
    """InputError for a path that GDAL cannot open, because its bytes are not UTF-8."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise InputError(f"'{path}': its name is not valid UTF-8, which GDAL needs for GeoTIFF: rename it") from None


class Block(NamedTuple):
    """A window: values as stored and, if some are missing, the validity mask. Both (bands, rows, columns)."""

    values: np.ndarray
    valid: np.ndarray | None


class Raster:
    """A GeoTIFF open for reading windows. choice: numbers of the bands to read; None: all but alpha, which is handled separately."""

    def __init__(self, path: str | Path, choice: Sequence[int] | None = None) -> None:
        self.path = Path(path)
        with self._open() as file:
            self.info = raster_info(file, choice, self.path)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        # no other format: VRT, for example, can refer to other files and URLs
        driver = "JP2OpenJPEG" if is_jpeg_2000(self.path) else "GTiff"
        with gdal(self.path) as rasterio, rasterio.open(self.path.absolute(), driver=driver) as file:
            yield file

    def read(self, rows: slice, columns: slice, bands: Sequence[int] | None = None) -> Block:
        """Read a window of some bands (numbers in the file; default: all data bands)."""
        fill = self.fill
        with self._open() as file:
            block = self._block(file, list(bands or self.info.bands), {"window": _window(rows, columns)})
        return block._replace(valid=without_fill(*block, fill))

    @cached_property
    def sample(self) -> Block:
        """All data bands of the full scene, decimated to at most `SAMPLE` pixels a side."""
        block = self._declared_sample
        return block._replace(valid=without_fill(*block, self.fill))

    @cached_property
    def fill(self) -> float | None:
        """A value that marks missing values, although the file does not declare it as nodata; None if there is none."""
        if self.info.categorical or self.info.palette is not None or self.info.dtype.kind == "u":
            return None
        return undeclared_fill(*self._declared_sample)

    @cached_property
    def _declared_sample(self) -> Block:
        height, width = self.info.size
        shape = (len(self.info.bands), min(height, SAMPLE), min(width, SAMPLE))
        with self._open() as file:
            return self._block(file, list(self.info.bands), {"out_shape": shape})

    def opacity_is_data(self) -> bool:
        """Whether most values of the band called alpha are neither 0 nor the largest one, as in a band of measured values."""
        if self.info.opacity is None:
            return False
        height, width = self.info.size
        with self._open() as file:
            alpha = file.read(self.info.opacity, out_shape=(min(height, 512), min(width, 512)))
        return bool(((alpha > 0) & (alpha < alpha.max())).mean() > 0.5)

    def _block(self, file: Any, bands: list[int], where: dict[str, Any]) -> Block:
        if self.info.palette is not None:
            colours = self.info.palette[file.read(1, **_of_one_band(where))]
            valid = (file.read_masks(1, **_of_one_band(where)) != 0) & (colours[..., 3] != 0)
            values = np.moveaxis(colours, -1, 0)[[band - 1 for band in bands]]
            return Block(values, None if valid.all() else np.broadcast_to(valid, values.shape))
        values = file.read(bands, **where)
        if self.info.premultiplied and self.info.opacity not in bands:
            values = straight(values, file.read(self.info.opacity, **_of_one_band(where))[None])
        valid = self._unmasked(file, bands, where)
        if self.info.mask:  # GDAL then ignores nodata
            for number, band in enumerate(bands):
                nodata = self.info.nodata[self.info.bands.index(band)] if band in self.info.bands else None
                valid[number] &= values[number] != nodata if nodata is not None else True
        if values.dtype.kind == "f":
            valid &= np.isfinite(values)
        return Block(values, None if valid.all() else valid)

    def read_mask(self, rows: slice, columns: slice) -> np.ndarray:
        """(rows, columns) bool: whether any data band is visible by the file's mask, whatever nodata says."""
        if self.info.palette is not None:
            valid = self.read(rows, columns).valid
            return np.full((rows.stop - rows.start, columns.stop - columns.start), True) if valid is None else valid[0]
        with self._open() as file:
            valid = self._unmasked(file, list(self.info.bands), {"window": _window(rows, columns)})
            return np.logical_or.reduce(valid)

    def _unmasked(self, file: Any, bands: list[int], where: dict[str, Any]) -> np.ndarray:
        """(bands, rows, columns): where masks and transparency, or nodata without these, leave the values visible.

        GDAL takes alpha for a mask only in files of 8 and 16 bits, and small values of 16 bits for 0; so alpha is read here.
        """
        opacity = self.info.opacity
        if opacity is None:
            return file.read_masks(bands, **where) != 0
        from rasterio.enums import MaskFlags

        by_alpha = [MaskFlags.alpha in file.mask_flag_enums[band - 1] for band in bands]
        visible = file.read(opacity, **_of_one_band(where)) > 0
        valid = np.repeat(visible[None], len(bands), axis=0)
        return valid if all(by_alpha) else valid & (file.read_masks(bands, **where) != 0)


def _window(rows: slice, columns: slice) -> Any:
    from rasterio.windows import Window

    return Window(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)


def _of_one_band(where: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `read` for one band in place of several."""
    return where | {"out_shape": where["out_shape"][-2:]} if "out_shape" in where else where
