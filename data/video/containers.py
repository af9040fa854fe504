"""Codecs, tracks and frame times that each container supports, to reject unsupported output before the work begins.

The lists follow the support in players, which is narrower than that of FFmpeg: PCM in MP4 and FLAC in AVI are converted,
although some players read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import av

from errors import InputError

PCM = ("pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_u8")
TEXT = frozenset(("subrip", "srt", "ass", "ssa", "webvtt", "mov_text", "text"))
TICKS = 90_000  # per second, at least
FINEST = 10_000_000  # ticks per second, at most
TOLERANCE = 0.001  # seconds: tolerance of frame times


@dataclass(frozen=True)
class Container:
    """Properties of a container.

    format: FFmpeg's muxer.   codecs: of the video; the first is the default, `deep` that for more than 8 bits.
    sound: codecs that are copied.   encoder: encodes all other sound; `exact` is used instead for sound that is stored
    without loss.   subtitles: codecs that are copied.   text: codec that other text subtitles are converted to.
    tick: the fixed time base, in seconds; None: any.   constant: one frame rate only.   covers: codecs of cover pictures.
    flags: dispositions of tracks that are stored.
    """

    format: str
    codecs: tuple[str, ...]
    deep: str
    sound: frozenset[str]
    encoder: str
    exact: str | None
    subtitles: frozenset[str]
    text: str | None
    chapters: bool = True
    attachments: bool = False
    tick: Fraction | None = None
    constant: bool = False
    covers: tuple[str, ...] = ()
    flags: tuple[str, ...] = ("default",)


IMPAIRED = ("hearing_impaired", "visual_impaired")
MATROSKA_FLAGS = ("default", "forced", "original", "dub", "comment", *IMPAIRED)
ISO_SOUND = ("aac", "mp3", "ac3", "eac3", "alac")
MATROSKA_SOUND = (*ISO_SOUND, *PCM, "mp2", "flac", "opus", "vorbis", "dts", "truehd", "wavpack", "pcm_s16be")
CONTAINERS = {
    ".mp4": Container(
        "mp4", ("h264", "h265", "vp9", "ffv1"), "h265", frozenset((*ISO_SOUND, "mp2", "flac", "opus", "dts")), "aac", None,
        frozenset(("mov_text",)), "mov_text", covers=("mjpeg", "png", "bmp"),
        flags=("default", "forced", "dub", "comment", *IMPAIRED),
    ),
    ".mov": Container(
        "mov", ("h264", "h265"), "h265", frozenset((*ISO_SOUND, *PCM, "pcm_s16be", "pcm_s24be")), "aac",
        "pcm_s24le", frozenset(("mov_text",)), "mov_text",
    ),
    ".mkv": Container(
        "matroska", ("h264", "h265", "vp9", "ffv1"), "h265", frozenset(MATROSKA_SOUND), "aac", "flac",
        frozenset(("subrip", "srt", "ass", "ssa", "webvtt", "hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle")), "subrip",
        attachments=True, tick=Fraction(1, 1000), covers=("mjpeg", "png", "bmp", "gif"), flags=MATROSKA_FLAGS,
    ),
    ".webm": Container(
        "webm", ("vp9",), "vp9", frozenset(("opus", "vorbis")), "libopus", None, frozenset(("webvtt",)), "webvtt",
        tick=Fraction(1, 1000), flags=("default", "forced"),
    ),
    ".avi": Container(
        "avi", ("h264", "vp9", "ffv1"), "h264", frozenset(("mp3", "mp2", "ac3", "pcm_s16le", "pcm_u8", "pcm_s24le")),
        "libmp3lame", "pcm_s16le", frozenset(), None, chapters=False, constant=True,
    ),
}  # fmt: skip
OUTPUT_SUFFIXES = tuple(CONTAINERS)
EXACT = ("matroska", "avi")  # in which players expect FFV1
LIMITS = {"h264": 16_384, "h265": 16_384, "vp9": 65_535, "ffv1": 65_535}  # pixels a side, of the encoders


def container_of(path: str | Path) -> Container:
    """The container for the suffix of `path`. InputError for a suffix that cannot be written."""
    suffix = Path(path).suffix.lower()
    if suffix not in CONTAINERS:
        raise InputError(f"'{path}': videos are written as {', '.join(OUTPUT_SUFFIXES)}")
    return CONTAINERS[suffix]


def default_codec(path: str | Path, bits: int, lossless: bool) -> str:
    """The default codec of a file."""
    container = container_of(path)
    if bits > 8 and container.deep == "vp9" and not vp9_is_deep():
        raise InputError(
            f"'{path}': {Path(path).suffix} holds 8 bits here, the source has {bits}: write .mkv or .mp4, or use --pix-fmt yuv420p"
        )
    if bits <= 8 or not lossless:
        return container.codecs[0] if bits <= 8 else container.deep
    if container.format not in EXACT:
        raise InputError(
            f"'{path}': {Path(path).suffix} cannot hold {bits} bits without loss: write .mkv, or omit --lossless"
        )
    return "ffv1"


@cache
def vp9_is_deep() -> bool:
    """Whether the available VP9 encoder was built for more than 8 bits."""
    return any(form.name == "yuv420p10le" for form in av.Codec("libvpx-vp9", "w").video_formats or ())


def check_codec(path: str | Path, codec: str, bits: int, lossless: bool) -> None:
    """InputError if the container does not support the codec, or the codec cannot store the values without loss."""
    container, suffix = container_of(path), Path(path).suffix.lower()
    if codec not in LIMITS:
        raise InputError(f"video codec {codec!r}: expected one of {', '.join(LIMITS)}")
    if codec not in container.codecs:
        others = [name for name, other in CONTAINERS.items() if codec in other.codecs]
        raise InputError(
            f"'{path}': {suffix} cannot hold {codec}: choose another codec (--codec {container.codecs[0]}) or another file "
            f"({', '.join(others)})"
        )
    if lossless and bits > 8 and codec != "ffv1":
        raise InputError(f"'{path}': {bits} bits without loss need the codec ffv1: write .mkv with --codec ffv1")


def check_size(path: str | Path, codec: str, size: tuple[int, int]) -> None:
    """InputError if the encoder does not support frames of `size` = (H, W)."""
    if max(size) > LIMITS[codec]:
        roomy = [name for name in ("vp9", "ffv1") if max(size) <= LIMITS[name] and name in container_of(path).codecs]
        remedy = f"--codec {roomy[0]}, a folder of frames" if roomy else "a folder of frames"
        raise InputError(
            f"'{path}': frames of {size[1]}x{size[0]} are too large for {codec}, which takes {LIMITS[codec]} pixels a side: "
            f"choose {remedy} or a smaller scale"
        )


# --- times ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """Presentation times of the frames in units of `tick` seconds, rising.

    last: duration of the last frame in the same units.   fps: frames per second, for the header.
    """

    tick: Fraction
    stamps: list[int]
    last: int
    fps: Fraction


def timing(
    path: str | Path, times: Sequence[float], last: float, fps: Fraction, base: Fraction | None = None
) -> Timing:
    """Time stamps of frames that begin at `times` (seconds, rising); the last frame lasts `last` seconds.

    fps: mean rate. Times that a source has rounded become those of the constant rate again, if they are within a
        millisecond of it and the container can store them.   base: time base of the source, which is kept if it is fine enough.
    Raises InputError if the file cannot store each time within a millisecond.
    """
    container, suffix = container_of(path), Path(path).suffix.lower()
    step, exact = 1 / fps, list(map(Fraction, times))
    regular = all(abs(time - number * step) <= TOLERANCE for number, time in enumerate(exact))
    if regular and not container.tick:
        exact = [number * step for number in range(len(times))]
        last = float(step) if abs(last - step) <= TOLERANCE else last
    tick = container.tick or (step if container.constant else tick_for(list(map(float, exact)), base, fps))
    stamps: list[int] = []
    for time in exact:
        stamp = round(time / tick)
        stamps.append(max(stamp, stamps[-1] + 1) if stamps else stamp)
    late = next((k for k, stamp in enumerate(stamps) if abs(float(stamp * tick) - times[k]) > TOLERANCE), None)
    if late is not None:
        if container.constant:
            raise InputError(
                f"'{path}': {suffix} keeps one constant frame rate, but frame {late} is shown at {times[late]:.4f} s, off the "
                f"rate of {float(fps):.3f} frames per second: write .mp4 or .mkv, or give a constant rate (--fps)"
            )
        raise InputError(
            f"'{path}': {suffix} counts milliseconds, but frame {late} follows the one before by less: write .mp4 or .mov"
        )
    span = (stamps[-1] - stamps[0]) * tick
    mean = Fraction(len(stamps) - 1) / span if span else 1 / Fraction(last).limit_denominator(FINEST)
    return Timing(tick, stamps, max(round(Fraction(last) / tick), 1), fps if regular and len(stamps) > 1 else mean)


def tick_for(times: Sequence[float], base: Fraction | None, fps: Fraction) -> Fraction:
    """A time base that is fine enough for all times: that of the source or the rate if the times are multiples of it, else finer."""
    step = Fraction(base or 1 / fps)
    for ticks in (step.denominator, fps.numerator, step.denominator * 2, step.denominator * 4):
        if ticks <= FINEST and _multiples(times, ticks):
            return Fraction(1, ticks * -(-10_000 // ticks) if ticks < 10_000 else ticks)
    return (
        Fraction(1, fps.numerator * max(-(-TICKS // fps.numerator), 1))
        if fps.numerator <= FINEST
        else Fraction(1, TICKS)
    )


def _multiples(times: Sequence[float], ticks: int) -> bool:
    return all(abs(time * ticks - round(time * ticks)) < 1e-3 for time in times)
