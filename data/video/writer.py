"""Write a video frame by frame: H.264, H.265, VP9 or FFV1, optionally lossless, with exact times, colour tags and sound."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from torch import Tensor

from data.files import temporary_path
from data.media import from_tensor
from data.video import metadata, track_plan
from data.video.containers import TICKS, check_codec, check_size, container_of, default_codec
from data.video.encoding import Encoding, last_packets
from data.video.file import VideoFile
from data.video.metadata import Placement
from data.video.opening import open_input, url
from data.video.tracks import Tracks
from errors import InputError


class VideoWriter:
    """Writes a video frame by frame. Use it as a context manager: the file is created when the block ends without an error.

    Args:
        path: .mp4, .mov, .mkv, .avi or .webm.
        fps: frames per second; None takes those of `like` (or 25).
        like: the source video: its tracks and metadata are copied; its colours, pixel shape, depth and frame
            times are kept.
        codec: h264, h265, vp9 or ffv1; None chooses as `containers.default_codec`.
        crf: quality of the lossy codecs, lower is better.   lossless: RGB exactly as given.
        bits: 8, 10 (lossy) or 16 (lossless); None as `like`, else 8.

    Frames of odd size are written without chroma subsampling (4:2:0 has even sizes only).
    """

    def __init__(
        self,
        path: str | Path,
        fps: float | Fraction | None = None,
        like: VideoFile | None = None,
        codec: str | None = None,
        crf: int = 16,
        lossless: bool = False,
        bits: int | None = None,
    ) -> None:
        self.path, self.like = Path(path), like
        self.container = container_of(path)
        self.fps = Fraction(fps).limit_denominator(100_000) if fps else like.info.fps if like else Fraction(25)
        depth = bits or (like.info.bits if like else 8)
        codec = codec or default_codec(path, depth, lossless)
        check_codec(path, codec, depth, lossless)
        constant = self.container.constant
        self.encoding = Encoding(codec, crf, lossless=lossless, bits=depth, b_frames=not constant).like(like)
        self.time_base = self._time_base()
        self._temporary = temporary_path(self.path)
        self._file: Any = None
        self._stream: Any = None
        self._tracks: Tracks | None = None
        self._count, self._last = 0, -1

    def _time_base(self) -> Fraction:
        """A time base that is fine enough for the times of `like` and for intermediate frames; AVI stores only frame numbers."""
        if self.container.constant:
            return 1 / self.fps
        base = self.like.info.time_base if self.like else 1 / self.fps
        finer = base / max(-(-TICKS * base.numerator // base.denominator), 1)
        return finer if finer.denominator < 2**31 else Fraction(1, TICKS)

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, frame: Tensor | np.ndarray, time: float | None = None) -> None:
        """Add one frame: a (3, H, W) tensor in [0, 1], or an (H, W, 3) uint8 or uint16 array.

        time: seconds from the first frame, rising; None: that of the n-th frame of `like` where the rates agree, else
            n / fps.
        """
        array = from_tensor(frame, self.encoding.value_type) if isinstance(frame, Tensor) else frame
        if self._file is None:
            self._begin(array.shape[:2])
        if array.shape[:2] != (self._stream.height, self._stream.width):
            raise InputError(f"{self.path}: frame {self._count} differs in size from the first")
        picture = self.encoding.picture(array, self._stream.pix_fmt)
        picture.pts = max(round(Fraction(self._time(time)) / self.time_base), self._last + 1)
        picture.time_base = self.time_base
        self._last = picture.pts
        if self._tracks:
            self._tracks.copy(float(picture.pts * self.time_base))
        self._guarded(lambda: self._file.mux(self._stream.encode(picture)))
        self._count += 1

    def _time(self, time: float | None) -> float | Fraction:
        if time is not None:
            return time
        if self.like and self.fps == self.like.info.fps and self._count < len(self.like):
            return self.like.times[self._count]
        return self._count / self.fps

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                self._finish()
            elif self._file is not None:
                with suppress(Exception):  # report the first error
                    self._file.close()
        finally:
            if self._tracks:
                self._tracks.close()
            with suppress(OSError):
                self._temporary.unlink()

    def _finish(self) -> None:
        if self._file is None:
            raise InputError(f"{self.path}: no frames to write")
        self._guarded(lambda: self._file.mux(last_packets(self._stream, self._count)))
        if self._tracks:
            self._tracks.copy(float("inf"))
        self._guarded(self._file.close)
        self._guarded(lambda: self._temporary.replace(self.path))

    def _begin(self, size: tuple[int, ...]) -> None:
        def begin() -> None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = av.open(url(self._temporary), "w", format=self.container.format)
            self._stream = self._file.add_stream(self.encoding.encoder, rate=self.fps)
            self.encoding.configure(self._stream, (size[0], size[1]), self.fps)
            self._stream.time_base = self._stream.codec_context.time_base = self.time_base
            if self.encoding.codec == "h265" and self.container.format in ("mp4", "mov"):
                self._stream.codec_context.codec_tag = "hvc1"
            if self.like:
                self._carry(self.like)
            self._file.start_encoding()

        check_size(self.path, self.encoding.codec, (size[0], size[1]))
        self._guarded(begin)

    def _carry(self, like: VideoFile) -> None:
        plan = track_plan.plan(like.path, like.info.stream, self.path, like.start)
        self._tracks = Tracks(like.path, plan, self._file, self.path, Placement(like.table.stretches))
        with open_input(like.path) as source:
            self._file.metadata.update(metadata.file_tags(source.metadata, self.container.format))

    def _guarded(self, act: Any) -> None:
        try:
            act()
        except InputError:
            raise
        except (OSError, ValueError) as error:  # FFmpeg's errors are both
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"{self.path}: cannot be written as {self.encoding.codec} ({reason}); choose another container (.mkv takes "
                "most), codec or folder"
            ) from error
