"""The output of one clip: its frames, the files that hold them, and checks before the work."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data import frame_writer
from data.clips import Clip
from data.details import Details
from data.files import holds
from data.frame_writer import check_free
from data.geo_tags import GeoTags
from data.naming import check_names
from data.validity import nearest
from engine.upscale import comparison, pictures
from engine.upscale.output_paths import check_no_foreign_place, check_no_stale_files, stale_files
from engine.upscale.timeline import Timeline
from engine.upscale.video_target import VideoTarget
from engine.upscale.work_folder import is_published, work_folder
from errors import InputError


@dataclass
class ClipOutput:
    """A clip to upscale and the files that are made of it.

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
        self.parts = [self.clip] if self.kind == "video" else self.clip.parts
        self.channels = 3 if self.kind == "video" else sum(part.channels for part in self.parts)
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

    def place(self, index: int) -> tuple[int, float]:
        """The key frame before an output frame, and the time after it (0: the key frame itself)."""
        return self.timeline.places[index]

    def name(self, index: int) -> str:
        """File name of a frame: the name in the source, or a number if frames are added."""
        return f"{index:08d}" if self.timeline.doubled else self.clip.frame_names[self.place(index)[0]]

    def image_name(self, index: int) -> str:
        """File name of a picture."""
        return f"{self.name(index)}{self.image_suffix}"

    def source(self, index: int) -> str:
        """Description of an output frame for messages."""
        key, step = self.place(index)
        where = f"clip '{self.clip.name}', frame '{self.clip.frame_names[key]}'"
        return f"{where} + {step:g}" if step else where

    @property
    def comparison_path(self) -> Path:
        """The video of the comparison."""
        return comparison.comparison_path(self.out)

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

    @cached_property
    def made(self) -> frozenset[str]:
        """Names of the files in an output folder."""
        if self.kind != "frames":
            return frozenset()
        images = {index: Path(self.image_name(index)) for index in range(len(self))}
        sides = [image.with_suffix(suffix).name for index, image in images.items() for suffix in self.side_files(index)]
        return frozenset([*(image.name for image in images.values()), *sides])

    def geo(self, index: int) -> GeoTags | None:
        """The georeference of the source, scaled to the output's pixel size."""
        found = self.clip.geo(self.place(index)[0])
        if found is None:
            return None
        height, width = self.clip.size
        return found.scaled(self.size[0] / height, self.size[1] / width)

    def details(self, index: int) -> Details:
        """Metadata of the source's frame, for the output's size."""
        return pictures.enlarged_details(self.clip, self.place(index)[0], self.size)

    def mask(self, index: int) -> np.ndarray | None:
        """(H, W) bool: the mask of the source's frame for TIFF, by nearest neighbour; None without one."""
        mask = None if self.suffix.lower() not in frame_writer.STACK_SUFFIXES else self.clip.mask(self.place(index)[0])
        if mask is None or self.alpha:
            return None
        rows, columns = (nearest(here, there, 0, there) for here, there in zip(self.clip.size, self.size, strict=True))
        return mask[rows][:, columns, 0]

    def side_files(self, index: int) -> dict[str, bytes]:
        """World file and reference system of an output picture, by suffix."""
        return pictures.side_files(self.clip, self.place(index)[0], self.geo(index), self.suffix)

    def identity(self) -> dict[str, Any]:
        """Settings that must match for finished frames to be reused."""
        timeline = repr((self.timeline.places, self.timeline.times, self.timeline.cuts))
        identity = {
            "source": self._source_identity(),
            "size": list(self.size),
            "timeline": hashlib.sha256(timeline.encode()).hexdigest(),
            "kind": self.kind,
            "compare": self.compare is not None,
            **self.settings,
        }
        for target in (self.target, self.compare):
            if target:
                identity |= {"encoding": repr(target.encoding), "fps": str(self.timeline.fps)}
                break
        if self.kind != "video":
            identity["image-format"] = self.image_suffix
        return identity

    def source_changed(self, before: Sequence[str | int]) -> bool:
        """Whether the source is not the one of an earlier time, whose identity is `before` (as in `identity`)."""
        try:
            return self._source_identity() != list(before)
        except InputError:
            return True

    def _source_identity(self) -> list[str | int]:
        """Changes whenever a frame of the source may have changed."""
        clip = self.clip
        ends: list[str | int] = [clip.identity(0), clip.identity(len(clip) - 1), len(clip)]
        if clip.file(0) is None:  # one file holds all frames
            return ends
        every = "\n".join(clip.identity(index) for index in range(len(clip)))
        return [*ends, hashlib.sha256(os.fsencode(every)).hexdigest()]

    @property
    def notes(self) -> list[str]:
        """Notes for the user on the written files."""
        notes = [f"'{self.target.path}': {note}" for note in self.target.notes(self.timeline)] if self.target else []
        if self.overwrite and self.kind in ("image", "stack", "scene"):
            notes += [
                f"'{path}' belongs to the earlier '{self.out.name}' and is deleted" for path in stale_files(self.out)
            ]
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
        check_names(self.out, sorted(self.made))
        if self.kind in ("frames", "image"):
            frame_writer.check_image_size(self.image_suffix, self.size)
            frame_writer.check_image_depth(self.image_suffix, self.dtype)

    def check_free(self) -> None:
        """Raises InputError if an existing file must not be replaced. Called before the work and again before the final rename."""
        if self.compare and not self.is_published(self.comparison_path):
            check_free(self.comparison_path, "video", self.overwrite)
        if self.is_published(self.out):
            return
        check_free(self.out, self.kind, self.overwrite, self.made)
        for path in self.image_side_files:
            check_free(path, "side file", self.overwrite)
        if self.kind in ("image", "stack", "scene"):
            check_no_foreign_place(self.out, self.placed)
            if not self.overwrite:
                check_no_stale_files(self.out, self.gdal_sidecar)

    def is_published(self, path: Path) -> bool:
        """Whether an interrupted run has put its result at this path."""
        return is_published(self.work, path)

    @property
    def placed(self) -> bool:
        """Whether the result has a transform to the ground, in the file or in its world file."""
        geo = self.geo(0)
        return geo is not None and geo.affine is not None

    @property
    def gdal_sidecar(self) -> str | None:
        """The content of the `.aux.xml` that belongs to the result."""
        return None
