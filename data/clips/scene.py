"""A GeoTIFF of any size and number of bands as a clip of one frame, read in windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from data import tiff
from data.bands import DARK, USUAL, Bands, fill_unit_range
from data.clips.base import Clip
from data.clips.stored import file_identity
from data.raster import Block, Raster
from data.raster_info import RasterInfo
from data.validity import fill_note, filled
from errors import InputError


class SceneClip(Clip):
    """One scene. As a clip it has its first three bands (or its first one) in [0, 1]; `group` reads any others.

    bands: choice and stretch (`data.bands`). By default all bands except alpha are used, and values that do not fill the
    range of their type are stretched by percentiles of the valid values; `stretched` then returns a message.
    """

    def __init__(self, path: str | Path, bands: Bands | None = None, fps: float | None = None) -> None:
        self.path, self.bands = Path(path), bands or Bands()
        self.raster = Raster(path, self.bands.choice)
        self.name, self.fps = self.path.stem, fps
        self.frame_names, self.times = [self.path.stem], [0.0]
        self.series: list[SceneClip] = [self]

    @property
    def info(self) -> RasterInfo:
        return self.raster.info

    @property
    def size(self) -> tuple[int, int]:
        return self.info.size

    @property
    def bit_depth(self) -> int:
        return 32

    @property
    def channels(self) -> int:
        return len(self.groups[0])

    def around(self, reach: int) -> tuple[list[SceneClip], int]:
        """Up to `reach` scenes of its series before and after this one, and which of them it is."""
        place = self.series.index(self)
        first = max(place - reach, 0)
        return self.series[first : place + reach + 1], place - first

    @property
    def groups(self) -> list[tuple[int, ...]]:
        """Positions in `info.bands` that pass through the network together: groups of three, then single bands."""
        count = len(self.info.bands)
        threes = [(k, k + 1, k + 2) for k in range(0, count - count % 3, 3)]
        return threes + [(k,) for k in range(count - count % 3, count)]

    @cached_property
    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Stored values that map to 0 and 1, per band, (bands,) float64."""
        count, fixed = len(self.info.bands), self.bands.limits or self._range_of_type
        if fixed is not None:
            low, high = np.full(count, fixed[0], float), np.full(count, fixed[1], float)
        else:
            low, high = _percentiles(self.raster.sample, self.bands.percentiles or USUAL)
        return (high, low) if self.info.inverted else (low, high)  # the network sees a positive

    @property
    def notes(self) -> list[str]:
        """Messages on how the values are converted."""
        notes = [self.stretched] if self.stretched else []
        if self.raster.opacity_is_data():
            band = self.info.opacity
            notes.append(
                f"'{self.path.name}': band {band} is declared as transparency and enlarged by nearest neighbour; if it holds data, "
                f"remove that mark first (gdal_translate -colorinterp_{band} undefined)"
            )
        if (fill := self.raster.fill) is not None:
            notes.append(fill_note(self.path.name, fill))
        if left := tiff.kinds_of_details(self.path):
            notes.append(f"'{self.path.name}': left out of the GeoTIFF: {', '.join(left)}")
        if self.info.categorical:
            notes.append(
                f"'{self.path.name}': its values are taken for classes or flags and enlarged by nearest neighbour "
                + (
                    "(as a picture: gdal_translate -expand rgb)"
                    if self.info.colormap
                    else "(measured values: rename it)"
                )
            )
        if self.info.palette is not None:
            notes.append(f"'{self.path.name}': its palette is converted to RGB")
        return notes

    @property
    def stretched(self) -> str | None:
        """A message if the scene was stretched by default, else None."""
        if self.bands.limits or self.bands.percentiles or self._range_of_type or self.info.categorical:
            return None
        low, high = sorted(self.limits, key=np.max)
        return (
            f"'{self.path.name}': {self.info.dtype} values of about {low.min():g} to {high.max():g} are stretched for the "
            "network; results are in the units of the source (other limits: --limits, --percentiles)"
        )

    @cached_property
    def _range_of_type(self) -> tuple[float, float] | None:
        """The default black and white values; None if they have to be estimated by percentiles."""
        info = self.info
        if self.bands.percentiles:
            return None
        if info.dtype == np.uint8:
            return 0.0, 2.0 ** (info.bits or 8) - 1
        block = self.raster.sample
        values = block.values if block.valid is None else block.values[block.valid]
        if not values.size:
            return 0.0, 1.0
        if info.dtype == np.uint16:
            top = 2.0 ** (info.bits or 16)
            return (0.0, top - 1) if values.max() >= min(DARK, top / 4) else None
        return (0.0, 1.0) if info.dtype.kind == "f" and fill_unit_range([values]) else None

    def group(self, positions: tuple[int, ...], rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """A window of some bands for the network, (rows, columns, bands) float32, about [0, 1], holes filled; and where any
        of these bands is measured, (rows, columns).
        """
        block = self.raster.read(rows, columns, [self.info.bands[k] for k in positions])
        low, high = (limit[list(positions)] for limit in self.limits)
        values = np.moveaxis(filled(block.values, block.valid), 0, -1).astype(np.float64)
        there = np.full(values.shape[:2], True) if block.valid is None else np.logical_or.reduce(block.valid)
        return ((values - low) / (high - low)).astype(np.float32), there

    def part(self, index: int, rows: slice, columns: slice) -> np.ndarray:
        self.check_index(index)
        return self.group(self.groups[0], rows, columns)[0]

    def array(self, index: int) -> np.ndarray:
        height, width = self.size
        return self.part(index, slice(0, height), slice(0, width))

    def to_stored(self, values: np.ndarray, positions: tuple[int, ...]) -> np.ndarray:
        """(bands, rows, columns) as the network returns them -> the type and units of the file, rounded and clamped."""
        low, high = (limit[list(positions), None, None] for limit in self.limits)
        result, dtype = values.astype(np.float64) * (high - low) + low, self.info.dtype
        if dtype.kind == "f":
            return result.astype(dtype)
        top = 2**self.info.bits - 1 if self.info.bits else np.iinfo(dtype).max
        bottom = np.iinfo(dtype).min
        inside = np.clip(np.rint(result), float(bottom), np.nextafter(float(top), 0) if top > 2**53 else float(top))
        return inside.astype(dtype)

    def source(self, index: int) -> str:
        return str(self.path)

    def identity(self, index: int) -> str:
        paths = [self.path, *(scene.path for scene in self.series if scene is not self)]
        return f"{'|'.join(map(file_identity, paths))}|{self.bands}"


def _percentiles(block: Block, share: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Limits of every band from its valid values. For a constant band the upper limit is one unit above the value."""
    low, high = np.zeros(len(block.values)), np.ones(len(block.values))
    for band, values in enumerate(block.values):
        known = values if block.valid is None else values[block.valid[band]]
        if known.size:
            low[band], high[band] = np.percentile(known.astype(np.float64), share)
            if not high[band] > low[band]:
                low[band], high[band] = float(known.min()), float(known.max())
            if not high[band] > low[band]:
                high[band] = low[band] + 1
    return low, high


def open_scene(path: Path, bands: Bands | None, fps: float | None) -> SceneClip:
    """The scene; InputError for bands that do not exist."""
    clip = SceneClip(path, bands, fps)
    if not clip.info.bands:
        raise InputError(f"{path}: holds transparency only")
    return clip


def join_series(scenes: Sequence[SceneClip], failed: Callable[[Path, InputError], None]) -> list[list[SceneClip]]:
    """Scenes of the same area at several times, each read with its neighbours and stretched like the first of its series.

    Scenes that differ in size, type, number of bands or reference system are separate series. `failed` is called with scenes
    that are left out, because their values cannot be read.
    """
    series: dict[tuple, list[SceneClip]] = {}
    for scene in scenes:
        info = scene.info
        kind = (info.size, info.dtype.name, len(info.bands), str(info.place.get("crs")), info.categorical)
        series.setdefault(kind, []).append(scene)
    for group in series.values():
        limits = None
        while group and limits is None:
            try:
                limits = group[0].limits
            except InputError as error:
                failed(group.pop(0).path, error)
        for scene in group:
            scene.series = group
            scene.limits = limits if limits is not None else scene.limits
    return [group for group in series.values() if group]
