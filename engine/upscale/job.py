"""One clip to upscale: its output frames, the pieces that processes share, and the work folder with finished pieces.

The work folder `.OUT.upscaling` is next to the output OUT until the job is done. It holds `job.json` (source, weights and
settings), finished frames and finished pieces. Each file is renamed into place, so a kill never leaves a partial one. Any
number of processes may work on different pieces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data import frame_writer, tiff
from data.baseline import Bicubic
from data.clips import Clip
from data.details import Details
from data.files import holds, is_own_folder, move, remove_own_folder, remove_unfinished, replacing
from data.frame_writer import check_free
from data.media import from_tensor, read_image, to_tensor
from data.validity import with_holes
from data.video import join
from engine.upscale import comparison, pictures
from engine.upscale.timeline import Timeline
from engine.upscale.video_target import VideoTarget
from engine.upscale.work_folder import begun_with, check_same, check_work_folder, create, is_filled, work_folder

PIECE = 48  # key frames of a piece; a multiple of the chunk of space-time networks


@dataclass
class ClipJob:
    """A clip to upscale, and the description of its output.

    kind: "video", "frames", "image" or "stack".   size: (H, W) of the output.
    network_size: (H, W) that the network makes (default: size).
    timeline: the output's frames.   target: the video to write, for that kind.   compare: the comparison to write.
    settings: weights, precision, tile and other settings that change the result.
    """

    clip: Clip
    out: Path
    kind: str
    size: tuple[int, int]
    timeline: Timeline
    network_size: tuple[int, int] = (0, 0)
    image_suffix: str = ".png"
    target: VideoTarget | None = None
    compare: VideoTarget | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    overwrite: bool = False  # whether to replace an existing result; set by `check`

    def __post_init__(self) -> None:
        self.network_size = self.network_size if any(self.network_size) else self.size
        self.work = work_folder(self.out)
        deep = self.clip.bit_depth > 8
        self.dtype = np.dtype(np.float32 if self.clip.bit_depth == 32 else np.uint16 if deep else np.uint8)
        if self.target is not None:
            self.dtype = self.target.encoding.value_type
        self.bands = None if self.kind == "video" else self.clip.band_map  # videos show the stretched bands
        if self.bands is not None:
            self.dtype = self.bands.dtype
        self.channels = 3 if self.kind == "video" else self.clip.channels
        self.alpha = self.kind != "video" and self.clip.transparent and pictures.holds_alpha(self.suffix)

    def __len__(self) -> int:
        """Number of output frames."""
        return len(self.timeline)

    @property
    def suffix(self) -> str:
        """Suffix of the output's pictures."""
        return ".tif" if self.kind == "stack" else self.image_suffix

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.size, self.channels + self.alpha)

    @property
    def pieces(self) -> list[int]:
        """Numbers of the pieces that have output frames."""
        return [number for number in range(-(-len(self.clip) // PIECE)) if len(self.frames_of(number))]

    def frames_of(self, piece: int) -> range:
        """Output frames of a piece: its key frames and the intermediate frames after each."""
        return self.timeline.outputs(piece * PIECE, (piece + 1) * PIECE)

    def keys_of(self, piece: int) -> range:
        """Key frames of a piece."""
        return range(piece * PIECE, min((piece + 1) * PIECE, len(self.clip)))

    def outputs_of(self, key: int) -> range:
        """Output frames of one key frame."""
        return self.timeline.outputs(key, key + 1)

    def place(self, index: int) -> tuple[int, float]:
        """The key frame before an output frame, and the time after it (0: the key frame itself)."""
        return self.timeline.places[index]

    def name(self, index: int) -> str:
        """File name of a frame: the name in the source, or a number if frames are added."""
        return f"{index:08d}" if self.timeline.doubled else self.clip.frame_names[self.place(index)[0]]

    def source(self, index: int) -> str:
        """Description of an output frame for messages."""
        key, step = self.place(index)
        where = f"clip '{self.clip.name}', frame '{self.clip.frame_names[key]}'"
        return f"{where} + {step:g}" if step else where

    @property
    def places(self) -> list[Path]:
        """Paths that the job writes: the result, the comparison and the work folder."""
        return [self.out, *([self.comparison_path] if self.compare else []), *self.image_side_files, self.work]

    @cached_property
    def image_side_files(self) -> list[Path]:
        """Files with the georeference of a single picture."""
        files = self.side_files(0).items() if self.kind in ("image", "stack") else ()
        paths = [(self.out.with_suffix(suffix), content) for suffix, content in files]
        return [path for path, content in paths if not holds(path, content)]  # in.jpg to in.png: the same in.prj

    # --- the work folder ---

    def raw(self, index: int) -> Path:
        return self.work / "raw" / f"{index:08d}.zst"

    def image(self, index: int) -> Path:
        return self.work / "frames" / f"{self.name(index)}{self.image_suffix}"

    def piece(self, number: int) -> Path:
        return self.work / "pieces" / f"{number:06d}.mkv"

    def piece_beside(self, number: int) -> Path:
        return self.work / "pieces" / f"{number:06d}_compare.mkv"

    @property
    def comparison_path(self) -> Path:
        """The video of the comparison."""
        return comparison.comparison_path(self.out)

    def complete(self, number: int) -> bool:
        """Whether a piece is finished."""
        if self.compare and not is_filled(self.piece_beside(number)):
            return False
        if self.kind == "video":
            return is_filled(self.piece(number))
        return all(self.has(index) for index in self.frames_of(number))

    def has(self, index: int) -> bool:
        """Whether a frame of an unfinished piece exists."""
        return is_filled(self.raw(index) if self.keeps_raw else self.image(index))

    @property
    def keeps_raw(self) -> bool:
        """Whether finished frames are kept without a format, because one file is made of them."""
        return self.kind in ("video", "stack")

    def keep(self, index: int, frame: Any) -> None:
        """Write a restored frame (3, H, W) in [0, 1] to the work folder."""
        array = self.clip.stored(frame) if self.bands else from_tensor(frame, self.dtype, self.channels)
        if (holes := self.clip.holes(self.place(index)[0])) is not None:
            source, valid = holes
            if self.kind == "video":  # black; gray clips have three equal channels
                source, valid = (
                    np.zeros((*source.shape[:2], 3), source.dtype),
                    np.repeat(valid, 3 // valid.shape[-1], -1),
                )
            array = with_holes(array, source, valid)
        if self.alpha:
            alpha = pictures.enlarged_alpha(self.clip, self.place(index), self.size, array.dtype)
            array = np.concatenate([array, alpha], axis=-1)
        if self.keeps_raw:
            frame_writer.store_frame(self.raw(index), array)
            return
        if self.kind == "frames":
            self._write_side_files(index, self.image(index), replace=True)
        geo = self.geo(index) if self.kind == "frames" else None
        frame_writer.write_frame(self.image(index), array, geo, self.details(index), self.alpha)

    def details(self, index: int) -> Details:
        """Metadata of the source's frame, for the output's size."""
        return pictures.enlarged_details(self.clip, self.place(index)[0], self.size)

    def side_files(self, index: int) -> dict[str, bytes]:
        """World file and reference system of an output picture, by suffix."""
        return pictures.side_files(self.clip, self.place(index)[0], self.geo(index), self.suffix)

    def _write_side_files(self, index: int, image: Path, *, replace: bool) -> None:
        for suffix, content in self.side_files(index).items():
            if not holds(image.with_suffix(suffix), content):
                with replacing(image.with_suffix(suffix), replace=replace) as temporary:
                    temporary.write_bytes(content)

    def finish_piece(self, number: int) -> None:
        """Encode a piece with all its frames, and its comparison, then delete the raw frames."""
        indices = self.frames_of(number)
        (self.work / "pieces").mkdir(exist_ok=True)
        if self.compare:
            bicubic = Bicubic(deepcopy(self.clip), self.size)  # a copy: this runs in the writer's thread
            left = (from_tensor(bicubic(*self.place(index)), np.dtype(np.uint8)) for index in indices)
            shown = map(self.bands.stretch, self.stored(indices)) if self.bands else self.stored(indices)
            both = comparison.pairs(left, (from_tensor(to_tensor(array), np.dtype(np.uint8)) for array in shown))
            join.write_piece(self.piece_beside(number), both, self.compare.encoding, self.timeline.fps)
        if self.target:
            join.write_piece(self.piece(number), self.stored(indices), self.target.encoding, self.timeline.fps)
            for index in indices:
                self.raw(index).unlink(missing_ok=True)

    def stored(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        for index in indices:
            if self.keeps_raw:
                yield frame_writer.load_frame(self.raw(index), self.shape, self.dtype)
            else:
                yield read_image(self.image(index))

    def geo(self, index: int) -> tiff.GeoTags | None:
        """The georeference of the source, scaled to the output's pixel size."""
        found = self.clip.geo(self.place(index)[0]) if hasattr(self.clip, "geo") else None
        if found is None:
            return None
        height, width = self.clip.size
        return found.scaled(self.size[0] / height, self.size[1] / width)

    # --- begin and end ---

    def identity(self) -> dict[str, Any]:
        """Settings that must match for finished frames to be reused."""
        timeline = repr((self.timeline.places, self.timeline.times, self.timeline.cuts))
        what = {
            "source": [self.clip.identity(0), self.clip.identity(len(self.clip) - 1), len(self.clip)],
            "size": list(self.size),
            "timeline": hashlib.sha256(timeline.encode()).hexdigest(),
            "kind": self.kind,
            "compare": self.compare is not None,
            **self.settings,
        }
        for target in (self.target, self.compare):
            if target:
                what |= {"encoding": repr(target.encoding), "fps": str(self.timeline.fps)}
                break
        if self.kind != "video":
            what["image-format"] = self.image_suffix
        return what

    @property
    def notes(self) -> list[str]:
        """Notes for the user on the written files."""
        notes = [f"'{target.path}': {note}" for target in (self.target,) if target for note in target.notes]
        if self.kind == "video":
            return notes + pictures.losses_of_video(self.clip)
        return notes + pictures.losses(self.clip, self.geo(0), self.suffix)

    def check_formats(self) -> None:
        """Raises InputError if the output format cannot store the frames, their times or the source's tracks."""
        height, width = self.size
        if self.target:
            self.target.check(self.size, self.timeline)
        if self.compare:
            self.compare.check((height, 2 * width), self.timeline)
        if self.kind in ("frames", "image"):
            frame_writer.check_image_size(self.image_suffix, self.size)
            frame_writer.check_image_depth(self.image_suffix, self.dtype)

    def check(self, resume: bool, overwrite: bool) -> None:
        """Raises InputError if the output or the work folder of an interrupted run exists and may not be replaced."""
        check_work_folder(self.work, resume, overwrite)
        self.overwrite = overwrite or (resume and self.begun_with().get("overwrite") is True)
        self.check_free()

    def check_free(self) -> None:
        """Raises InputError if an existing file must not be replaced. Called before the work and again before the final rename."""
        check_free(self.out, self.kind, self.overwrite, self.made)
        if self.compare:
            check_free(self.comparison_path, "video", self.overwrite)
        for path in self.image_side_files:
            check_free(path, "side file", self.overwrite)

    @cached_property
    def made(self) -> frozenset[str]:
        """Names of the files in an output folder."""
        images = [(index, self.image(index)) for index in range(len(self)) if self.kind == "frames"]
        sides = [image.with_suffix(suffix).name for index, image in images for suffix in self.side_files(index)]
        return frozenset([*(image.name for _, image in images), *sides])

    def begin(self, resume: bool) -> None:
        """Create the work folder, or reuse the existing one with `resume`. Raises InputError if it belongs to another job or
        cannot be written.
        """
        if resume and self._has_begun():
            check_same(self.work, self.identity())
            for place in (self.work, self.out, self.comparison_path):
                remove_unfinished(place)
            self._drop_damaged()
        else:
            create(self.work, {**self.identity(), "overwrite": self.overwrite})

    def _has_begun(self) -> bool:
        """Whether the work folder has anything to resume. A process killed at its start leaves a folder without content."""
        return (self.work / "job.json").exists() or any(self.work.glob("*/*"))

    def _drop_damaged(self) -> None:
        """Delete finished frames that cannot be read, so that they are restored again."""
        images = [path for path in (self.work / "frames").glob("*") if path.suffix == self.image_suffix]
        for path in (*(self.work / "raw").glob("*"), *images):
            if not frame_writer.is_sound(path, self.shape, self.dtype):
                path.unlink()

    def leave(self) -> str:
        """After a failure: keep the work folder if it has finished parts, and say so; else remove it."""
        if not is_own_folder(self.work):
            return ""
        if any(is_filled(path) for name in ("raw", "frames", "pieces") for path in (self.work / name).glob("*")):
            return f"finished parts are kept in '{self.work}' for --resume (--overwrite starts again)"
        remove_own_folder(self.work)
        return ""

    def begun_with(self) -> dict[str, Any]:
        """Settings of an interrupted run of this job; empty if there is none."""
        return begun_with(self.work)

    def finish(self) -> list[Path]:
        """Join the pieces, rename the result into place and remove the work folder. Returns the written paths."""
        written = [self.out]
        self.check_free()  # again: another program may have created the file meanwhile
        if self.target:
            self._join(self.target, [self.piece(number) for number in self.pieces])
        elif self.kind == "image":
            self._write_side_files(0, self.out, replace=self.overwrite)
            move(self.image(0), self.out, replace=self.overwrite)
        elif self.kind == "stack":
            total = len(self) * int(np.prod(self.shape)) * self.dtype.itemsize
            indices, result = range(len(self)), self.work / self.out.name
            self._write_side_files(0, self.out, replace=self.overwrite)
            tags = ((self.geo(index), self.details(index)) for index in indices)
            frame_writer.write_stack(result, self.stored(indices), total, tags, self.alpha)
            move(result, self.out, replace=self.overwrite)
        else:
            frame_writer.replace_folder(self.work / "frames", self.out, self.overwrite, self.made)
        if self.compare:
            self._join(self.compare, [self.piece_beside(number) for number in self.pieces])
            written.append(self.comparison_path)
        remove_own_folder(self.work)
        return written

    def _join(self, target: VideoTarget, pieces: list[Path]) -> None:
        result = self.work / target.path.name
        join.join(result, pieces, target.encoding, target.timing(self.timeline), target.source)
        move(result, target.path, replace=self.overwrite)
