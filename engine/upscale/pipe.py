"""Videos through pipes: `-` as input or output, as y4m or as raw RGB values.

The input is stored in a temporary file first, because frames are read more than once. The output is written frame by frame
in time order, without a work folder: an interrupted run starts again.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import torch

from data.clips import VideoClip
from data.media import from_tensor
from data.video import VideoFile, track_plan
from data.video.containers import TOLERANCE
from data.video.encoding import Encoding
from data.video.opening import url
from engine import distributed
from engine.distributed import say
from engine.upscale import targets
from engine.upscale.job import ClipJob
from engine.upscale.outputs import missing_frames
from engine.upscale.request import Request
from errors import InputError
from models.base import Network

# code points of ITU-T H.273 that a reader without tags takes for the usual colours of standard and high definition
USUAL_PRIMARIES, USUAL_TRANSFERS = (1, 2, 5, 6), (1, 2, 4, 5, 6, 13)
RAW = {"rgb24": np.uint8, "rgb48le": np.uint16}
FORMATS = ("y4m", *RAW)
DEPTHS = {"y4m": 10, "rgb24": 8, "rgb48le": 16}  # bits of a value, at most


def is_pipe(path: Path) -> bool:
    return str(path) == "-"


def check_preview(request: Request) -> None:
    """InputError for a preview of an output that has no name."""
    if is_pipe(request.out) and (request.preview is not None or request.preview_seconds is not None):
        raise InputError("--preview writes a file, whose name begins as that of the output: name it in place of `-`")


# --- input ------------------------------------------------------------------------------------------------------------


@contextmanager
def spooled(request: Request) -> Iterator[Request]:
    """Store standard input in a temporary file for the block; yields the request itself if it names a file."""
    if not is_pipe(request.source):
        yield request
        return
    if distributed.world() > 1 or request.resume:
        raise InputError("input from a pipe: one process only, and nothing to resume; store it in a file first")
    if sys.stdin is None:
        raise InputError("standard input is closed: expected a video, such as y4m (ffmpeg -i IN -f yuv4mpegpipe -)")
    with tempfile.TemporaryDirectory(prefix="upscale-") as folder:
        path = Path(folder) / ("stdin.y4m" if request.pipe_format == "y4m" else "stdin.nut")
        if request.pipe_format == "y4m":
            with path.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
                if not file.tell():
                    raise InputError(
                        "standard input is empty: expected a video, such as y4m (ffmpeg -i IN -f yuv4mpegpipe -)"
                    )
        else:
            _store_raw(sys.stdin.buffer, path, request)
        try:
            yield replace(request, source=path)
        except InputError as error:  # the temporary file is none of the user's
            raise InputError(str(error).replace(str(path), "standard input")) from None


def _store_raw(pipe: BinaryIO, path: Path, request: Request) -> None:
    """Write frames of raw RGB values to a video file."""
    if not request.input_size:
        raise InputError(f"raw {request.pipe_format} from a pipe has no size: give --input-size 640x360")
    width, height = (int(side) for side in request.input_size.lower().split("x"))
    rate = Fraction(request.input_fps or targets.DEFAULT_FPS).limit_denominator(1001)
    dtype = np.dtype(RAW[request.pipe_format]).newbyteorder("<")
    length = width * height * 3 * dtype.itemsize
    with av.open(url(path), "w", format="nut") as file:
        stream = file.add_stream("rawvideo", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, request.pipe_format
        for number in range(10**9):
            content = pipe.read(length)
            if not content and number:
                break
            if len(content) < length:
                raise InputError(
                    f"frame {number} from the pipe has {len(content)} bytes, expected {length} for {width}x{height} "
                    f"{request.pipe_format}"
                )
            array = np.frombuffer(content, dtype).reshape(height, width, 3)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format=request.pipe_format)
            picture.pts, picture.time_base = number, 1 / rate
            file.mux(stream.encode(picture))
        file.mux(stream.encode(None))


# --- output -----------------------------------------------------------------------------------------------------------


def take_stdout() -> None:
    """Reserve standard output for the frames and redirect all printing to standard error."""
    global _frames
    sys.stdout.flush()
    _frames = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)


_frames: BinaryIO | None = None


def write(job: ClipJob, network: Network, request: Request, device: torch.device) -> list[Path]:
    """Restore all frames of `job` and write them to standard output. Returns no paths, because no file is kept."""
    if distributed.world() > 1:
        raise InputError("output to a pipe: one process only")
    _check_times(job, request.pipe_format)
    base = targets.base_of(job.clip)
    if isinstance(base, VideoClip) and (left := _left_out(base.video, request.pipe_format)):
        say(f"left out (pipes carry pictures only): {', '.join(left)}")
    if _frames is None:
        take_stdout()
    assert _frames is not None
    send = _Y4m(_frames, job) if request.pipe_format == "y4m" else _Raw(_frames, RAW[request.pipe_format])
    for _, frame in missing_frames(job, job.pieces, network, request, device):
        assert frame is not None
        send(frame)
    _frames.flush()
    return []


def _left_out(video: VideoFile, form: str) -> list[str]:
    """Descriptions of the tracks and properties of a source that a pipe does not carry."""
    info, colour = video.info, video.info.colour
    left, bits = track_plan.names(video.path, info.stream), DEPTHS[form]
    left += [f"bits of each value after the first {bits} of {info.bits}"] if info.bits > bits else []
    if colour.primaries not in USUAL_PRIMARIES or colour.transfer not in USUAL_TRANSFERS:
        left.append(f"the colour tags (primaries {colour.primaries}, transfer {colour.transfer} of ITU-T H.273)")
    if info.light.mastering or info.light.content:
        left.append("the HDR mastering display and light level")
    return [*left, *info.light.dynamic]


def _check_times(job: ClipJob, form: str) -> None:
    """Raises InputError if frames of y4m, which has one rate, would not keep their times."""
    rate = job.timeline.fps
    late = next((k for k, time in enumerate(job.timeline.times) if abs(time - k / rate) > TOLERANCE), None)
    if late is None:
        return
    line = f"one constant frame rate, but frame {late} is shown at {job.timeline.times[late]:.4f} s, off the rate of {float(rate):.3f}"
    if form == "y4m":
        raise InputError(f"y4m keeps {line} frames per second: give a constant rate (--fps), or write a file")
    say(f"raw values have no times: the reader assumes {line} (--fps gives a constant rate)")


class _Raw:
    """(3, H, W) in [0, 1] -> RGB values, row by row."""

    def __init__(self, pipe: BinaryIO, dtype: Any) -> None:
        self._pipe, self._dtype = pipe, np.dtype(dtype)

    def __call__(self, frame: torch.Tensor) -> None:
        self._pipe.write(from_tensor(frame, self._dtype).tobytes())


class _Y4m:
    """(3, H, W) in [0, 1] -> frames of YUV4MPEG2: 4:2:0, 4:4:4 for odd sizes; 10 bits if the source has more than 8.

    The format does not name the matrix of the colours, so it is the one that readers take for the size.
    """

    def __init__(self, pipe: BinaryIO, job: ClipJob) -> None:
        base = targets.base_of(job.clip)
        bits = 10 if job.clip.bit_depth > 8 else 8
        self._pipe = pipe
        self._encoding = Encoding("h264", bits=bits)
        if isinstance(base, VideoClip):
            shape = targets.pixel_shape(base.video, job.size)
            self._encoding = replace(self._encoding.like(base.video), aspect=shape, matrix=None)
        self._format = self._encoding.pixel_format(job.size)
        chroma = "444" if "444" in self._format else "420"
        space = (
            f"{chroma}p10 XYSCSS={chroma}P10"
            if bits == 10
            else "444"
            if chroma == "444"
            else "420mpeg2 XYSCSS=420MPEG2"
        )
        rate, aspect = job.timeline.fps, self._encoding.aspect
        limits = "FULL" if self._encoding.full_range else "LIMITED"
        height, width = job.size
        pipe.write(
            f"YUV4MPEG2 W{width} H{height} F{rate.numerator}:{rate.denominator} Ip "
            f"A{aspect.numerator}:{aspect.denominator} C{space} XCOLORRANGE={limits}\n".encode()
        )

    def __call__(self, frame: torch.Tensor) -> None:
        array = from_tensor(frame, self._encoding.value_type)
        self._pipe.write(b"FRAME\n" + self._encoding.picture(array, self._format).to_ndarray().tobytes())
