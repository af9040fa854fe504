"""One clip to upscale: what its output frames are, in which pieces they are made, and the work folder that keeps what
is finished.

Beside the output OUT lies `.OUT.upscaling` until the work is done. It holds `job.json` (what is being made, with which
weights and numbers), finished frames and finished pieces, each put there by a rename. Any number of processes may work
on different pieces.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data import frame_writer, tiff, video_join
from data.clips import Clip, VideoClip
from data.files import (
    is_own_folder,
    make_own_folder,
    move,
    remove_own_folder,
    remove_unfinished,
    replacing,
)
from data.frame_writer import check_free
from data.media import from_tensor, read_image, to_tensor
from engine.upscale import comparison
from errors import InputError

PIECE = 48  # key frames of a piece; a multiple of the chunk of space-time networks


@dataclass
class ClipJob:
    """A clip, where its upscaled version goes and of what it consists.

    kind: "film", "frames" or "stack".   times: in-between times of each gap, empty for the key frames alone.
    """

    clip: Clip
    out: Path
    kind: str
    size: tuple[int, int]  # (H, W) of the output
    times: tuple[float, ...] = ()
    image_suffix: str = ".png"
    compare: bool = False
    codec: str = "h264"
    crf: int = 16
    lossless: bool = False
    fps: Fraction = Fraction(25)  # of the output
    facts: dict[str, Any] = field(default_factory=dict)  # weights, precision, tile, ...: what the result depends on
    overwrite: bool = False  # whether a result that exists is replaced; `check` sets it

    def __post_init__(self) -> None:
        self.per_gap = len(self.times) + 1
        self.work = self.out.with_name(f".{self.out.name}.upscaling")
        deep = self.clip.bit_depth > 8
        self.dtype = np.dtype(np.float32 if self.clip.bit_depth == 32 else np.uint16 if deep else np.uint8)
        if self.kind == "film" and self.dtype == np.float32:
            self.dtype = np.dtype(np.uint16)
        self.bands = None if self.kind == "film" else self.clip.band_map  # films show the stretched bands
        if self.bands is not None:
            self.dtype = self.bands.dtype
        self.channels = 3 if self.kind == "film" else self.clip.channels

    def __len__(self) -> int:
        """Number of output frames."""
        return (len(self.clip) - 1) * self.per_gap + 1

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.size, self.channels)

    @property
    def pieces(self) -> int:
        return -(-len(self.clip) // PIECE)

    def frames_of(self, piece: int) -> range:
        """Output frames of a piece: its key frames and the in-between frames after each."""
        return range(piece * PIECE * self.per_gap, min((piece + 1) * PIECE * self.per_gap, len(self)))

    def outputs_of(self, key: int) -> range:
        """Output frames of one key frame."""
        return range(key * self.per_gap, min((key + 1) * self.per_gap, len(self)))

    def place(self, index: int) -> tuple[int, float]:
        """Key frame and time after it (0: the key frame itself) of an output frame."""
        key, step = divmod(index, self.per_gap)
        return key, self.times[step - 1] if step else 0.0

    def time(self, index: int) -> float:
        """Seconds from the first frame, as the source's frame times say."""
        key, step = self.place(index)
        times = self.clip.times if self.clip.fps else [k * float(self.per_gap / self.fps) for k in range(key + 2)]
        return times[key] + step * (times[key + 1] - times[key]) if step else times[key]

    def name(self, index: int) -> str:
        """How a frame is called in a folder: as in the source, or numbered where there are more of them."""
        return f"{index:08d}" if self.times else self.clip.frame_names[index]

    def source(self, index: int) -> str:
        """An output frame in words, for messages."""
        key, step = self.place(index)
        where = f"clip '{self.clip.name}', frame '{self.clip.frame_names[key]}'"
        return f"{where} + {step:g}" if step else where

    @property
    def places(self) -> list[Path]:
        """What is made on the disk: the result, the comparison, the work folder."""
        return [self.out, *([self.beside] if self.compare else []), self.work]

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
    def beside(self) -> Path:
        """The film of the comparison."""
        return comparison.comparison_path(self.out)

    def complete(self, number: int) -> bool:
        """Whether nothing remains to be done for a piece."""
        if self.compare and not self.piece_beside(number).is_file():
            return False
        if self.kind == "film":
            return self.piece(number).is_file()
        return all(self.image(index).is_file() for index in self.frames_of(number))

    def has(self, index: int) -> bool:
        """Whether a frame of an unfinished piece is there."""
        return (self.raw(index) if self.kind == "film" else self.image(index)).is_file()

    def keep(self, index: int, frame: Any) -> None:
        """Put a restored frame (3, H, W) in [0, 1] into the work folder."""
        array = self.clip.stored(frame) if self.bands else from_tensor(frame, self.dtype, self.channels)
        if self.kind == "film":
            frame_writer.store_frame(self.raw(index), array)
        else:
            frame_writer.write_frame(self.image(index), array, self.geo(index) if self.kind == "frames" else None)

    def finish_piece(self, number: int) -> None:
        """Once all its frames are there: encode the piece and its comparison, and give the room of raw frames back."""
        indices = self.frames_of(number)
        times = [self.time(index) for index in indices]
        (self.work / "pieces").mkdir(exist_ok=True)
        if self.compare:
            style = self.style(0)
            bicubic = comparison.Bicubic(
                deepcopy(self.clip), self.size
            )  # a decoder of its own: this is the writer's thread
            left = (from_tensor(bicubic(*self.place(index)), np.dtype(np.uint8)) for index in indices)
            shown = map(self.bands.stretch, self.stored(indices)) if self.bands else self.stored(indices)
            both = comparison.pairs(left, (from_tensor(to_tensor(array), np.dtype(np.uint8)) for array in shown))
            video_join.write_piece(self.piece_beside(number), both, times, style)
        if self.kind == "film":
            video_join.write_piece(self.piece(number), self.stored(indices), times, self.style())
            for index in indices:
                self.raw(index).unlink(missing_ok=True)

    def stored(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        for index in indices:
            if self.kind == "film":
                yield frame_writer.load_frame(self.raw(index), self.shape, self.dtype)
            else:
                yield read_image(self.image(index))

    def style(self, bits: int | None = None) -> video_join.VideoStyle:
        """How the film is encoded; bits 0: as a comparison, 8 bits in H.264."""
        like = self.clip.film if isinstance(self.clip, VideoClip) else None
        if bits == 0:
            return video_join.VideoStyle(self.fps, like, "h264", self.crf, False, 8)
        return video_join.VideoStyle(
            self.fps,
            like,
            self.codec,
            self.crf,
            self.lossless,
            min(self.clip.bit_depth, 16) if like is None else like.info.bits,
        )

    def geo(self, index: int) -> tiff.GeoTags | None:
        """The georeference of the source, its pixels as small as the output's."""
        found = self.clip.geo(self.place(index)[0]) if hasattr(self.clip, "geo") else None
        if found is None:
            return None
        height, width = self.clip.size
        return found.scaled(self.size[0] / height, self.size[1] / width)

    # --- begin and end ---

    def identity(self) -> dict[str, Any]:
        """What must be the same for finished frames to be of use."""
        what = {
            "source": [self.clip.identity(0), self.clip.identity(len(self.clip) - 1), len(self.clip)],
            "size": list(self.size),
            "times": list(self.times),
            "kind": self.kind,
            "compare": self.compare,
            **self.facts,
        }
        if self.kind == "film" or self.compare:
            what |= {"codec": self.codec, "crf": self.crf, "lossless": self.lossless, "fps": str(self.fps)}
        if self.kind != "film":
            what["image-format"] = self.image_suffix
        return what

    def check(self, resume: bool, overwrite: bool) -> None:
        """Raises InputError where the output or an interrupted run's work folder is in the way."""
        if self.work.exists() and not is_own_folder(self.work) and any(self.work.iterdir()):
            raise InputError(f"'{self.work}' was not made by this program: move it away or name another output")
        if self.work.exists() and not (resume or overwrite):
            raise InputError(
                f"'{self.work}' holds an interrupted upscaling of this clip: go on with --resume or start "
                f"again with --overwrite"
            )
        self.overwrite = overwrite or (resume and self.begun_with().get("overwrite") is True)
        self.check_free()

    def check_free(self) -> None:
        """Raises InputError where something is that must not be replaced; asked before the work and at its end."""
        check_free(self.out, self.kind, self.overwrite, self.made)
        if self.compare:
            check_free(self.beside, "film", self.overwrite)

    @cached_property
    def made(self) -> frozenset[str]:
        """Names of the files in an output folder."""
        return frozenset(self.image(index).name for index in range(len(self)) if self.kind == "frames")

    def begin(self, resume: bool) -> None:
        """Make the work folder, or take up the one that is there. Raises InputError where it is another work's, or
        cannot be written.
        """
        if self.work.exists() and resume:
            self._check_same()
            for place in (self.work, self.out, self.beside):
                remove_unfinished(place)
            self._drop_damaged()
            return
        try:
            if self.work.exists():
                remove_own_folder(self.work) if is_own_folder(self.work) else self.work.rmdir()
            make_own_folder(self.work)
            for name in ("raw", "frames", "pieces"):
                (self.work / name).mkdir()
            self._write_identity()
        except OSError as error:
            raise InputError(
                f"'{self.out.parent}': cannot be written ({error.strerror}): choose another folder"
            ) from None

    def _drop_damaged(self) -> None:
        """Kept frames that cannot be read are made again."""
        for path in (*(self.work / "raw").glob("*"), *(self.work / "frames").glob("*")):
            if not frame_writer.is_sound(path, self.shape, self.dtype):
                path.unlink()

    def _write_identity(self) -> None:
        with replacing(self.work / "job.json") as temporary:
            content = {**self.identity(), "overwrite": self.overwrite}
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")

    def begun_with(self) -> dict[str, Any]:
        """What an interrupted run has written down; empty if there is none or it is damaged."""
        try:
            begun = json.loads((self.work / "job.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return begun if isinstance(begun, dict) else {}

    def _check_same(self) -> None:
        before, now = self.begun_with(), json.loads(json.dumps(self.identity()))
        if not before:
            raise InputError(f"'{self.work / 'job.json'}' is damaged: start again with --overwrite")
        changed = [key for key in now if before.get(key) != now[key]]
        if changed:
            key = changed[0]
            raise InputError(
                f"'{self.work}' was begun with another {key} ({before.get(key)}, now {now[key]}): use the same, "
                f"or --overwrite"
            )

    def finish(self) -> list[Path]:
        """Put the pieces together, give the result its name and remove the work folder. Returns what was written."""
        written = [self.out]
        self.check_free()  # again: something may have appeared meanwhile
        if self.kind == "film":
            self._join(self.out, [self.piece(number) for number in range(self.pieces)])
        elif self.kind == "stack":
            total = len(self) * int(np.prod(self.shape)) * self.dtype.itemsize
            indices, whole = range(len(self)), self.work / self.out.name
            frame_writer.write_stack(whole, self.stored(indices), total, map(self.geo, indices))
            move(whole, self.out, replace=self.overwrite)
        else:
            frame_writer.replace_folder(self.work / "frames", self.out, self.overwrite, self.made)
        if self.compare:
            self._join(self.beside, [self.piece_beside(number) for number in range(self.pieces)])
            written.append(self.beside)
        remove_own_folder(self.work)
        return written

    def _join(self, path: Path, pieces: list[Path]) -> None:
        film = self.clip.film if isinstance(self.clip, VideoClip) else None
        times, last = self.clip.times, video_join.last_shown(film) if film else None
        if last is None:  # as long as the one before
            last = times[-1] - times[-2] if self.clip.fps and len(times) > 1 else float(self.per_gap / self.fps)
        whole = self.work / path.name
        video_join.join(whole, pieces, [self.time(index) for index in range(len(self))], last, film)
        move(whole, path, replace=self.overwrite)
