"""Writing films through PyAV: H.264, H.265, VP9 or FFV1, lossless if asked, exact times, true colour tags, sound."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

from data.files import temporary_path
from data.media import from_tensor
from data.video import FINE, FULL, MATRICES, STUDIO, VideoFile
from errors import InputError

# codec -> encoder for lossy 4:2:0 YUV, encoder for exact RGB of 8 bits and its pixel format
CODECS = {
    "h264": ("libx264", "libx264rgb", "rgb24"),
    "h265": ("libx265", "libx265", "gbrp"),
    "vp9": ("libvpx-vp9", "libvpx-vp9", "gbrp"),
    "ffv1": ("ffv1", "ffv1", "bgr0"),
}
COLOURS = {1: (1, 1), 9: (9, 14), 10: (9, 14)}  # matrix -> primaries and transfer of BT.709 and BT.2020; else BT.601
# x264's AVX-512 code for the rate control of macroblock trees reads memory that nobody has written: the same frames become
# other bytes in every run. One step down its results are those of all other machines.
SAME_BYTES = {"x264-params": "asm=avx2"} if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else {}
FINEST_TICK = 90_000  # ticks per second at least, so that in-between frames have their exact times


class VideoWriter:
    """A film, frame by frame; use it as a context manager: the file appears when the block ends well.

    Args:
        path: .mp4, .mov, .mkv, .avi or .webm.
        fps: frames per second; None takes those of `like` (or 25).
        like: the film this one is made from: its sound is copied; its colour matrix and range, pixel shape, depth and
            frame times are kept.
        codec: h264, h265, vp9 or ffv1; None chooses h264 (vp9 in .webm; ffv1 for lossless depths above 8 bits).
        crf: quality of the lossy codecs, lower is better.   lossless: RGB exactly as given.
        bits: 8, 10 (lossy) or 16 (lossless); None as `like`, else 8.
        sound: copy the sound of `like`; False for a piece of a film that gets its sound when it is joined.

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
        sound: bool = True,
    ) -> None:
        self.path, self.like, self.crf, self.lossless = Path(path), like, crf, lossless
        self._wants_sound = sound
        self.fps = Fraction(fps).limit_denominator(100_000) if fps else like.info.fps if like else Fraction(25)
        depth = bits or (like.info.bits if like else 8)
        self.bits = 8 if depth <= 8 else 16 if lossless else 10
        self.codec = codec or self._default_codec()
        if self.codec not in CODECS:
            raise InputError(f"video codec {self.codec!r}: expected one of {', '.join(CODECS)}")
        if lossless and self.bits > 8 and self.codec != "ffv1":
            raise InputError(
                f"{path}: {self.codec} keeps 8 bits without loss; for more choose codec ffv1 (in .mkv or .avi)"
            )
        self.lossless = lossless or self.codec == "ffv1"
        self.bits = 16 if self.lossless and self.bits > 8 else self.bits
        self.time_base = self._time_base()
        self._temporary = temporary_path(self.path)
        self._container: Any = None
        self._stream: Any = None
        self._sound: _Sound | None = None
        self._count, self._last = 0, -1

    def _default_codec(self) -> str:
        if self.path.suffix.lower() == ".webm":
            return "vp9"
        return "ffv1" if self.lossless and self.bits > 8 else "h264"

    def _time_base(self) -> Fraction:
        """Fine enough for the times of `like` and for frames in between; AVI knows frame numbers only."""
        if self.path.suffix.lower() == ".avi":
            return 1 / self.fps
        base = self.like.info.time_base if self.like else 1 / self.fps
        return base / max(-(-FINEST_TICK * base.numerator // base.denominator), 1)

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, frame: Tensor | np.ndarray, time: float | None = None) -> None:
        """Add one frame: a (3, H, W) tensor in [0, 1], or an (H, W, 3) uint8 or uint16 array.

        time: seconds from the first frame, rising; None: that of the n-th frame of `like` where the rates agree, else
            n / fps.
        """
        array = (
            from_tensor(frame, np.dtype(np.uint16 if self.bits > 8 else np.uint8))
            if isinstance(frame, Tensor)
            else frame
        )
        if self._container is None:
            self._begin(array.shape[:2])
        picture = self._picture(array)
        picture.pts = max(round(Fraction(self._time(time)) / self.time_base), self._last + 1)
        picture.time_base = self.time_base
        self._last = picture.pts
        if self._sound:
            self._sound.copy(float(picture.pts * self.time_base))
        self._guarded(lambda: self._container.mux(self._stream.encode(picture)))
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
            elif self._container is not None:
                with suppress(Exception):  # the first error is the one to tell
                    self._container.close()
        finally:
            with suppress(OSError):
                self._temporary.unlink()

    def _finish(self) -> None:
        if self._container is None:
            raise InputError(f"{self.path}: no frames to write")
        self._guarded(lambda: self._container.mux(self._stream.encode(None)))
        if self._sound:
            self._sound.copy(float("inf"))
        self._guarded(self._container.close)
        self._guarded(lambda: self._temporary.replace(self.path))

    # --- setting up ---

    def _begin(self, size: tuple[int, ...]) -> None:
        def begin() -> None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(str(self._temporary), "w")
            lossy, exact, _ = CODECS[self.codec]
            self._stream = self._container.add_stream(exact if self.lossless else lossy, rate=self.fps)
            self._configure(self._stream, size)
            if self.like and self._wants_sound:
                self._sound = _Sound.of(self.like, self._container)
            self._container.start_encoding()

        self._guarded(begin)

    def _configure(self, stream: Any, size: tuple[int, ...]) -> None:
        stream.height, stream.width = size
        stream.pix_fmt = self._pixel_format(size)
        stream.time_base = stream.codec_context.time_base = self.time_base
        if self.like and self.like.info.sample_aspect != 1:
            stream.codec_context.sample_aspect_ratio = self.like.info.sample_aspect
        options = {"crf": str(self.crf)} if not self.lossless else {}
        options |= SAME_BYTES if self.codec == "h264" else {}
        if self.codec == "h264":
            stream.codec_context.thread_count = 1  # by default as many as there are CPUs, and the bytes depend on it
        if self.codec == "h265":
            options["x265-params"] = "log-level=error:frame-threads=1" + (":lossless=1" if self.lossless else "")
        elif self.codec == "h264" and self.lossless:
            options["qp"] = "0"
        elif self.codec == "ffv1":
            options = {"level": "3", "slicecrc": "1"}  # checksums, for tools that heed them
        elif self.codec == "vp9":
            options |= {"lossless": "1"} if self.lossless else {"b": "0"}
        stream.options = options
        if not self.lossless:
            context = stream.codec_context
            context.colorspace = self._matrix(size)
            context.color_primaries, context.color_trc = COLOURS.get(self._matrix(size), (6, 6))
            context.color_range = FULL if self._full_range() else STUDIO

    def _pixel_format(self, size: tuple[int, ...]) -> str:
        if self.lossless:
            return CODECS[self.codec][2] if self.bits == 8 else "gbrp16le"
        return ("yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p") + ("10le" if self.bits > 8 else "")

    def _matrix(self, size: tuple[int, ...]) -> int:
        return self.like.info.matrix if self.like else 1 if size[0] > 576 else 6

    def _full_range(self) -> bool:
        return bool(self.like and self.like.info.full_range and self.like.info.is_yuv)

    def _picture(self, array: np.ndarray) -> Any:
        if array.shape[:2] != (self._stream.height, self._stream.width):
            raise InputError(f"{self.path}: frame {self._count} has another size than the first")
        array = np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array
        picture = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(array), format="rgb24" if array.dtype == np.uint8 else "rgb48le"
        )
        if self.lossless:
            return picture.reformat(format=self._stream.pix_fmt)
        picture.colorspace = self._matrix(array.shape)  # PyAV 17 passes BT.2020 on in this way only
        return picture.reformat(
            format=self._stream.pix_fmt,
            dst_colorspace=MATRICES[self._matrix(array.shape)],
            src_color_range=FULL,
            dst_color_range=FULL if self._full_range() else STUDIO,
            interpolation=FINE,
        )

    def _guarded(self, act: Any) -> None:
        try:
            act()
        except (OSError, ValueError) as error:  # FFmpeg's errors are both
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"{self.path}: cannot be written as {self.codec} ({reason}); choose another container (.mkv takes "
                "all), codec or folder"
            ) from error


class _Sound:
    """Packets of the source's first sound stream, copied unchanged between the pictures."""

    def __init__(self, container: Any, source: Any, offset: float) -> None:
        self._source, self._container, self._offset = source, container, offset
        self._input = source.streams.audio[0]
        self._output = container.add_stream_from_template(self._input)
        self._packets: Iterator[Any] = source.demux(self._input)
        self._waiting: Any = None

    @classmethod
    def of(cls, film: VideoFile, container: Any) -> _Sound | None:
        source = av.open(str(film.path))
        return cls(container, source, film.start) if source.streams.audio else None

    def copy(self, until: float) -> None:
        """Write all packets that begin before `until` seconds after the first picture."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                return
            if packet.dts is None:
                continue  # the mark at the end of the stream
            shift = round(self._offset / packet.time_base)
            if float((packet.pts - shift) * packet.time_base) > until:
                self._waiting = packet
                return
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = self._output
            self._container.mux(packet)
