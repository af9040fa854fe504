"""Properties of a video stream."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from data.video.colour import Colour
from data.video.hdr import Light


@dataclass(frozen=True)
class VideoInfo:
    """Properties of the stream, for the upright frames that `VideoFile` returns.

    size: (H, W).   bits: per value.   channels: 1 or 3.   fps: mean rate.   matrix: number of the YUV matrix to decode
    with.   colour: tags as stored.   light: HDR side data.   sample_aspect: width of a pixel over its height.
    time_base: seconds per unit of time in the file.   stream: index of the video stream.   timecode: of the first frame.
    """

    size: tuple[int, int]
    bits: int
    channels: int
    fps: Fraction
    matrix: int
    full_range: bool
    is_yuv: bool
    colour: Colour
    light: Light
    sample_aspect: Fraction
    time_base: Fraction
    codec: str
    container: str
    stream: int
    timecode: str | None
