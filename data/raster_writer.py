"""Write GeoTIFF with rasterio (GDAL), with the metadata of the source.

Arrays are (bands, rows, columns) in the file's own type, as in GDAL.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from data.raster import check_written, gdal
from data.raster_info import EXACT, RasterInfo
from data.raster_place import GEOLOCATION, gcp_error, moved_gcps, scaled_geolocation, scaled_place

BLOCK = 256  # pixels a side of a written tile
PIXEL_INTERLEAVED = 4  # bands; files with more bands are written band by band


class RasterWriter:
    """A GeoTIFF of `size` (H, W) with the metadata of `info`, written from top to bottom.

    `write` takes rows of some bands in order and passes them on in multiples of the file's blocks, so that no block is
    compressed twice and the same rows give the same bytes. Bands: positions from 0 in `info.bands`, alpha last.
    """

    def __init__(self, path: Path, info: RasterInfo, size: tuple[int, int]) -> None:
        self.path, self.info, self.size = path, info, size
        self.count = len(info.bands) + (info.alpha is not None)
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
        self.path.unlink(missing_ok=True)  # GDAL cannot replace a damaged file
        with gdal(self.path) as rasterio:
            with rasterio.open(self.path, "w", **self._options()) as self._file:
                self._describe()
                yield self
                for bands in list(self._waiting):
                    self._flush(bands, final=True)
                self._flush_mask(final=True)
                if (
                    self.info.colormap and not self.info.categorical
                ):  # written earlier, it would make the file a palette
                    self._file.write_colormap(1, self.info.colormap)
            if self.info.overviews and not self.info.cog:
                with rasterio.open(self.path, "r+") as file:
                    how = (
                        rasterio.enums.Resampling.nearest
                        if self.info.categorical or self.info.colormap  # GDAL would average colours, not values
                        else rasterio.enums.Resampling.average
                    )
                    file.build_overviews(list(self.info.overviews), how)
            if self.info.cog:
                check_written(self.path)
                self._as_cog()
        check_written(self.path)

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
            numbers = [self.info.numbers[band] for band in bands]
            self._file.write(rows[:, :count], numbers, window=self._window(first, count))
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

        info, (height, width) = self.info, self.size
        rgb = self._colours()[:3] == [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
        classes = info.categorical and info.colormap
        photometric = "RGB" if rgb else "PALETTE" if classes else "MINISWHITE" if info.inverted else "MINISBLACK"
        options: dict[str, Any] = {
            "driver": "GTiff", "height": height, "width": width, "count": self.count, "dtype": info.dtype.name,
            "compress": "deflate", "BIGTIFF": "IF_SAFER", "ALPHA": "YES" if info.alpha == self.count else "NO",
            "photometric": photometric, "interleave": "pixel" if self.interleaved else "band",
        }  # fmt: skip
        if min(height, width) >= BLOCK:
            options |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
        if info.bits:
            options["NBITS"] = info.bits
        elif info.dtype.itemsize < 8 or info.dtype.kind == "f":
            options["predictor"] = 3 if info.dtype.kind == "f" else 2
        if info.profile:
            options["SOURCE_ICC_PROFILE"] = base64.b64encode(info.profile).decode()
        if info.nodata[0] is not None and sidecar(info) is None:
            options["nodata"] = info.nodata[0]
        return options | self._place()

    @property
    def _scale(self) -> tuple[float, float]:
        """Pixels of the result per pixel of the source, (y, x)."""
        return self.size[0] / self.info.size[0], self.size[1] / self.info.size[1]

    def _place(self) -> dict[str, Any]:
        """The place of the result, so that GDAL reads it correctly."""
        place = scaled_place(self.info.place, *self._scale)
        if "gcps" in place and self.info.tags.get(None, {}).get("AREA_OR_POINT") == "Point":
            place["gcps"] = moved_gcps(place["gcps"], -gcp_error())
        return place

    def _describe(self) -> None:
        from rasterio.enums import ColorInterp

        info, file = self.info, self._file
        numbers = info.numbers[: len(info.bands)]
        if info.colormap and info.categorical:
            file.write_colormap(1, info.colormap)
        elif ColorInterp.palette not in info.colours:  # GDAL's table for MINISWHITE and for 1 bit
            file.colorinterp = self._colours()
        for space, tags in info.tags.items():
            changed = scaled_geolocation(tags, *self._scale) if space == GEOLOCATION else self._enlarged(tags)
            file.update_tags(**({"ns": space} if space else {}), **changed)
        alpha = info.alpha_info if info.alpha is not None else {}
        if alpha:
            numbers = info.numbers
        for band, tags in zip(numbers, (*info.band_tags, alpha.get("tags", {})), strict=False):
            for space, each in tags.items():
                file.update_tags(band, **({"ns": space} if space else {}), **each)
        for name, values, usual in (("scales", info.scales, 1.0), ("offsets", info.offsets, 0.0)):
            values = (*values, alpha[name[:-1]]) if alpha else values
            if set(values) != {usual}:
                known = dict(zip(numbers, values, strict=True))
                setattr(file, name, [known.get(number, usual) for number in range(1, self.count + 1)])
        units, names = (*info.units, alpha.get("unit")), (*info.names, alpha.get("name"))
        for band, unit, title in zip(numbers, units, names, strict=False):
            if unit:
                file.set_band_unit(band, unit)
            if title:
                file.set_band_description(band, title)

    def _enlarged(self, tags: dict[str, str]) -> dict[str, str]:
        """Tags with the resolution of the larger picture, so that a print keeps its size."""
        if tags.get("TIFFTAG_RESOLUTIONUNIT", "1")[0] == "1":  # no unit
            return tags
        changed = dict(tags)
        for key, axis in (("TIFFTAG_YRESOLUTION", 0), ("TIFFTAG_XRESOLUTION", 1)):
            if key in tags:
                changed[key] = f"{float(tags[key]) * self.size[axis] / self.info.size[axis]:.9g}"
        return changed

    def _colours(self) -> list[Any]:
        """Colour interpretation of each band of the file."""
        from rasterio.enums import ColorInterp

        known = dict(zip(self.info.numbers, self.info.colours, strict=False))  # without alpha
        return [known.get(number, ColorInterp.alpha) for number in range(1, self.count + 1)]

    def _as_cog(self) -> None:
        """Convert the file to a cloud-optimised GeoTIFF: GDAL's COG driver can only copy."""
        from rasterio.shutil import copy

        plain = self.path.with_suffix(".plain.tif")
        self.path.rename(plain)
        predictor = "NO" if self.info.bits else "YES"
        options = {"OVERVIEW_RESAMPLING": "NEAREST"} if self.info.categorical else {}
        copy(
            str(plain),
            str(self.path),
            driver="COG",
            COMPRESS="DEFLATE",
            PREDICTOR=predictor,
            BIGTIFF="IF_SAFER",
            **options,
        )
        plain.unlink()


def sidecar(info: RasterInfo) -> str | None:
    """GDAL's `.aux.xml` for nodata that the TIFF cannot hold: values that differ between bands, and integers beyond 2**53, which
    rasterio does not write. None for other files.
    """
    large = isinstance(info.nodata[0], int) and abs(info.nodata[0]) >= EXACT
    if len(set(map(str, info.nodata))) == 1 and not large:
        return None
    texts = {
        band: str(value) if isinstance(value, int) else f"{value:.17g}"
        for band, value in enumerate(info.nodata, 1)
        if value is not None
    }
    bands = [
        f'<PAMRasterBand band="{band}"><NoDataValue>{text}</NoDataValue></PAMRasterBand>'
        for band, text in texts.items()
    ]
    return f"<PAMDataset>{''.join(bands)}</PAMDataset>\n"
