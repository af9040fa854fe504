"""Read and write GeoTIFF with rasterio (GDAL): windows of large scenes, validity masks and metadata of the values.

rasterio is optional (requirements-geo.txt): without it `data.tiff` reads TIFF files as full frames and without validity masks.
Arrays are (bands, rows, columns) in the file's own type, as in GDAL.
"""

from __future__ import annotations

import base64
import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data import tiff
from errors import InputError

CACHE = 128  # MiB of decoded blocks in GDAL's cache
BLOCK = 256  # pixels a side of a written tile
SPARSE = 2**28  # pixels; a larger image must have at least one byte per 2,000 pixels, or its header counts as damaged
PIXEL_INTERLEAVED = 4  # bands; files with more bands are written band by band
NOT_COPIED = ("IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "SUBDATASETS", "COLOR_PROFILE", "RPC", "TIFF")


def available() -> bool:
    """Whether rasterio is installed."""
    return importlib.util.find_spec("rasterio") is not None


def is_scene(path: str | Path) -> bool:
    """Whether a TIFF is one image of measured values or plain colours that GDAL reads as it is stored.

    Not: stacks of pages, palettes and inks, one bit per value, photographs turned by an orientation tag.
    """
    if not available():
        return False
    try:
        page = tiff.describe(path)
    except Exception:  # damaged: the reader of plain images reports the reason
        return False
    return page.pages == 1 and page.plain and (page.orientation == 1 or page.georeferenced)


@contextmanager
def _gdal(path: str | Path) -> Iterator[Any]:
    """Use rasterio with a small cache and without warnings; convert its errors to one line that names the file."""
    import rasterio
    from rasterio.errors import RasterioError

    options = {"GDAL_CACHEMAX": CACHE, "GDAL_TIFF_INTERNAL_MASK": True, "GDAL_NUM_THREADS": 1}
    try:
        with warnings.catch_warnings(), rasterio.Env(**options):
            warnings.simplefilter("ignore")
            yield rasterio
    except (RasterioError, rasterio._err.CPLE_BaseError) as error:
        reason = str(error.__cause__ or error).split("\n")[0]
        raise InputError(f"{path}: cannot be read or written as a GeoTIFF ({reason})") from None


class Block(NamedTuple):
    """A window: values as stored and, if some are missing, the validity mask. Both (bands, rows, columns)."""

    values: np.ndarray
    valid: np.ndarray | None


@dataclass(frozen=True)
class Facts:
    """Metadata of a file's values. Tuples have one entry per band; band numbers start at 1.

    bands: the data bands.   alpha: the transparency band.   mask: whether a validity mask other than nodata exists.
    """

    size: tuple[int, int]
    dtype: np.dtype
    bands: tuple[int, ...]
    alpha: int | None
    nodata: tuple[float | None, ...]
    mask: bool
    bits: int | None
    colours: tuple[Any, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    units: tuple[str | None, ...]
    names: tuple[str | None, ...]
    tags: dict[str | None, dict[str, str]] = field(default_factory=dict)  # by namespace
    band_tags: tuple[dict[str, str], ...] = ()
    profile: bytes | None = None  # ICC
    overviews: tuple[int, ...] = ()
    cog: bool = False
    place: dict[str, Any] = field(default_factory=dict)  # crs, transform, gcps, rpcs

    @property
    def plain(self) -> bool:
        """Whether this is a gray or RGB image of 8 or 16 bits without further metadata."""
        said = any((*self.units, *self.names)) or set(self.scales) != {1.0} or set(self.offsets) != {0.0}
        missing = self.mask or any(value is not None for value in self.nodata)
        simple = self.dtype in (np.uint8, np.uint16) and len(self.bands) in (1, 3) and self.alpha is None
        return simple and not missing and not said


class Raster:
    """A GeoTIFF open for reading windows. choice: numbers of the bands to read; None: all but alpha, which is handled separately."""

    def __init__(self, path: str | Path, choice: Sequence[int] | None = None) -> None:
        self.path = Path(path)
        with self._open() as file:
            self.facts = _facts(file, choice, self.path)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        with _gdal(self.path) as rasterio, rasterio.open(self.path.absolute(), driver="GTiff") as file:
            yield file

    def read(self, rows: slice, columns: slice, bands: Sequence[int] | None = None) -> Block:
        """Read a window of some bands (numbers in the file; default: all data bands)."""
        from rasterio.windows import Window

        chosen = list(bands or self.facts.bands)
        window = Window(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        with self._open() as file:
            return self._block(file, chosen, {"window": window})

    def sample(self, side: int = 1024) -> Block:
        """Read all data bands of the full scene, decimated to at most `side` pixels a side."""
        height, width = self.facts.size
        shape = (len(self.facts.bands), min(height, side), min(width, side))
        with self._open() as file:
            return self._block(file, list(self.facts.bands), {"out_shape": shape})

    def _block(self, file: Any, bands: list[int], where: dict[str, Any]) -> Block:
        values = file.read(bands, **where)
        valid = file.read_masks(bands, **where) != 0
        if values.dtype.kind == "f":
            valid &= np.isfinite(values)
        return Block(values, None if valid.all() else valid)


def _facts(file: Any, choice: Sequence[int] | None, path: Path) -> Facts:
    from rasterio.enums import ColorInterp, MaskFlags

    height, width, dtype = file.height, file.width, np.dtype(file.dtypes[0])
    if dtype.kind not in "uif":
        raise InputError(f"{path}: its values are {dtype}; real numbers are needed")
    if height * width > max(SPARSE, 2000 * path.stat().st_size):
        raise InputError(f"{path}: its header claims {width}x{height} pixels, the file has {path.stat().st_size} bytes")
    alpha = next(
        (k for k, kind in enumerate(file.colorinterp, 1) if kind == ColorInterp.alpha and file.count > 1), None
    )
    if choice is not None and max(choice) > file.count:
        raise InputError(f"{path}: has {file.count} band(s), band {max(choice)} was chosen")
    bands = tuple(choice) if choice is not None else tuple(k for k in range(1, file.count + 1) if k != alpha)
    flags = [file.mask_flag_enums[band - 1] for band in bands]
    masked = any(MaskFlags.per_dataset in flag and MaskFlags.alpha not in flag for flag in flags)
    hidden = choice is not None and alpha is not None and alpha not in bands
    structure = file.tags(ns="IMAGE_STRUCTURE")
    bits = file.tags(bands[0], ns="IMAGE_STRUCTURE").get("NBITS")
    icc = file.tags(ns="COLOR_PROFILE").get("SOURCE_ICC_PROFILE")
    pick = [band - 1 for band in bands]
    return Facts(
        size=(height, width),
        dtype=dtype,
        bands=bands,
        alpha=alpha if choice is None else None,
        nodata=tuple(file.nodatavals[k] for k in pick),
        mask=masked or hidden,
        bits=int(bits) if bits and dtype.kind == "u" else None,
        colours=tuple(ColorInterp.undefined if band == alpha else file.colorinterp[band - 1] for band in bands),
        scales=tuple(file.scales[k] for k in pick),
        offsets=tuple(file.offsets[k] for k in pick),
        units=tuple(file.units[k] for k in pick),
        names=tuple(file.descriptions[k] for k in pick),
        tags={space: file.tags(ns=space) for space in (None, *_namespaces(file))},
        band_tags=tuple(_without_statistics(file.tags(band)) for band in bands),
        profile=base64.b64decode(icc) if icc else None,
        overviews=tuple(file.overviews(bands[0])),
        cog=structure.get("LAYOUT") == "COG",
        place=_place(file),
    )


def _namespaces(file: Any) -> list[str]:
    return [space for space in file.tag_namespaces() if space not in NOT_COPIED and not space.startswith("COLOR_")]


def _without_statistics(tags: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith("STATISTICS_")}


def _place(file: Any) -> dict[str, Any]:
    points, points_crs = file.gcps
    place: dict[str, Any] = {"rpcs": file.rpcs}
    if points:
        return place | {"gcps": points, "crs": points_crs}
    if file.crs or not file.transform.is_identity:
        place |= {"crs": file.crs, "transform": file.transform}
    return place


def _scaled_place(place: dict[str, Any], scale_y: float, scale_x: float) -> dict[str, Any]:
    """Metadata of the same area with `scale_y` x `scale_x` as many pixels. GCPs refer to pixel edges, RPCs to pixel centres."""
    from affine import Affine
    from rasterio.control import GroundControlPoint

    scaled = {key: value for key, value in place.items() if value is not None}
    if "transform" in scaled:
        scaled["transform"] = scaled["transform"] * Affine.scale(1 / scale_x, 1 / scale_y)
    if "gcps" in scaled:
        scaled["gcps"] = [
            GroundControlPoint(p.row * scale_y, p.col * scale_x, p.x, p.y, p.z, p.id, p.info) for p in scaled["gcps"]
        ]
    if "rpcs" in scaled:
        rpcs = scaled["rpcs"].to_dict()
        for axis, scale in (("line", scale_y), ("samp", scale_x)):
            rpcs[f"{axis}_off"] = (rpcs[f"{axis}_off"] + 0.5) * scale - 0.5
            rpcs[f"{axis}_scale"] *= scale
        scaled["rpcs"] = type(scaled["rpcs"])(**rpcs)
    return scaled


# --- validity ---------------------------------------------------------------------------------------------------------


def filled(values: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """Replace every missing value of (bands, rows, columns) by the nearest valid one of its band, so that the network sees
    no artificial edges. A band without valid values becomes 0.
    """
    if valid is None:
        return values
    from scipy.ndimage import distance_transform_edt  # installed with scikit-image

    result = np.where(valid, values, values.dtype.type(0))
    for band, there in enumerate(valid):
        if there.any() and not there.all():
            nearest = distance_transform_edt(~there, return_distances=False, return_indices=True)
            result[band] = values[band][tuple(nearest)]
    return result


def nearest(length: int, out: int, first: int, last: int) -> np.ndarray:
    """Source pixel of each output pixel first .. last - 1 along an axis of `length` pixels that becomes `out`."""
    return ((np.arange(first, last) + 0.5) * length / out).astype(np.int64).clip(0, length - 1)


def keep_apart(values: np.ndarray, nodata: Sequence[float | None], towards: np.ndarray) -> None:
    """Replace valid values that equal nodata by the next value in the direction of `towards`, in place.

    All (bands, rows, columns); `towards` holds valid values of the source, which are not nodata.
    """
    for band, missing in enumerate(nodata):
        if missing is None or not np.isfinite(missing):
            continue
        hit = values[band] == missing
        if not hit.any():
            continue
        if values.dtype.kind == "f":
            values[band][hit] = np.nextafter(values[band][hit], towards[band][hit])
        else:
            values[band][hit] = np.where(towards[band][hit] > missing, int(missing) + 1, int(missing) - 1)


# --- writing ----------------------------------------------------------------------------------------------------------


class RasterWriter:
    """A GeoTIFF of `size` (H, W) with the metadata of `facts`, written from top to bottom.

    `write` takes rows of some bands in order and passes them on in multiples of the file's blocks, so that no block is
    compressed twice and the same rows give the same bytes. Bands: positions from 0 in `facts.bands`, alpha last.
    """

    def __init__(self, path: Path, facts: Facts, size: tuple[int, int]) -> None:
        self.path, self.facts, self.size = path, facts, size
        self.count = len(facts.bands) + (facts.alpha is not None)
        self._waiting: dict[tuple[int, ...], tuple[int, list[np.ndarray]]] = {}
        self._mask: list[np.ndarray] = []
        self._mask_row = 0

    @property
    def interleaved(self) -> bool:
        """Whether the rows of all bands must be written together."""
        return self.count <= PIXEL_INTERLEAVED

    @contextmanager
    def opened(self) -> Iterator[RasterWriter]:
        """The file is complete when the block ends."""
        with _gdal(self.path) as rasterio:
            with rasterio.open(self.path, "w", **self._options()) as self._file:
                self._describe()
                yield self
                for bands in list(self._waiting):
                    self._flush(bands, final=True)
                self._flush_mask(final=True)
            if self.facts.overviews and not self.facts.cog:
                with rasterio.open(self.path, "r+") as file:
                    file.build_overviews(list(self.facts.overviews), rasterio.enums.Resampling.average)
            if self.facts.cog:
                self._as_cog(rasterio)

    def write(self, bands: tuple[int, ...], rows: np.ndarray) -> None:
        """Write the next rows of these bands, (len(bands), rows, W)."""
        _, waiting = self._waiting.setdefault(bands, (0, []))
        waiting.append(rows)
        if sum(part.shape[1] for part in waiting) >= BLOCK:
            self._flush(bands)

    def write_mask(self, rows: np.ndarray) -> None:
        """Write the next rows of the mask, (rows, W) bool."""
        self._mask.append(rows)
        if sum(map(len, self._mask)) >= BLOCK:
            self._flush_mask()

    def _flush(self, bands: tuple[int, ...], final: bool = False) -> None:
        first, waiting = self._waiting[bands]
        if not waiting:
            return
        rows = np.concatenate(waiting, axis=1)
        count = rows.shape[1] if final else rows.shape[1] // BLOCK * BLOCK
        if count:
            self._file.write(rows[:, :count], [band + 1 for band in bands], window=self._window(first, count))
        self._waiting[bands] = (first + count, [rows[:, count:]] if count < rows.shape[1] else [])

    def _flush_mask(self, final: bool = False) -> None:
        if not self._mask:
            return
        rows = np.concatenate(self._mask)
        count = len(rows) if final else len(rows) // BLOCK * BLOCK
        if count:
            self._file.write_mask(rows[:count], window=self._window(self._mask_row, count))
        self._mask_row, self._mask = self._mask_row + count, [rows[count:]] if count < len(rows) else []

    def _window(self, first: int, count: int) -> Any:
        from rasterio.windows import Window

        return Window(0, first, self.size[1], count)

    def _options(self) -> dict[str, Any]:
        from rasterio.enums import ColorInterp

        facts, (height, width) = self.facts, self.size
        rgb = facts.colours[:3] == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        options: dict[str, Any] = {
            "driver": "GTiff", "height": height, "width": width, "count": self.count, "dtype": facts.dtype.name,
            "compress": "deflate", "BIGTIFF": "IF_SAFER", "photometric": "RGB" if rgb else "MINISBLACK",
            "ALPHA": "YES" if facts.alpha is not None else "NO", "interleave": "pixel" if self.interleaved else "band",
        }  # fmt: skip
        if min(height, width) >= BLOCK:
            options |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
        if facts.bits:
            options["NBITS"] = facts.bits
        elif facts.dtype.itemsize < 8 or facts.dtype.kind == "f":
            options["predictor"] = 3 if facts.dtype.kind == "f" else 2
        if facts.profile:
            options["SOURCE_ICC_PROFILE"] = base64.b64encode(facts.profile).decode()
        if len(set(map(str, facts.nodata))) == 1 and facts.nodata[0] is not None:
            options["nodata"] = facts.nodata[0]
        y, x = height / facts.size[0], width / facts.size[1]
        return options | _scaled_place(facts.place, y, x)

    def _describe(self) -> None:
        from rasterio.enums import ColorInterp

        facts, file = self.facts, self._file
        alpha = [ColorInterp.alpha] if facts.alpha is not None else []
        file.colorinterp = [*facts.colours, *alpha]
        for space, tags in facts.tags.items():
            file.update_tags(**({"ns": space} if space else {}), **tags)
        for band, tags in enumerate(facts.band_tags, 1):
            file.update_tags(band, **tags)
        if set(facts.scales) != {1.0}:
            file.scales = (*facts.scales, *([1.0] * len(alpha)))
        if set(facts.offsets) != {0.0}:
            file.offsets = (*facts.offsets, *([0.0] * len(alpha)))
        for band, (unit, name) in enumerate(zip(facts.units, facts.names, strict=True), 1):
            if unit:
                file.set_band_unit(band, unit)
            if name:
                file.set_band_description(band, name)

    def _as_cog(self, rasterio: Any) -> None:
        """Convert the file to a cloud-optimised GeoTIFF: GDAL's COG driver can only copy."""
        from rasterio.shutil import copy

        plain = self.path.with_suffix(".plain.tif")
        self.path.rename(plain)
        predictor = "NO" if self.facts.bits else "YES"
        copy(str(plain), str(self.path), driver="COG", COMPRESS="DEFLATE", PREDICTOR=predictor, BIGTIFF="IF_SAFER")
        plain.unlink()


def sidecar(facts: Facts) -> str | None:
    """Write GDAL's `.aux.xml` for a file whose bands have different nodata values: a TIFF can store only one."""
    if len(set(map(str, facts.nodata))) == 1:
        return None
    bands = [
        f'<PAMRasterBand band="{band}"><NoDataValue>{value:.17g}</NoDataValue></PAMRasterBand>'
        for band, value in enumerate(facts.nodata, 1)
        if value is not None
    ]
    return f"<PAMDataset>{''.join(bands)}</PAMDataset>\n"
