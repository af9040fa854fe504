"""Encoder settings: codec, quality, values and colours, and settings that make the output reproducible."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
import torch

from data.video import hdr
from data.video.colour import FINE, FULL, MATRICES, STUDIO, UNKNOWN, Colour, usual_matrix
from data.video.containers import Container
from data.video.file import VideoFile
from data.video.hdr import Light
from errors import InputError

# codec -> encoder for lossy YUV, encoder for exact RGB of 8 bits and its pixel format
CODECS = {
    "h264": ("libx264", "libx264rgb", "rgb24"),
    "h265": ("libx265", "libx265", "gbrp"),
    "vp9": ("libvpx-vp9", "libvpx-vp9", "gbrp"),
    "ffv1": ("ffv1", "ffv1", "bgr0"),
}
PARAMS = {"h264": "x264-params", "h265": "x265-params"}  # options that merge our list of settings with the user's
# x264's AVX-512 code for the rate control of macroblock trees reads uninitialised memory, so the same frames give other bytes
# in every run. The next lower instruction set gives the same results as all other machines.
SAME_BYTES = "asm=avx2" if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else ""
X265_SAFE = 64  # pixels a side: with smaller frames x265's SIMD code writes out of bounds
X265_DELAY = 3  # frames after which x265 knows the decoding times
NO_TAGS, NO_LIGHT = Colour(), Light()


@dataclass(frozen=True)
class Encoding:
    """codec: h264, h265, vp9 or ffv1.   crf: quality of lossy codecs, lower is better.   bitrate: bits per second in place of
    crf.   lossless: RGB exactly as given.   bits: 8, 10 (lossy) or 16 (lossless).   pix_fmt: FFmpeg's pixel format; None: as
    bits and size ask for.   options: of the encoder, by FFmpeg's names.   b_frames: pictures may be stored out of order.

    colour, full_range, light, aspect: as in the source.   matrix: of the YUV values; None: as players take for the size.
    """

    codec: str
    crf: int = 16
    bitrate: int | None = None
    lossless: bool = False
    bits: int = 8
    pix_fmt: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    b_frames: bool = True
    colour: Colour = NO_TAGS
    matrix: int | None = None
    full_range: bool = False
    light: Light = NO_LIGHT
    aspect: Fraction = Fraction(1)

    def like(self, source: VideoFile | None) -> Encoding:
        """The same with the colours, HDR side data and pixel shape of `source`."""
        if source is None:
            return self
        info = source.info
        matrix = info.matrix if info.is_yuv else None
        if info.is_yuv and info.colour.matrix == UNKNOWN and info.matrix == usual_matrix(info.size[0]):
            matrix = -info.matrix  # unspecified, which is fine if the size implies the same matrix: see `matrix_for`
        return replace(
            self, colour=info.colour, matrix=matrix, full_range=info.full_range and info.is_yuv, light=info.light,
            aspect=info.sample_aspect,
        )  # fmt: skip

    def needs_display_size(self, container: Container) -> bool:
        """Whether the pixel shape is stored by `display_size`: in Matroska and WebM with codecs that do not store it."""
        return self.aspect != 1 and self.codec not in PARAMS and container.tick is not None

    @property
    def exact(self) -> bool:
        return self.lossless or self.codec == "ffv1"

    @property
    def encoder(self) -> str:
        lossy, exact, _ = CODECS[self.codec]
        return exact if self.exact else lossy

    @property
    def value_type(self) -> np.dtype:
        """Value type of the input frames: uint8, or uint16 for more than 8 bits."""
        return np.dtype(np.uint8 if self.depth <= 8 else np.uint16)

    @property
    def depth(self) -> int:
        """Bits per value of the encoded video."""
        if self.pix_fmt:
            return max(component.bits for component in _format(self.pix_fmt).components)
        return 8 if self.bits <= 8 else 16 if self.exact else 10

    def pixel_format(self, size: tuple[int, ...]) -> str:
        if self.pix_fmt:
            return self.pix_fmt
        if self.exact:
            return CODECS[self.codec][2] if self.depth == 8 else "gbrp16le"
        return ("yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p") + ("10le" if self.depth > 8 else "")

    def matrix_for(self, height: int) -> tuple[int, int]:
        """(matrix for the conversion, matrix for the tag) for frames of `height` lines."""
        usual = usual_matrix(height)
        if self.matrix is None:
            return usual, 1 if usual == 1 else 6
        if self.matrix < 0:
            return -self.matrix, UNKNOWN if -self.matrix == usual else -self.matrix
        return self.matrix, self.matrix

    # --- checks ---

    def check(self, size: tuple[int, int]) -> None:
        """InputError for options and pixel formats that the encoder does not support, or that do not fit `size`."""
        codec = av.Codec(self.encoder, "w")
        if self.pix_fmt:
            known = sorted(form.name for form in codec.video_formats or [])
            if self.pix_fmt not in known:
                raise InputError(f"--pix-fmt '{self.pix_fmt}': {self.codec} takes {', '.join(known)}")
            if _odd(_format(self.pix_fmt), size):
                raise InputError(
                    f"--pix-fmt '{self.pix_fmt}': frames of {size[1]}x{size[0]} are of odd size; use a 4:4:4 format"
                )
        context = av.CodecContext.create(self.encoder, "w")
        offered = context.supported_options
        names = {option.name for option in (*offered.generic, *offered.private)}
        for key, _ in self.options:
            if key not in names:
                raise InputError(
                    f"-e {key}: {self.encoder} has no such option (ffmpeg -h encoder={self.encoder} lists them)"
                )

    # --- setting up ---

    def configure(self, stream: Any, size: tuple[int, int], fps: Fraction) -> None:
        """Set up an encoder's stream with a time base of one frame."""
        context = stream.codec_context
        stream.height, stream.width = size
        stream.pix_fmt = self.pixel_format(size)
        stream.time_base = context.time_base = 1 / fps
        context.framerate = fps
        if self.aspect != 1:
            context.sample_aspect_ratio = self.aspect
        if self.codec == "h264":
            context.thread_count = 1  # default: the number of CPUs, which would affect the bytes
        if self.bitrate:
            context.bit_rate = self.bitrate
        if not self.b_frames and self.codec in ("h264", "h265"):
            context.max_b_frames = 0
        stream.options = self._options(size)
        context.color_primaries, context.color_trc = self.colour.primaries, self.colour.transfer
        if not self._is_rgb(stream.pix_fmt):
            context.colorspace = self.matrix_for(size[0])[1]
            context.color_range = FULL if self.full_range else STUDIO

    def _options(self, size: tuple[int, int]) -> dict[str, str]:
        options: dict[str, str] = {} if self.exact or self.bitrate else {"crf": str(self.crf)}
        params: list[str] = []
        if self.codec == "h264":
            params += [SAME_BYTES] if SAME_BYTES else []
            params += [f"{key}={value}" for key, value in hdr.x264_options(self.light).items()]
            options |= {"qp": "0"} if self.lossless else {}
        elif self.codec == "h265":
            params += ["log-level=error", "frame-threads=1", *(["lossless=1"] if self.lossless else [])]
            params += ["asm=0"] if min(size) < X265_SAFE else []
            params += [f"{key}={value}" for key, value in hdr.x265_options(self.light).items()]
        elif self.codec == "ffv1":
            options = {"level": "3", "slicecrc": "1"}  # checksums, for tools that heed them
        elif self.lossless:
            options["lossless"] = "1"
        elif not self.bitrate:
            options["b"] = "0"
        wanted = dict(self.options)
        key = PARAMS.get(self.codec)
        if key and (params or key in wanted):
            options[key] = ":".join([*params, *([wanted.pop(key)] if key in wanted else [])])
        return options | wanted

    def picture(self, array: np.ndarray, pix_fmt: str) -> Any:
        """Convert (H, W, 3) uint8 or uint16 RGB, or (H, W, 1) grey, to a frame for the encoder."""
        array = np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array
        frame = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(array), format="rgb24" if array.dtype == np.uint8 else "rgb48le"
        )
        if self._is_rgb(pix_fmt):
            picture = frame.reformat(format=pix_fmt)
        else:
            matrix, named = self.matrix_for(array.shape[0])
            frame.colorspace = matrix  # PyAV 17 passes BT.2020 on only in this way
            picture = frame.reformat(
                format=pix_fmt,
                dst_colorspace=MATRICES[matrix],
                src_color_range=FULL,
                dst_color_range=FULL if self.full_range else STUDIO,
                interpolation=FINE,
            )
            picture.colorspace, picture.color_range = named, FULL if self.full_range else STUDIO
        picture.color_primaries, picture.color_trc = self.colour.primaries, self.colour.transfer
        return picture

    @staticmethod
    def _is_rgb(pix_fmt: str) -> bool:
        return _format(pix_fmt).is_rgb


def last_packets(stream: Any, frames: int) -> list[Any]:
    """The packets that an encoder returns at the end of a stream of `frames` frames.

    In streams of one or two frames, which are shorter than its delay, x265's decoding times are uninitialised memory. Such a stream has
    no B-frames, so each picture is decoded when it is shown.
    """
    packets = list(stream.encode(None))
    for packet in packets if frames < X265_DELAY else ():
        packet.dts = packet.pts
    return packets


def _format(name: str) -> Any:
    try:
        return av.VideoFormat(name)
    except ValueError:
        raise InputError(f"--pix-fmt '{name}': FFmpeg has no such pixel format") from None


def _odd(form: Any, size: tuple[int, int]) -> bool:
    """Whether `size` is not a multiple of the format's chroma subsampling."""
    return bool(
        form.chroma_height(size[0]) * (2 if form.chroma_height(2) == 1 else 1) != size[0]
        or form.chroma_width(size[1]) * (2 if form.chroma_width(2) == 1 else 1) != size[1]
    )
