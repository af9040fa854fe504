"""Make the output of one clip in pieces, which processes share and interrupted runs resume.

The work folder `.OUT.upscaling` is next to the output OUT until the job is done. It holds `job.json` (source, weights and
settings), finished frames and finished pieces. Each file is renamed into place, so a kill never leaves a partial one. Any
number of processes may work on different pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from data import frame_writer
from data.baseline import Bicubic
from data.clips import Clip
from data.files import holds, is_own_folder, move, remove_own_folder, remove_unfinished, replacing
from data.media import from_tensor, read_image, to_tensor
from data.validity import with_holes
from data.video import join
from engine.upscale import comparison, pictures
from engine.upscale.clip_output import ClipOutput
from engine.upscale.output_paths import remove_stale_files
from engine.upscale.video_target import VideoTarget
from engine.upscale.work_folder import begun_with, check_same, check_work_folder, create, is_filled, note_publication

PIECE = 48  # key frames of a piece; a multiple of the chunk of space-time networks


class ClipJob(ClipOutput):
    """Makes the output of one clip in pieces, which are finished and resumed as units."""

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

    # --- the work folder ---

    def raw(self, index: int) -> Path:
        return self.work / "raw" / f"{index:08d}.zst"

    def image(self, index: int) -> Path:
        return self.work / "frames" / self.image_name(index)

    def piece(self, number: int) -> Path:
        return self.work / "pieces" / f"{number:06d}.mkv"

    def comparison_piece(self, number: int) -> Path:
        return self.work / "pieces" / f"{number:06d}_compare.mkv"

    def complete(self, number: int) -> bool:
        """Whether a piece is finished."""
        if self.compare and not (is_filled(self.comparison_piece(number)) or self.is_published(self.comparison_path)):
            return False
        if self.is_published(self.out):
            return True
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

    def keep(self, index: int, frame: Tensor) -> None:
        """Write a restored frame (3, H, W) in [0, 1] to the work folder; of a clip with several parts, their frames together."""
        arrays = [self._stored_part(part, index, each) for part, each in zip(self.parts, frame.split(3), strict=True)]
        array = np.concatenate(arrays, axis=-1) if len(arrays) > 1 else arrays[0]
        if self.alpha:
            alpha = pictures.enlarged_alpha(self.clip, self.place(index), self.size, array.dtype)
            array = np.concatenate([array, alpha], axis=-1)
        if self.keeps_raw:
            frame_writer.store_frame(self.raw(index), array)
            return
        if self.kind == "frames":
            self._write_side_files(index, self.image(index), replace=True)
        geo = self.geo(index) if self.kind == "frames" else None
        frame_writer.write_frame(
            self.image(index), array, geo, self.details(index), self.alpha, self.clip.rgb, self.mask(index)
        )

    def _stored_part(self, part: Clip, index: int, frame: Tensor) -> np.ndarray:
        """(H, W, C) in the type and units of the output, with the holes of the source."""
        array = part.stored(frame) if self.bands else from_tensor(frame, self.dtype, self.channels)
        if (holes := part.holes(self.place(index)[0])) is None:
            return array
        source, valid = holes
        if self.kind == "video":  # black; grey clips have three equal channels
            source = np.zeros((*source.shape[:2], 3), source.dtype)
            valid = np.repeat(valid, 3 // valid.shape[-1], -1)
        return with_holes(array, source, valid)

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
            # without alpha and the bands of other parts
            shown: Iterator[np.ndarray] = (array[..., : self.clip.channels] for array in self.stored(indices))
            shown = map(self.bands.stretch, shown) if self.bands else shown
            both = comparison.pairs(left, (from_tensor(to_tensor(array), np.dtype(np.uint8)) for array in shown))
            join.write_piece(self.comparison_piece(number), both, self.compare.encoding, self.timeline.fps)
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

    # --- begin and end ---

    def check(self, resume: bool, overwrite: bool) -> None:
        """Raises InputError if the output or the work folder of an interrupted run exists and may not be replaced."""
        check_work_folder(self.work, resume, overwrite)
        self.overwrite = overwrite or (resume and self.begun_with().get("overwrite") is True)
        self.check_free()

    def begin(self, resume: bool) -> None:
        """Create the work folder, or reuse the existing one with `resume`. Raises InputError if it belongs to another job or
        cannot be written.
        """
        if resume and self._has_begun():
            check_same(self.work, self.identity())
            self.remove_unfinished()
            self._drop_damaged()
        else:
            create(self.work, {**self.identity(), "overwrite": self.overwrite})

    def remove_unfinished(self) -> None:
        """Remove temporary files of a killed process. Of an earlier output folder that it replaced, only files that are written again."""
        for place in (self.work, self.out, self.comparison_path, *self.written_with_result):
            remove_unfinished(place)
        if self.kind == "frames":
            frame_writer.remove_replaced(self.out, self.made)

    @property
    def written_with_result(self) -> list[Path]:
        """Files that are written next to the result, directly to their places."""
        return (
            [self.out.with_suffix(suffix) for suffix in self.side_files(0)] if self.kind in ("image", "stack") else []
        )

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
        """Join the pieces and rename the result into place, unless an interrupted run has done so. Returns the written paths."""
        self.check_free()  # again: another program may have created the file meanwhile
        if not self.is_published(self.out):
            self._finish_result()
        if self.compare and not self.is_published(self.comparison_path):
            self._join(self.compare, [self.comparison_piece(number) for number in self.pieces])
        return [self.out, *([self.comparison_path] if self.compare else [])]

    def close(self) -> None:
        """Remove the work folder of a finished job."""
        if is_own_folder(self.work):
            remove_own_folder(self.work)

    def _finish_result(self) -> None:
        if self.target:
            self._join(self.target, [self.piece(number) for number in self.pieces])
        elif self.kind == "image":
            self._write_side_files(0, self.out, replace=self.overwrite)
            self._move_raster(self.image(0))
        elif self.kind == "stack":
            total = len(self) * int(np.prod(self.shape)) * self.dtype.itemsize
            indices, result = range(len(self)), self.work / self.out.name
            self._write_side_files(0, self.out, replace=self.overwrite)
            tags = ((self.geo(index), self.details(index), self.mask(index)) for index in indices)
            frame_writer.write_stack(result, self.stored(indices), total, tags, self.alpha, self.clip.rgb)
            self._move_raster(result)
        else:
            note_publication(self.work, self.work / "frames", self.out)
            frame_writer.replace_folder(self.work / "frames", self.out, self.overwrite, self.made)

    def _move_raster(self, result: Path) -> None:
        if self.overwrite:
            remove_stale_files(self.out)
        self._publish(result, self.out)

    def _publish(self, result: Path, target: Path) -> None:
        note_publication(self.work, result, target)
        move(result, target, replace=self.overwrite)

    def _join(self, target: VideoTarget, pieces: list[Path]) -> None:
        result = self.work / target.path.name
        join.join(result, pieces, target.encoding, target.timing(self.timeline), target.source)
        self._publish(result, target.path)
