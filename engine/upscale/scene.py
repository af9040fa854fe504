"""Upscale one GeoTIFF of any size in bounded memory: read tiles, keep finished rows of tiles, write the file from the top.

scene_tiles.py runs the network, scene_rows.py keeps finished rows, and scene_result.py writes the file.

A piece is one row of tiles of one group of bands. It depends on the scene only, so pieces can be made in any order,
by any process, and made again after an interruption: the result is the same to the byte. Rows of tiles overlap as in
`engine.restore.tiles`; a piece keeps its own part of the overlap, weighted, and the parts are added when the file is written.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data.clips.scene import SceneClip
from data.files import holds, replacing
from data.raster import check_name
from data.raster_writer import sidecar
from engine.restore import tiles
from engine.upscale.job import ClipJob
from engine.upscale.scene_result import SceneResult
from engine.upscale.scene_rows import Row
from errors import InputError

# frames (h, w, bands) float32 of a series, index of the target frame, (H, W) -> (bands, H, W)
Enlarge = Callable[[list[np.ndarray], int, tuple[int, int]], np.ndarray]


@dataclass
class SceneJob(ClipJob):
    """A scene and its upscaled version. `settings` holds tile and precision as for other clips."""

    multiple: int = 8
    reach: int = 0  # scenes before and after this one that the network sees
    _plan: tuple[Any, list[tiles.Tile]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.kind = "scene"

    @property
    def scene(self) -> SceneClip:
        assert isinstance(self.clip, SceneClip)
        return self.clip

    @property
    def regions(self) -> list[tiles.Tile]:
        tile = self.settings["tile"]
        if self._plan is None or self._plan[0] != tile:
            self._plan = tile, tiles.plan(self.clip.size, self.size, tile, self.multiple)
        return self._plan[1]

    @property
    def rows(self) -> list[tiles.Span]:
        return list(dict.fromkeys(region.y for region in self.regions))

    @property
    def columns(self) -> list[tiles.Span]:
        return list(dict.fromkeys(region.x for region in self.regions))

    @property
    def pieces(self) -> list[int]:
        return list(range(len(self.rows) * len(self.scene.groups)))

    def frames_of(self, piece: int) -> range:
        return range(piece, piece + 1)

    def complete(self, number: int) -> bool:
        return self.piece(number).is_file() or self.is_published(self.out)

    def has(self, index: int) -> bool:
        return self.complete(index)

    def piece(self, number: int) -> Path:
        return self.work / "pieces" / f"{number:06d}.zst"

    @property
    def sidecar(self) -> Path:
        """GDAL's sidecar file of the result, used if nodata differs between bands."""
        return self.out.with_name(self.out.name + ".aux.xml")

    @property
    def gdal_sidecar(self) -> str | None:
        return sidecar(self.scene.info)

    @property
    def placed(self) -> bool:
        return self.scene.info.place.get("transform") is not None

    @property
    def places(self) -> list[Path]:
        return [self.out, self.work, *([self.sidecar] if self.gdal_sidecar else [])]

    def identity(self) -> dict[str, Any]:
        low, high = self.scene.limits
        return super().identity() | {"limits": [low.tolist(), high.tolist()]}

    def _drop_damaged(self) -> None:
        for number in self.pieces:
            if self.piece(number).is_file():
                try:
                    self.load(number)
                except Exception:  # the decoder of a truncated file may raise any exception
                    self.piece(number).unlink()

    def check_formats(self) -> None:
        super().check_formats()
        check_name(self.work)

    # --- pieces ---

    def make_piece(self, number: int, enlarge: Enlarge, shown: Callable[[str], None]) -> None:
        """Restore one row of tiles; tiles without any measured pixel are skipped."""
        index, group = divmod(number, len(self.scene.groups))
        positions, span = self.scene.groups[group], self.rows[index]
        values, measured = self.scene.group(positions, slice(span.start, span.stop), slice(0, self.clip.size[1]))
        if self.scene.info.categorical:
            measured = np.zeros_like(measured)  # the numbers come from the source by nearest neighbour
        height = span.out_stop - span.out_start
        canvas = np.zeros((len(positions), height, self.size[1]), np.float32)
        weights = tiles.weights(self.columns)
        for place, (column, weight) in enumerate(zip(self.columns, weights, strict=True)):
            shown(f"tile {place + 1}/{len(self.columns)}")
            part = values[:, column.start : column.stop]
            if not measured[:, column.start : column.stop].any():
                continue
            frames, centre = self._window(positions, span, column, part)
            large = enlarge(frames, centre, (height, column.out_stop - column.out_start))
            if not np.isfinite(large).all():
                raise InputError(
                    f"{self.clip.source(0)}: the output is not finite: check the weights, or try --precision fp32"
                )
            canvas[:, :, column.out_start : column.out_stop] += large * weight.numpy()
        self._cut(index, canvas, positions).write(self.piece(number))

    def _window(
        self, positions: tuple[int, ...], span: tiles.Span, column: tiles.Span, own: np.ndarray
    ) -> tuple[list[np.ndarray], int]:
        """The tile in this scene and in the neighbouring scenes of its window."""
        scenes, centre = self.scene.around(self.reach)
        rows, columns = slice(span.start, span.stop), slice(column.start, column.stop)
        before: list[np.ndarray] = []
        after: list[np.ndarray] = []
        for number, scene in enumerate(scenes):
            if number == centre:
                continue
            with suppress(InputError):  # a damaged neighbour, which is a failure of its own
                (before if number < centre else after).append(scene.group(positions, rows, columns)[0])
        return [*before, own, *after], len(before)

    def _cut(self, index: int, canvas: np.ndarray, positions: tuple[int, ...]) -> Row:
        rows, span = self.rows, self.rows[index]
        above = max(rows[index - 1].out_stop - span.out_start, 0) if index else 0
        below = max(span.out_stop - rows[index + 1].out_start, 0) if index + 1 < len(rows) else 0
        canvas = canvas * tiles.weights(rows)[index].numpy()[:, None] if len(rows) > 1 else canvas
        stop = canvas.shape[1] - below
        return Row(canvas[:, :above], self.scene.to_stored(canvas[:, above:stop], positions), canvas[:, stop:])

    def load(self, number: int) -> Row:
        """Read a kept row of tiles."""
        bands = len(self.scene.groups[number % len(self.scene.groups)])
        return Row.read(self.piece(number), bands, self.size[1], self.scene.info.dtype)

    # --- the file ---

    def finish(self) -> list[Path]:
        """Write the GeoTIFF from the kept rows and rename it into place, unless an interrupted run has done so; then its sidecar."""
        self.check_free()
        if not self.is_published(self.out):
            self._finish_result()
        if (text := self.gdal_sidecar) is not None and not holds(self.sidecar, text.encode()):
            with replacing(self.sidecar, replace=self.overwrite) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return [self.out]

    @property
    def written_with_result(self) -> list[Path]:
        return [self.sidecar]

    def _finish_result(self) -> None:
        result = self.work / f"result{self.out.suffix}"
        SceneResult(self.scene, self.size, self.rows, self.load).write(result)
        self._move_raster(result)
