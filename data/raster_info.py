"""Properties of a raster file, read by rasterio (GDAL): bands, types, missing values, metadata and place."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data import tiff, world_file
from data.files import is_file
from errors import InputError

SPARSE = 2**28  # pixels; a larger image must have at least one byte per 2,000 pixels, or its header counts as damaged
EXACT = 2**53  # integers up to this are exact in float64
MOST_CLASSES = 64  # colours of a georeferenced palette; one with more is a picture
# Names of layers of classes and flags: Sentinel-2's SCL, Landsat's QA_PIXEL and BQA, Fmask, PlanetScope's udm2, land cover.
CATEGORICAL = re.compile(
    r"(?:^|[_.-])(?:SCL|QA_\w+|BQA|Fmask\d?|udm2?|land_?cover|lulc|cloud_?mask)(?:[_.-]|$)", re.IGNORECASE
)
# Names of classes if one band of integers has few values; others may have these names too.
OFTEN_CATEGORICAL = re.compile(
    r"(?:^|[_.-])(?:masks?|labels?|class(?:es|ification)?|segmentation|land_?use|world_?cover|corine|clc\d*|nlcd)(?:[_.-]|$|\d)",
    re.IGNORECASE,
)
NOT_COPIED = ("IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "SUBDATASETS", "COLOR_PROFILE", "RPC", "TIFF")
DESCRIPTION = "TIFFTAG_IMAGEDESCRIPTION"
Tags = dict[str | None, dict[str, str]]  # metadata by namespace; None: without one


@dataclass(frozen=True)
class RasterInfo:
    """Metadata of a file's values. Tuples have one entry per band; band numbers start at 1.

    bands: the data bands.   alpha: the transparency band.   mask: whether a validity mask other than nodata exists.
    palette: (entries, 4) RGBA of the only band, which is then read as three bands.   inverted: 0 is white.
    categorical: the values are classes or flags, which must not be interpolated.   colormap: the colours of classes, or
    for the display of values.
    premultiplied: stored colours are multiplied by alpha.
    """

    size: tuple[int, int]
    dtype: np.dtype
    bands: tuple[int, ...]
    alpha: int | None
    nodata: tuple[int | float | None, ...]
    mask: bool
    bits: int | None
    colours: tuple[Any, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    units: tuple[str | None, ...]
    names: tuple[str | None, ...]
    tags: Tags = field(default_factory=dict)
    band_tags: tuple[Tags, ...] = ()
    profile: bytes | None = None  # ICC
    overviews: tuple[int, ...] = ()
    cog: bool = False
    place: dict[str, Any] = field(default_factory=dict)  # crs, transform, gcps, rpcs
    palette: np.ndarray | None = None
    categorical: bool = False
    colormap: dict[int, tuple[int, ...]] | None = None
    inverted: bool = False
    premultiplied: bool = False
    opacity: int | None = None  # the band with alpha, also if the result has none
    alpha_info: dict[str, Any] = field(default_factory=dict)  # scale, offset, unit and name of alpha

    @property
    def numbers(self) -> tuple[int, ...]:
        """Band numbers in the result: of the data bands, then of alpha, which keeps its place."""
        if self.alpha is None:
            return tuple(range(1, len(self.bands) + 1))
        return (*self.bands, self.alpha)

    @property
    def plain(self) -> bool:
        """Whether this is a grey or RGB image of 8 or 16 bits without further metadata."""
        described = any((*self.units, *self.names)) or set(self.scales) != {1.0} or set(self.offsets) != {0.0}
        missing = self.mask or any(value is not None for value in self.nodata)
        simple = self.dtype in (np.uint8, np.uint16) and len(self.bands) in (1, 3) and self.alpha is None
        return simple and not missing and not described and not self.categorical and not self.colormap


def raster_info(file: Any, choice: Sequence[int] | None, path: Path) -> RasterInfo:
    """The properties of an open file. choice: numbers of the bands to read, from 1; None: all but alpha."""
    from rasterio.enums import ColorInterp, MaskFlags

    _check_values(file, path)
    place, palette = _place(file, path), _palette(file, path)
    categorical = choice is None and _is_categorical(file, place, path, palette is not None)
    if palette is not None and not categorical and not _is_ramp(file, path):
        return _colours_of_palette(file, choice, palette, path)
    dtype, alpha = np.dtype(file.dtypes[0]), _alpha_band(file)
    if choice is not None and max(choice) > file.count:
        raise InputError(f"{path}: has {file.count} band(s), band {max(choice)} was chosen")
    bands = tuple(choice) if choice is not None else tuple(k for k in range(1, file.count + 1) if k != alpha)
    flags = [file.mask_flag_enums[band - 1] for band in bands]
    masked = any(MaskFlags.per_dataset in flag and MaskFlags.alpha not in flag for flag in flags)
    opacity = alpha if choice is None or alpha not in bands else None
    hidden = choice is not None and opacity is not None
    structure = file.tags(ns="IMAGE_STRUCTURE")
    bits = file.tags(bands[0], ns="IMAGE_STRUCTURE").get("NBITS")
    icc = file.tags(ns="COLOR_PROFILE").get("SOURCE_ICC_PROFILE")
    pick = [band - 1 for band in bands]
    return RasterInfo(
        size=(file.height, file.width),
        dtype=dtype,
        bands=bands,
        alpha=alpha if choice is None else None,
        nodata=tuple(_large_nodata(file, path) or file.nodatavals[k] for k in pick),
        mask=masked or hidden,
        bits=int(bits) if bits and dtype.kind == "u" else None,
        colours=tuple(ColorInterp.undefined if band == alpha else file.colorinterp[band - 1] for band in bands),
        scales=tuple(file.scales[k] for k in pick),
        offsets=tuple(file.offsets[k] for k in pick),
        units=tuple(file.units[k] for k in pick),
        names=tuple(file.descriptions[k] for k in pick),
        tags=_tags(file),
        band_tags=tuple(_band_tags(file, band) for band in bands),
        profile=base64.b64decode(icc) if icc else None,
        overviews=tuple(file.overviews(bands[0])),
        cog=structure.get("LAYOUT") == "COG",
        place=place,
        categorical=categorical,
        colormap=file.colormap(1) if palette is not None else None,
        inverted=file.driver == "GTiff" and tiff.describe(path).kind == "MINISWHITE",
        premultiplied=dtype.kind == "u"
        and opacity is not None
        and file.driver == "GTiff"
        and tiff.describe(path).premultiplied,
        opacity=opacity,
        alpha_info={} if alpha is None else _band_info(file, alpha),
    )


def _large_nodata(file: Any, path: Path) -> int | None:
    """nodata of 64-bit integers beyond 2**53, which rasterio rounds; None for others."""
    if np.dtype(file.dtypes[0]).itemsize < 8 or np.dtype(file.dtypes[0]).kind == "f" or file.driver != "GTiff":
        return None
    try:
        nodata = int(tiff.nodata_text(path))
    except ValueError:
        return None
    return nodata if abs(nodata) >= EXACT else None


def _check_values(file: Any, path: Path) -> None:
    """Raises InputError for complex numbers, and for a header that claims far more pixels than the file can hold."""
    if any(name.startswith("complex") for name in file.dtypes) or np.dtype(file.dtypes[0]).kind not in "uif":
        raise InputError(f"{path}: its values are {file.dtypes[0]}; real numbers are needed")
    height, width = file.height, file.width
    if height * width > max(SPARSE, 2000 * path.stat().st_size):
        raise InputError(f"{path}: its header claims {width}x{height} pixels, the file has {path.stat().st_size} bytes")


def _alpha_band(file: Any) -> int | None:
    """The number of the band of opacity, from 1; None: there is none, or no other band."""
    from rasterio.enums import ColorInterp

    bands = [number for number, kind in enumerate(file.colorinterp, 1) if kind == ColorInterp.alpha]
    return bands[0] if bands and file.count > 1 else None


def _band_info(file: Any, band: int) -> dict[str, Any]:
    """Metadata of one band; band: its number, from 1."""
    return {
        "scale": file.scales[band - 1],
        "offset": file.offsets[band - 1],
        "unit": file.units[band - 1],
        "name": file.descriptions[band - 1],
        "tags": _band_tags(file, band),
    }


def _palette(file: Any, path: Path) -> np.ndarray | None:
    """(entries, 4) uint8 of a file whose only band holds numbers of colours; GDAL has tables for MINISWHITE and 1 bit too."""
    from rasterio.enums import ColorInterp

    if file.count != 1 or file.colorinterp[0] != ColorInterp.palette:
        return None
    if file.driver == "GTiff":
        page = tiff.describe(path)
        if page.kind not in ("PALETTE", "MINISBLACK") or (page.kind, page.bits) == ("MINISBLACK", 1):
            return None
    table = np.zeros((2 ** (8 * np.dtype(file.dtypes[0]).itemsize), 4), np.uint8)
    for number, colour in file.colormap(1).items():
        table[number] = colour
    return table


def _is_ramp(file: Any, path: Path) -> bool:
    """Whether a table of colours is for the display of values: so rasterio and GDAL write it to files that are not palettes."""
    return file.driver == "GTiff" and tiff.describe(path).kind == "MINISBLACK"


def _is_categorical(file: Any, place: dict[str, Any], path: Path, has_palette: bool) -> bool:
    """Whether the values are classes or flags (land cover, quality bits): by the name, by a table of classes next to the file, or
    by few different values in a file with a likely name, a palette and a georeference, or a table for the display of values.
    """
    if np.dtype(file.dtypes[0]).kind == "f":
        return False
    if CATEGORICAL.search(path.stem) or _has_class_table(path):
        return True
    georeferenced = any(place.get(key) is not None for key in ("transform", "gcps", "rpcs", "crs"))
    named = file.count == 1 and OFTEN_CATEGORICAL.search(path.stem)
    if not (named or (has_palette and (georeferenced or _is_ramp(file, path)))):
        return False
    sample = file.read(1, out_shape=(min(file.height, 1024), min(file.width, 1024)))
    return len(np.unique(sample)) <= MOST_CLASSES


def _has_class_table(path: Path) -> bool:
    """Whether a value attribute table (Esri's .vat.dbf) or names of categories in `.aux.xml` are next to the file."""
    if is_file(path.with_name(path.name + ".vat.dbf")):
        return True
    sidecar = path.with_name(path.name + ".aux.xml")
    return is_file(sidecar) and b"<CategoryNames>" in sidecar.read_bytes()


def _colours_of_palette(file: Any, choice: Sequence[int] | None, palette: np.ndarray, path: Path) -> RasterInfo:
    """The `RasterInfo` of the RGB image that a palette describes. nodata becomes a mask, because it is a number of a colour."""
    from rasterio.enums import ColorInterp

    if choice is not None and max(choice) > 3:
        raise InputError(f"{path}: its palette has 3 bands (red, green, blue), band {max(choice)} was chosen")
    bands = tuple(choice or (1, 2, 3))
    count, rgb = len(bands), (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    used = [number for number in file.colormap(1) if number < len(palette)]
    return RasterInfo(
        size=(file.height, file.width), dtype=np.dtype(np.uint8), bands=bands, alpha=None, nodata=(None,) * count,
        mask=file.nodata is not None or bool((palette[used, 3] == 0).any()), bits=None,
        colours=rgb if count == 3 else (ColorInterp.gray,), scales=(1.0,) * count, offsets=(0.0,) * count,
        units=(None,) * count, names=(None,) * count,
        tags=_tags(file), band_tags=({},) * count,
        overviews=tuple(file.overviews(1)), cog=file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG",
        place=_place(file, path), palette=palette,
    )  # fmt: skip


def _tags(file: Any) -> Tags:
    """Metadata of the file, without image descriptions that state the size of the source."""
    found: Tags = {space: file.tags(ns=space) for space in (None, *_copied(file.tag_namespaces()))}
    if found[None].get(DESCRIPTION, "").startswith(tiff.FORMATS_OF_TEXT):
        del found[None][DESCRIPTION]
    return found


def _band_tags(file: Any, band: int) -> Tags:
    """Metadata of a band (number from 1), such as its wavelength, without statistics."""
    found: Tags = {space: file.tags(band, ns=space) for space in (None, *_copied(file.tag_namespaces(band)))}
    found[None] = {key: value for key, value in found[None].items() if not key.startswith("STATISTICS_")}
    return found


def _copied(namespaces: Sequence[str]) -> list[str]:
    left_out = ("COLOR_", "xml:")  # rasterio cannot write XML: XMP, gml (the georeference of JPEG 2000)
    return [space for space in namespaces if space not in NOT_COPIED and not space.startswith(left_out)]


def _crs_of_sidecar(path: Path) -> Any:
    """The reference system in the .prj file next to an image with a world file, which GDAL does not read for TIFF; else None."""
    import rasterio
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    content = world_file.reference(path)
    try:
        return CRS.from_wkt(content.decode(), morph_from_esri_dialect=True) if content else None
    except (CRSError, UnicodeDecodeError, rasterio._err.CPLE_BaseError):
        raise InputError(
            f"{path.with_suffix(world_file.REFERENCE)}: is no reference system in WKT; repair it or move it away"
        ) from None


def _place(file: Any, path: Path) -> dict[str, Any]:
    points, points_crs = file.gcps
    place: dict[str, Any] = {"rpcs": file.rpcs}
    if points:
        return place | {"gcps": points, "crs": points_crs}
    place["crs"] = file.crs or _crs_of_sidecar(path)
    known = not file.transform.is_identity  # GDAL returns the identity for files without a transform
    if known or (file.driver == "GTiff" and tiff.describe(path).georeferenced):
        place["transform"] = file.transform
    else:
        world_file.read(path)  # GDAL ignores a damaged one: an error is raised here
    return place
