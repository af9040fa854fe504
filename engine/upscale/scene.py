"""Upscale one GeoTIFF of any size in bounded memory: read tiles, keep finished rows of tiles, write the file from the top.

A piece is one row of tiles of one group of bands. It depends on the scene only, so pieces can be made in any order,
by any process, and made again after an interruption: the result is the same to the byte. Rows of tiles overlap as in
`engine.restore.tiles`; a piece keeps its own part of the overlap, weighted, and the parts are added when the file is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import torch

from data.clips import ArrayClip
from data.clips.scene import SceneClip
from data.degrade import imresize
from data.files import holds, replacing
from data.raster import check_name
from data.raster_writer import RasterWriter, sidecar
from data.validity import keep_apart, nearest
from engine.restore import Options, restore, tiles
from engine.restore.memory import SHARE, bytes_per_pixel
from engine.restore.work import key_network
from engine.upscale.job import ClipJob
from errors import InputError
from models.base import Network

NETWORK_MEMORY = 2**30  # memory of the network for one tile, bytes
ROW_MEMORY = 2**28  # bytes of the finished part of a row of tiles


# frames (h, w, bands) float32 of a series, index of the target frame, (H, W) -> (bands, H, W)
Enlarge = Callable[[list[np.ndarray], int, tuple[int, int]], np.ndarray]


class Row(NamedTuple):
    """A finished row of tiles of one group, (bands, rows, W): rows shared with the row above and the one below in float32,
    weighted; the other rows in the type of the file.
    """

    above: np.ndarray
    own: np.ndarray
    below: np.ndarray


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
        self._keep(number, self._cut(index, canvas, positions))

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

    def _keep(self, number: int, row: Row) -> None:
        header = np.array([part.shape[1] for part in row], "<i8")
        with replacing(self.piece(number)) as temporary, temporary.open("wb") as file:
            file.write(header.tobytes())
            for part in row:
                packed = imagecodecs.zstd_encode(np.ascontiguousarray(part).tobytes(), level=1)
                file.write(np.array([len(packed)], "<i8").tobytes() + packed)

    def load(self, number: int) -> Row:
        """Read a kept row of tiles: three int64 row counts, then the size and zstd data of each part of `Row`."""
        bands, content = len(self.scene.groups[number % len(self.scene.groups)]), self.piece(number).read_bytes()
        lengths, place, parts = np.frombuffer(content, "<i8", 3), 24, []
        for length, dtype in zip(
            lengths, (np.dtype(np.float32), self.scene.info.dtype, np.dtype(np.float32)), strict=True
        ):
            packed = int(np.frombuffer(content, "<i8", 1, place)[0])
            values = np.frombuffer(imagecodecs.zstd_decode(content[place + 8 : place + 8 + packed]), dtype)
            parts.append(values.reshape(bands, int(length), self.size[1]))
            place += 8 + packed
        return Row(*parts)

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
        groups = self.scene.groups
        writer = RasterWriter(result, self.scene.info, self.size)
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
        self._move_raster(result)

    def _strips(self) -> list[tuple[int, int]]:
        """Output rows that become final with each row of tiles."""
        starts = [span.out_start for span in self.rows]
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
        (height, width), (out_height, out_width) = self.clip.size, self.size
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
        (height, width), (out_height, out_width) = self.clip.size, self.size
        rows, columns = nearest(height, out_height, first, last), nearest(width, out_width, 0, out_width)
        mask = self.scene.raster.read_mask(slice(int(rows[0]), int(rows[-1]) + 1), slice(0, width))
        return mask[rows - rows[0]][:, columns]


def choose_tile(job: SceneJob, network: Network, free: float) -> int | None:
    """Tile side in LR pixels, limited by the memory of the network and of one row of tiles. free: bytes of memory."""
    key_frames_by = key_network(network, job.clip.size, job.network_size, job.settings["temporal_filter"])
    needed = bytes_per_pixel(network, key_frames=2, key_network=key_frames_by)
    scale = job.size[1] / job.clip.size[1]
    side = (min(NETWORK_MEMORY, SHARE * free) / needed) ** 0.5
    row = ROW_MEMORY / (4 * len(job.scene.groups[0]) * job.size[1] * scale)
    tile = int(min(side, max(row, 2 * tiles.SMALLEST))) // job.multiple * job.multiple
    return None if tile >= max(job.clip.size) else max(tile, tiles.SMALLEST)


def still(network: Network, name: str, frame: np.ndarray) -> ArrayClip:
    """A single frame as a clip: STNO needs two key frames, so the frame is repeated."""
    return ArrayClip(name, [frame] * (2 if network.space_time else 1))


def enlarger(job: SceneJob, network: Network, options: Options, device: torch.device) -> Enlarge:
    """A function that runs the network on one tile."""

    def enlarge(window: list[np.ndarray], centre: int, size: tuple[int, int]) -> np.ndarray:
        part = window[centre]
        clip = ArrayClip(job.clip.name, window) if len(window) > 1 else still(network, job.clip.name, part)
        made = [
            round(side * out / lr) for side, out, lr in zip(part.shape, job.network_size, job.clip.size, strict=False)
        ]
        frames = restore(
            network,
            clip,
            device=device,
            padding=job.settings.get("padding"),
            temporal_filter=job.settings["temporal_filter"],
            frames=range(centre, centre + 1),
            times=(),
            size=(made[0], made[1]),
            options=options,
        )
        frame = next(frames)
        frame = frame if tuple(frame.shape[-2:]) == size else imresize(frame, size=size)
        return frame.numpy() if part.shape[-1] == 3 else frame.mean(0, keepdim=True).numpy()

    return enlarge


def middle(job: SceneJob, network: Network, side: int) -> ArrayClip:
    """A crop of at most `side` x `side` pixels of the scene, for measurements."""
    rows, columns = (slice((n - min(n, side)) // 2, (n - min(n, side)) // 2 + min(n, side)) for n in job.clip.size)
    return still(network, job.clip.name, job.scene.part(0, rows, columns))


def make_pieces(
    job: SceneJob, numbers: list[int], network: Network, options: Options, device: torch.device, bar: Any
) -> None:
    """Restore rows of tiles in sequence."""
    enlarge = enlarger(job, network, options, device)
    for number in numbers:
        job.make_piece(number, enlarge, bar.set_postfix_str)
        bar.update()
