"""Convert the options of a request to times, sizes and video files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cli
from data.clips import Clip, SubClip, VideoClip, WebPClip
from data.clips.derived import Derived
from data.video import VideoFile, join, track_plan
from data.video.colour import Colour
from data.video.containers import check_codec, container_of, default_codec
from data.video.encoding import Encoding
from engine.upscale import comparison, pictures
from engine.upscale.request import Request
from engine.upscale.timeline import Timeline, at_rate, by_steps
from engine.upscale.video_target import VideoTarget
from errors import InputError
from models.base import DEFAULT_SCALE, LARGEST_SCALE, Network

DEFAULT_FPS = 25  # of folders and stacks, which have no frame rate
CONSTANT = 0.02  # fraction of a frame by which times may deviate from a constant rate


def base_of(clip: Clip) -> Clip:
    """The clip that reads the files, without wrappers that select parts of it."""
    return base_of(clip.clip) if isinstance(clip, Derived) else clip


# --- times ------------------------------------------------------------------------------------------------------------


def source_fps(clip: Clip, request: Request) -> Fraction:
    """Frames per second of the input, from the options or the file."""
    base = base_of(clip)
    if request.input_fps:
        return Fraction(request.input_fps).limit_denominator(1001)
    if isinstance(base, VideoClip):
        return base.video.info.fps
    return Fraction(clip.fps or DEFAULT_FPS).limit_denominator(1001)


def key_times(clip: Clip, request: Request) -> tuple[list[float], float]:
    """Presentation time of each frame in seconds from the first, and the duration of the last frame."""
    fps = source_fps(clip, request)
    times = list(clip.times) if clip.fps else [float(k / fps) for k in range(len(clip))]
    base = base_of(clip)
    last = times[-1] - times[-2] if len(times) > 1 else float(1 / fps)
    if isinstance(base, VideoClip | WebPClip):
        following = clip.indices[-1] + 1 if isinstance(clip, SubClip) else len(base)
        last = base.times[following] - times[-1] if following < len(base) else base.last_shown or last
    return [time - times[0] for time in times], last


def timeline(clip: Clip, request: Request, cuts: Sequence[int] = ()) -> Timeline:
    """The output frames for `--times`, `--fps` or neither."""
    times, last = key_times(clip, request)
    fps = source_fps(clip, request)
    if request.times:
        if list(request.times) != sorted(set(request.times)) or not all(0 < time < 1 for time in request.times):
            raise InputError("--times: expected ascending numbers between 0 and 1, such as 0.25,0.5,0.75")
        return by_steps(times, request.times, last, fps, cuts)
    if not request.fps:
        return by_steps(times, (), last, fps, cuts)
    try:
        multiple = request.fps.startswith("x")
        rate = Fraction(request.fps[1:]) * fps if multiple else cli.frame_rate(request.fps)
        factor = rate / fps
    except (ValueError, ZeroDivisionError):
        raise InputError(f"--fps '{request.fps}': expected a multiple such as x2, or frames per second") from None
    if rate <= 0:
        raise InputError(f"--fps '{request.fps}': expected a number above 0")
    integer = round(factor)
    if integer >= 1 and abs(factor - integer) <= 1e-3 and (multiple or is_constant(times, fps)):
        return by_steps(times, [k / integer for k in range(1, integer)], last, fps, cuts)
    return at_rate(times, rate, last, cuts)


def is_constant(times: Sequence[float], fps: Fraction) -> bool:
    """Whether frames follow each other at the same rate."""
    return all(abs(time * float(fps) - k) < CONSTANT + k * 1e-4 for k, time in enumerate(times))


def cut_to_range(clip: Clip, request: Request) -> Clip:
    """The frames that begin from `--from` to before `--to`, seconds from the first frame."""
    begin, end = request.begin or 0.0, request.end
    if not begin and end is None:
        return clip
    fps = source_fps(clip, request)
    times = [time - clip.times[0] for time in clip.times] if clip.fps else [float(k / fps) for k in range(len(clip))]
    wanted = [k for k, time in enumerate(times) if time >= begin - 1e-6 and (end is None or time < end - 1e-6)]
    if not wanted:
        part = f"after --from {begin:g} s" if end is None else f"between --from {begin:g} s and --to {end:g} s"
        raise InputError(f"clip '{clip.name}': no frame begins {part}; the last one begins at {times[-1]:.2f} s")
    return SubClip(clip, wanted)


def preview_range(clip: Clip, out: Path, request: Request) -> Request:
    """The request for `--preview 5s`: that many seconds, from `--from` or around the middle, into OUT_preview."""
    seconds = request.preview_seconds
    if seconds is None:
        return request
    times, last = key_times(clip, request)
    begin = request.begin if request.begin is not None else max((times[-1] + last - seconds) / 2, 0.0)
    return replace(request, begin=begin, end=begin + seconds, out=out.with_name(f"{out.stem}_preview{out.suffix}"))


# --- sizes ------------------------------------------------------------------------------------------------------------


def requested_size(size: str | None, scale: float | None, lr: tuple[int, int]) -> tuple[int, int] | None:
    """(H, W) for `--size` or `--scale` with frames of `lr`; None if neither is given."""
    height, width = lr
    if size is None:
        return None if scale is None else (round(scale * height), round(scale * width))
    match = re.fullmatch(r"(\d*)[xX](\d*)", size)
    if not match or not (match[1] or match[2]) or "0" in (match[1], match[2]):
        raise InputError(f"--size '{size}': expected WIDTHxHEIGHT such as 1920x1080, or one of them (1920x, x1080)")
    out_width = int(match[1]) if match[1] else max(round(int(match[2]) * width / height), 1)
    out_height = int(match[2]) if match[2] else max(round(int(match[1]) * height / width), 1)
    return out_height, out_width


def needed_scale(request: Request, lr: tuple[int, int] | None) -> float | None:
    """The scale that `--scale` or `--size` asks for; for a size of another shape that of the side that grows most."""
    if request.size is None or lr is None:
        return request.scale
    size = requested_size(request.size, None, lr)
    return max(size[0] / lr[0], size[1] / lr[1]) if size else None


def sizes(network: Network, source: Path, clip: Clip, request: Request) -> tuple[tuple[int, int], tuple[int, int]]:
    """(H, W) of the output and of the network's output. Raises InputError for sizes that the network cannot produce."""
    lr = clip.size
    wanted = requested_size(request.size, request.scale, lr)
    scale = DEFAULT_SCALE if request.scale is None else request.scale
    if wanted is not None and min(wanted) < 1:
        raise InputError(f"scale {scale:g} is too small for {lr[1]}x{lr[0]} pixels: use a larger one")
    made = network.output_size(lr, wanted if network.space_time else None)
    wanted = made if wanted is None or network.space_time else wanted
    if max(wanted[0] / lr[0], wanted[1] / lr[1]) > LARGEST_SCALE:
        raise InputError(
            f"{wanted[1]}x{wanted[0]} is more than {LARGEST_SCALE} times {lr[1]}x{lr[0]}: use a smaller size"
        )
    if request.weight and max(wanted[0] / made[0], wanted[1] / made[1]) > 1:
        requested = f"{max(wanted[0] / lr[0], wanted[1] / lr[1]):.4g}" if request.size else f"{scale:g}"
        raise InputError(
            f"'{source}' is for scale {network.config.scale}, but {requested} was requested: use --scale {network.config.scale} or "
            "less, or other weights (STNO supports any scale)"
        )
    return wanted, made


def is_same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes (H, W) have the same aspect ratio within 2 %."""
    return abs(other[1] * size[0] / (other[0] * size[1]) - 1) < 0.02


def pixel_shape(video: VideoFile, size: tuple[int, int]) -> Fraction:
    """Width over height of the pixels of an output of `size` = (H, W).

    Square pixels stay square. Others change so that a size of another shape does not change the shape on the screen.
    """
    (height, width), aspect = video.info.size, video.info.sample_aspect
    if aspect == 1 or is_same_shape(video.info.size, size):
        return aspect
    exact = aspect * Fraction(width * size[0], height * size[1])
    return Fraction(1) if abs(exact - 1) < 0.01 else exact.limit_denominator(255)


def shape_note(clip: Clip, size: tuple[int, int]) -> str | None:
    """A note for the user if `--size` changes the aspect ratio."""
    (height, width), (out_height, out_width) = clip.size, size
    if is_same_shape(clip.size, size):
        return None
    base = base_of(clip)
    if isinstance(base, VideoClip) and base.video.info.sample_aspect != 1:
        before, after = base.video.info.sample_aspect, pixel_shape(base.video, size)
        return (
            f"clip '{clip.name}': pixels of {before.numerator}:{before.denominator} become {after.numerator}:{after.denominator}, "
            "so that the video is shown in the same shape"
        )
    return (
        f"clip '{clip.name}': {width}x{height} is stretched to {out_width}x{out_height}, another shape; --size {out_width}x "
        f"or x{out_height} keeps it"
    )


# --- videos -----------------------------------------------------------------------------------------------------------


def video_target(clip: Clip, out: Path, request: Request, size: tuple[int, int], compare: bool = False) -> VideoTarget:
    """The video to write for a clip in `size` = (H, W), or its comparison video."""
    base = base_of(clip)
    video = base.video if isinstance(base, VideoClip) else None
    if compare:
        path = comparison.comparison_path(out)
        encoding = Encoding("h264", request.crf)
    else:
        path = out
        depth = video.info.bits if video else min(clip.bit_depth, 16)
        if request.pix_fmt:
            depth = Encoding("h264", pix_fmt=request.pix_fmt).depth
        codec = request.codec or default_codec(out, depth, request.lossless)
        check_codec(out, codec, depth, request.lossless)
        encoding = Encoding(
            codec,
            request.crf,
            request.bitrate,
            request.lossless,
            depth,
            request.pix_fmt,
            request.encoder_options,
            b_frames=not container_of(out).constant,
        )
    if not isinstance(base, VideoClip) or video is None:
        colour = Colour() if compare else pictures.colour_tags(clip)
        matrix = {9: 9, 12: 1}.get(colour.primaries)  # BT.2020's own, BT.709's for P3; else as the size implies
        return VideoTarget(path, replace(encoding, colour=colour, matrix=matrix))
    plan = track_plan.plan(video.path, video.info.stream, path, video.start, sound=not base.retimed)
    begin, end = _window(clip, base)
    encoding = replace(encoding.like(video), aspect=pixel_shape(video, size))
    return VideoTarget(path, encoding, join.Source(video, plan, begin, end))


def _window(clip: Clip, base: VideoClip) -> tuple[float, float | None]:
    """Begin and end of a part of the source, in seconds from its first frame; end None: to the end of the source."""
    if not isinstance(clip, SubClip):
        return 0.0, None
    following = clip.indices[-1] + 1
    times = base.video.times
    return times[clip.indices[0]], times[following] if following < len(times) else None
