"""Lossy sources for training: compress low-resolution clips as cameras, downlinks and web sites do. The targets stay clean.

    clip = CompressedClip(clip, Compression(share=0.8), seed=0)

The degradation is drawn once per clip, seeded by its name: blur, noise and sharpening, then JPEG for every frame or one
H.264 or HEVC stream with chroma at half resolution.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import av
import cv2
import numpy as np

from data.clips import Clip
from data.clips.derived import Derived
from data.media import colours
from data.video.encoding import SAME_BYTES, last_packets
from errors import InputError
from settings import Between, convert_fields

Share = Annotated[float, Between(0, 1)]
Quality = Annotated[float, Between(1, 100)]
RateFactor = Annotated[float, Between(0, 51)]
ENCODERS = {
    "h264": ("libx264", {"preset": "medium"} | ({"x264-params": SAME_BYTES} if SAME_BYTES else {})),
    "hevc": ("libx265", {"preset": "fast", "x265-params": "log-level=none:pools=none:frame-threads=1"}),
}
BLOCK = 16  # side of a block of subsampled chroma: the largest offset of the block grid

LEAST = 64  # minimum frame side: libx265 writes out of bounds on frames smaller than its largest block


@dataclass(frozen=True)
class Compression:
    """Settings of the compression. The fields are the keys of `data.*.compression` in a config.

    Blur, noise and sharpening are drawn from 0 up in half of the degraded clips and left out in the other half. Random draws
    depend only on (seed, clip name).
    """

    share: Share = 0.0  # share of the clips that are degraded; the others stay clean
    video: Share = 0.5  # share of the degraded clips that become a video stream; the others become JPEG files
    jpeg: tuple[Quality, Quality] = (30, 95)  # lowest and highest quality; one is drawn per clip
    crf: tuple[RateFactor, RateFactor] = (15, 35)  # the same for the rate factor of the stream
    codecs: tuple[Literal["h264", "hevc"], ...] = ("h264", "hevc")  # one is drawn per clip
    blur: Annotated[float, Between(0, 100)] = 0.0  # largest standard deviation of a Gaussian, in LR pixels
    noise: Annotated[float, Between(0, 255)] = 0.0  # largest standard deviation, in 8-bit grey levels
    sharpen: Annotated[float, Between(0, 100)] = 0.0  # largest weight of an unsharp mask of deviation 1
    shift: bool = True  # move the block grid by a random offset; JPEG: in every frame, as in frames aligned afterwards
    seed: Annotated[int, Between(0, 2**32 - 1)] = 0

    def __post_init__(self) -> None:
        def check(good: bool, key: str, expected: str) -> None:
            if not good:
                raise InputError(f"compression.{key} is {getattr(self, key)!r}: expected {expected}")

        convert_fields(self, "compression.")
        check(self.jpeg[0] <= self.jpeg[1], "jpeg", "[lowest, highest] quality")
        check(self.crf[0] <= self.crf[1], "crf", "[lowest, highest]")
        check(bool(self.codecs), "codecs", f"some of {', '.join(ENCODERS)}")


class CompressedClip(Derived):
    """An 8-bit clip after `compression`. The first access compresses the clip and keeps it in memory, so clips should be short.

    Grey clips are compressed as RGB with equal channels. Raises InputError for other depths.
    """

    def __init__(self, clip: Clip, compression: Compression) -> None:
        super().__init__(clip)
        self.compression = compression
        if clip.bit_depth != 8:
            raise InputError(f"clip {clip.name}: compression is for 8 bits, not {clip.bit_depth}")

    @property
    def channels(self) -> int:
        return 3

    def array(self, index: int) -> np.ndarray:
        return self._frames[self.check_index(index)]

    @property
    def computed_together(self) -> bool:
        return True

    def identity(self, index: int) -> str:
        return f"{self.clip.identity(index)}|{self.compression}|{self.name}"

    @cached_property
    def _frames(self) -> np.ndarray:
        frames = np.stack([colours(self.clip.array(index)) for index in range(len(self.clip))])
        if frames.shape[-1] == 1:
            frames = np.repeat(frames, 3, axis=-1)
        return compress(frames, self.compression, self.name)


def compress(frames: np.ndarray, settings: Compression, name: str) -> np.ndarray:
    """Degrade frames (T, H, W, 3) uint8 of the clip `name` by `settings`; shape and type do not change."""
    random = np.random.default_rng([settings.seed, zlib.crc32(name.encode())])
    if random.random() >= settings.share:
        return frames
    if random.random() < 0.5:
        frames = _camera(frames, settings, random)
    if random.random() < settings.video:
        codec = settings.codecs[int(random.integers(len(settings.codecs)))]
        return _shifted(
            frames, lambda f: through_codec(f, codec, random.uniform(*settings.crf)), settings.shift, random
        )
    quality = round(random.uniform(*settings.jpeg))
    done = [_shifted(frame[None], lambda f: through_jpeg(f, quality), settings.shift, random) for frame in frames]
    return np.concatenate(done)


def _camera(frames: np.ndarray, settings: Compression, random: np.random.Generator) -> np.ndarray:
    """Apply blur, noise and sharpening, each with a strength drawn between 0 and its setting."""
    blur, noise, sharpen = (random.uniform(0, most) for most in (settings.blur, settings.noise, settings.sharpen))
    result = []
    for frame in frames.astype(np.float32):
        if blur > 0.1:  # narrower kernels are sampled as one tap
            frame = cv2.GaussianBlur(frame, (0, 0), blur, borderType=cv2.BORDER_REFLECT_101)
        frame = frame + np.float32(noise) * random.standard_normal(frame.shape, np.float32)
        smooth = cv2.GaussianBlur(frame, (0, 0), 1.0, borderType=cv2.BORDER_REFLECT_101)
        result.append(frame + np.float32(sharpen) * (frame - smooth))
    return np.clip(np.rint(np.stack(result)), 0, 255).astype(np.uint8)


def _shifted(frames: np.ndarray, code: Any, shift: bool, random: np.random.Generator) -> np.ndarray:
    """Apply `code` to frames padded by edge repetition, so that the block grid has any offset and sides are multiples of a block."""
    top, left = (int(n) for n in random.integers(0, BLOCK, 2)) if shift else (0, 0)
    height, width = frames.shape[1:3]
    padding = ((0, 0), (top, -(top + height) % BLOCK), (left, -(left + width) % BLOCK), (0, 0))
    return code(np.pad(frames, padding, mode="edge"))[:, top : top + height, left : left + width]


def through_jpeg(frames: np.ndarray, quality: int) -> np.ndarray:
    """Compress each of the frames (T, H, W, 3) uint8 as JPEG with chroma at half resolution, and decode it."""
    result = []
    for frame in frames:
        _, packed = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        result.append(np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))[..., ::-1])
    return np.stack(result)


def through_codec(frames: np.ndarray, codec: str, crf: float) -> np.ndarray:
    """Encode frames (T, H, W, 3) uint8 of even sides as a 4:2:0 stream of `codec` (h264, hevc), and decode them."""
    encoder, options = ENCODERS[codec]
    height, width = frames.shape[1:3]
    frames = np.pad(frames, ((0, 0), (0, max(LEAST - height, 0)), (0, max(LEAST - width, 0)), (0, 0)), mode="edge")
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream: Any = container.add_stream(encoder, rate=25, options=options | {"crf": f"{crf:.1f}", "threads": "1"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(last_packets(stream, len(frames)))
    file.seek(0)
    with av.open(file, "r") as written:
        decoded = [frame.to_ndarray(format="rgb24") for frame in written.decode(video=0)]
    if len(decoded) != len(frames):
        raise InputError(f"{encoder} gave {len(decoded)} of {len(frames)} frames back")
    return np.stack(decoded)[:, :height, :width]
