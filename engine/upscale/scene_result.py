"""Write the GeoTIFF of a scene from its finished rows of tiles, from the top."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from data.clips.scene import SceneClip
from data.raster_writer import RasterWriter
from data.validity import keep_apart, nearest
from engine.restore import tiles
from engine.upscale.scene_rows import Row


class SceneResult:
    """The result of a scene: blended rows of tiles, with the nodata, alpha and mask of the source.

    size: (H, W).   spans: of the rows of tiles.   load(number): the finished row `number // groups` of group `number % groups`.
    """

    def __init__(
        self, scene: SceneClip, size: tuple[int, int], spans: Sequence[tiles.Span], load: Callable[[int], Row]
    ) -> None:
        self.scene, self.size, self.spans, self.load = scene, size, spans, load

    def write(self, path: Path) -> None:
        groups = self.scene.groups
        writer = RasterWriter(path, self.scene.info, self.size)
        with writer.opened():
            if writer.interleaved:
                streams = [self._finished(group) for group in range(len(groups))]
                for first, last in self._strips():
                    parts = [next(stream) for stream in streams]
                    writer.write(tuple(range(writer.count)), np.concatenate([*parts, *self._alpha(first, last)]))
            else:
                for group, positions in enumerate(groups):
                    for strip in self._finished(group):
                        writer.write(positions, strip)
                for first, last in self._strips():
                    for strip in self._alpha(first, last):
                        writer.write((writer.count - 1,), strip)
            if self.scene.info.mask:
                for first, last in self._strips():
                    writer.write_mask(self._valid_anywhere(first, last))

    def _strips(self) -> list[tuple[int, int]]:
        """Output rows that become final with each row of tiles."""
        starts = [span.out_start for span in self.spans]
        return list(zip(starts, [*starts[1:], self.size[0]], strict=True))

    def _finished(self, group: int) -> Iterator[np.ndarray]:
        """Final rows of a group, strip by strip, (bands, rows, W) in the type of the file; nodata as in the source."""
        positions, count = self.scene.groups[group], len(self.scene.groups)
        below = np.zeros((len(positions), 0, self.size[1]), np.float32)
        for index, (first, last) in enumerate(self._strips()):
            row = self.load(index * count + group)
            blended = self.scene.to_stored(below + row.above, positions)
            strip = np.concatenate([blended, row.own], axis=1)
            below = row.below
            yield self._with_holes(strip, positions, first, last)

    def _with_holes(self, strip: np.ndarray, positions: tuple[int, ...], first: int, last: int) -> np.ndarray:
        info = self.scene.info
        values, valid = self._nearest([info.bands[k] for k in positions], first, last)
        if info.categorical:
            return values
        if valid is None:
            keep_apart(strip, [info.nodata[k] for k in positions], values)
            return strip
        keep_apart(strip, [info.nodata[k] for k in positions], np.where(valid, values, strip))
        return np.where(valid, strip, values)

    def _nearest(self, bands: list[int], first: int, last: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Source values and validity of output rows by nearest neighbour: from the source pixel under each output pixel's centre."""
        (height, width), (out_height, out_width) = self.scene.size, self.size
        rows = nearest(height, out_height, first, last)
        columns = nearest(width, out_width, 0, out_width)
        block = self.scene.raster.read(slice(int(rows[0]), int(rows[-1]) + 1), slice(0, width), bands)
        rows -= rows[0]
        valid = None if block.valid is None else block.valid[:, rows][:, :, columns]
        return block.values[:, rows][:, :, columns], valid

    def _alpha(self, first: int, last: int) -> list[np.ndarray]:
        alpha = self.scene.info.alpha
        return [] if alpha is None else [self._nearest([alpha], first, last)[0]]

    def _valid_anywhere(self, first: int, last: int) -> np.ndarray:
        """(rows, W): whether any band is measured, by GDAL's dataset mask."""
        (height, width), (out_height, out_width) = self.scene.size, self.size
        rows, columns = nearest(height, out_height, first, last), nearest(width, out_width, 0, out_width)
        mask = self.scene.raster.read_mask(slice(int(rows[0]), int(rows[-1]) + 1), slice(0, width))
        return mask[rows - rows[0]][:, columns]
