"""The frames of a video file as a clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.clips.base import Clip
from data.clips.stored import file_identity
from data.video import VideoFile


class VideoClip(Clip):
    """The frames of a video. Names are frame numbers, times are exact, colours and rotation follow the file's tags.

    fps: frames per second, in place of the file's times.   quick, strict, deinterlace: as in `data.video.VideoFile`.
    retimed: whether `fps` changes the speed, so that the sound no longer fits.
    """

    def __init__(
        self,
        path: str | Path,
        name: str | None = None,
        fps: float | None = None,
        quick: bool = False,
        strict: bool = False,
        deinterlace: bool = True,
    ) -> None:
        self.video = VideoFile(path, quick, strict, deinterlace)
        self.name = name or Path(path).stem
        own = float(self.video.info.fps)
        self.fps, self.retimed = fps or own, bool(fps) and abs((fps or own) / own - 1) > 1e-4
        self.frame_names = [f"{index:08d}" for index in range(len(self.video))]
        self.times = [index / self.fps for index in range(len(self.video))] if fps else self.video.times

    @property
    def last_shown(self) -> float | None:
        """Duration of the last frame in seconds; None if it is unknown or `fps` changes the speed."""
        return None if self.retimed else self.video.last_shown

    @property
    def size(self) -> tuple[int, int]:
        return self.video.info.size

    @property
    def bit_depth(self) -> int:
        return self.video.info.bits

    @property
    def channels(self) -> int:
        return self.video.info.channels

    def array(self, index: int) -> np.ndarray:
        return self.video.array(self.check_index(index))

    def source(self, index: int) -> str:
        return f"{self.video.path} frame {index}"

    def identity(self, index: int) -> str:
        return f"{file_identity(self.video.path)}|{self.video.deinterlace}|{index}"
