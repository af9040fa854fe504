"""Write a video in pieces and join them.

Each piece is a short video in the final codec, so a finished piece takes no more space than its share of the result.
`join` puts the pieces together without decoding them, with exact frame times and the sound of the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

from data.files import replacing
from data.video import VideoFile
from data.video_writer import VideoWriter, _Sound
from errors import InputError

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm")  # that can be written
TICKS = 90_000  # per second: the least fine time base of a joined video


@dataclass(frozen=True)
class VideoStyle:
    """How films are encoded. like: the source film, whose colours, pixel shape and depth are kept."""

    fps: Fraction
    like: VideoFile | None
    codec: str
    crf: int
    lossless: bool
    bits: int


def write_piece(path: Path, frames: Iterable[np.ndarray], times: Sequence[float], style: VideoStyle) -> None:
    """A short film without sound; `times` in seconds, the first one counts as zero."""
    with VideoWriter(
        path, style.fps, style.like, style.codec, style.crf, style.lossless, style.bits, sound=False
    ) as film:
        for array, time in zip(frames, times, strict=True):
            film.write(array, time - times[0])


def join(path: Path, pieces: Sequence[Path], times: Sequence[float], last: float, like: VideoFile | None) -> None:
    """Pieces one after the other, without decoding: `times` of all frames in seconds, the last frame is shown `last`
    seconds.

    `like`: the source film; its sound and its metadata are copied.
    """
    base = like.info.time_base if like else Fraction(1, TICKS)
    base /= max(-(-TICKS * base.numerator // base.denominator), 1)
    stamps = [round(Fraction(time) / base) for time in times]
    with replacing(path) as temporary:
        try:
            exact = {"fflags": "+bitexact"}  # no random numbers in the headers of .mkv: the same film, the same bytes
            with av.open(str(temporary), "w", options=exact) as film, av.open(str(pieces[0])) as first:
                stream = film.add_stream_from_template(first.streams.video[0])
                stream.time_base = base
                _copy_metadata(like, film)
                sound = _Sound.of(like, film) if like else None
                film.start_encoding()
                _copy_packets(film, stream, pieces, stamps, round(Fraction(last) / base), sound)
        except av.error.FFmpegError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}); choose another container (.mkv takes all)"
            ) from error


def last_shown(film: VideoFile) -> float | None:
    """Seconds for which a film shows its last frame, from the length that its stream gives; None if that makes no sense."""
    with av.open(str(film.path)) as source:
        stream = source.streams.video[0]
        if stream.duration is None or len(film) < 2:
            return None
        end = float(((stream.start_time or 0) + stream.duration) * film.info.time_base)
    longest = max(after - before for before, after in pairwise(film.times))
    seconds = end - film.start - film.times[-1]
    return seconds if 0 < seconds <= 2 * longest else None


def _copy_metadata(like: VideoFile | None, film: Any) -> None:
    if like is None:
        return
    with av.open(str(like.path)) as source:
        technical = ("major_brand", "minor_version", "compatible_brands", "encoder")
        film.metadata.update({key: value for key, value in source.metadata.items() if key not in technical})


def _copy_packets(
    film: Any, stream: Any, pieces: Sequence[Path], stamps: list[int], last: int, sound: _Sound | None
) -> None:
    """Times are given anew: a frame's is that of its place in the film; decoding times run behind by the codec's
    delay.
    """
    base, delay, start = stream.time_base, max(map(_delay, pieces)), 0
    step = stamps[1] - stamps[0] if len(stamps) > 1 else last
    end = len(stamps) - 1
    decoded = [stamps[k - delay] if k >= delay else stamps[0] + (k - delay) * step for k in range(len(stamps))]
    for piece in pieces:
        with av.open(str(piece)) as source:
            packets = [packet for packet in source.demux(source.streams.video[0]) if packet.size]
            place = {pts: start + k for k, pts in enumerate(sorted(int(packet.pts or 0) for packet in packets))}
            for number, packet in enumerate(packets, start):
                shown = place[int(packet.pts or 0)]
                packet.pts, packet.dts = stamps[shown], decoded[min(number, end)]
                packet.time_base, packet.stream = base, stream
                packet.duration = last if shown == end else stamps[shown + 1] - stamps[shown]
                if (
                    number == end
                ):  # mp4 counts a film's length from the packet decoded last, others from that shown last
                    packet.duration = max(stamps[-1] + last - stamps[0] - (decoded[-1] - decoded[0]), 1)
                if sound:
                    sound.copy(float(packet.dts * base))
                film.mux(packet)
            start += len(packets)
    if start != len(stamps):
        raise InputError(f"{pieces[0].parent}: the pieces hold {start} frames, expected {len(stamps)}: start anew")
    if sound:
        sound.copy(float("inf"))


def _delay(piece: Path) -> int:
    """By how many frames decoding order runs ahead of the order of showing."""
    with av.open(str(piece)) as source:
        shown = [int(packet.pts or 0) for packet in source.demux(source.streams.video[0]) if packet.size]
    rank = {pts: k for k, pts in enumerate(sorted(shown))}
    return max(number - rank[pts] for number, pts in enumerate(shown))
