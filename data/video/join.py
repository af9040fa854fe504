"""Write a video in pieces and join them.

Each piece is a short video in the final codec, so a finished piece takes no more space than its share of the result.
`join` joins the pieces without decoding them, with exact frame times and the tracks of the source.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from data.files import replacing
from data.video import display_size, metadata
from data.video.containers import Container, Timing, container_of
from data.video.encoding import Encoding
from data.video.file import VideoFile
from data.video.metadata import Placement
from data.video.opening import open_input, open_named, url
from data.video.track_plan import TrackPlan
from data.video.tracks import Tracks
from errors import InputError

PIECE_TICK = Fraction(1, 100)  # pieces count frames; Matroska's milliseconds would merge frames of high rates
MOST_DELAYED = 16  # frames by which an H.264 or H.265 picture is decoded before it is shown, at most
SAME_RATE = 1e-3  # relative difference up to which two frame rates count as equal
NOTHING = TrackPlan()
EXACT = {"fflags": "+bitexact"}  # no random numbers in the headers of .mkv, so that output is reproducible


@dataclass(frozen=True)
class Source:
    """The properties of a source video that `join` needs."""

    video: VideoFile
    plan: TrackPlan = NOTHING
    begin: float = 0.0  # seconds from its first frame at which the new video begins
    end: float | None = None

    @property
    def lead(self) -> float:
        """Seconds of sound before the first frame of the output."""
        return self.plan.lead if self.begin == 0 else 0.0

    def timecode(self, fps: Fraction) -> str | None:
        """The timecode of the first frame of an output at `fps`; None if there is none, or if it counts frames of another rate."""
        info = self.video.info
        if info.timecode is None or abs(fps / info.fps - 1) > SAME_RATE:
            return None
        return metadata.later_timecode(info.timecode, round(self.begin * info.fps), info.fps)

    @property
    def placement(self) -> Placement:
        return Placement(self.video.table.stretches, self.begin - self.lead, self.end)


# --- pieces -----------------------------------------------------------------------------------------------------------


def write_piece(path: Path, frames: Iterable[np.ndarray], encoding: Encoding, fps: Fraction) -> None:
    """Write frames (H, W, C) as a short video without sound. Its times count frames; `join` sets the real times."""
    with replacing(path) as temporary, _guarded(path, encoding), _Piece(temporary, encoding, fps) as piece:
        for array in frames:
            piece.write(array)


class _Piece:
    """A Matroska file whose packets are numbered, `PIECE_TICK` apart."""

    def __init__(self, path: Path, encoding: Encoding, fps: Fraction) -> None:
        self._path, self._encoding, self._fps = path, encoding, fps
        self._container: Any = None
        self._count = self._muxed = 0

    def __enter__(self) -> _Piece:
        return self

    def write(self, array: np.ndarray) -> None:
        if self._container is None:
            self._container = av.open(url(self._path), "w", format="matroska", container_options=dict(EXACT))
            self._stream = self._container.add_stream(self._encoding.encoder, rate=self._fps)
            height, width = array.shape[:2]
            self._encoding.configure(self._stream, (height, width), self._fps)
        picture = self._encoding.picture(array, self._stream.pix_fmt)
        picture.pts, picture.time_base = self._count, 1 / self._fps
        self._count += 1
        self._mux(self._stream.encode(picture))

    def _mux(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            packet.time_base = PIECE_TICK  # the encoder counts frames
            packet.dts = self._muxed - MOST_DELAYED  # replaces x265's, see `encoding.last_packets`
            self._muxed += 1
            self._container.mux(packet)

    def __exit__(self, kind: Any, *_: object) -> None:
        if self._container is None:
            return
        if kind is None:
            self._mux(self._stream.encode(None))
        with suppress(Exception) if kind else nullcontext():
            self._container.close()


# --- checks before the work -------------------------------------------------------------------------------------------


def rehearse(out: Path, encoding: Encoding, size: tuple[int, int], source: Source | None) -> None:
    """Open the encoder for frames of `size` and write the header of `out` with all its tracks, in memory.

    Raises InputError before the work begins if FFmpeg rejects any setting.
    """
    container = container_of(out)
    with _guarded(out, encoding):
        encoding.check(size)
        file = av.open(io.BytesIO(), "w", format=container.format)
        try:
            stream = file.add_stream(encoding.encoder, rate=Fraction(25))
            encoding.configure(stream, size, Fraction(25))
            _tag(stream, container, encoding.codec)
            carried = Tracks(source.video.path, source.plan, file, out, source.placement) if source else None
            file.start_encoding()
            if carried:
                carried.close()
        finally:
            with suppress(Exception):
                file.close()


# --- joining ----------------------------------------------------------------------------------------------------------


def join(out: Path, pieces: Sequence[Path], encoding: Encoding, timing: Timing, source: Source | None) -> None:
    """Concatenate pieces without decoding, at the times of `timing`, with the tracks and metadata of `source`."""
    container = container_of(out)
    if source and source.lead:
        late = round(Fraction(source.lead) / timing.tick)
        timing = replace(timing, stamps=[stamp + late for stamp in timing.stamps])
    with replacing(out) as temporary, _guarded(out, encoding):
        options = dict(EXACT)
        if shaped := encoding.needs_display_size(container):
            options |= display_size.OPTIONS
        carried = None
        with open_input(pieces[0]) as first, open_source(source) as original:
            if source and original:
                options |= metadata.muxer_options(original.metadata, container.format, source.plan.has_cover)
            with av.open(url(temporary), "w", format=container.format, container_options=options) as file:
                template = first.streams.video[0]
                stream = file.add_stream_from_template(template, opaque=True)
                stream.time_base = timing.tick
                change = _bitstream(container, encoding.codec, template, stream)
                _tag(stream, container, encoding.codec)
                stream.codec_context.framerate = timing.fps
                if encoding.aspect != 1:
                    stream.codec_context.sample_aspect_ratio = encoding.aspect
                if source and original:
                    file.metadata.update(metadata.file_tags(original.metadata, container.format))
                    metadata.copy_stream_tags(original.streams[source.video.info.stream], stream, container.format)
                    metadata.set_timecode(source.timecode(timing.fps), file.metadata, stream.metadata)
                    carried = Tracks(source.video.path, source.plan, file, out, source.placement)
                    if source.plan.chapters:
                        length = float((timing.stamps[-1] + timing.last) * timing.tick)
                        file.set_chapters(metadata.chapters(original, source.placement, length))
                file.start_encoding()
                iso = container.format in ("mp4", "mov")
                _copy_packets(file, stream, pieces, timing, carried, change, iso)
            if carried:
                carried.close()
        if shaped:
            display_size.set_pixel_shape(temporary, (template.height, template.width), encoding.aspect)


class open_source:
    """The source's container, open while the block runs; None without a source."""

    def __init__(self, source: Source | None) -> None:
        self._container = open_named(source.video.path) if source else None

    def __enter__(self) -> Any | None:
        return self._container

    def __exit__(self, *_: object) -> None:
        if self._container:
            self._container.close()


def _tag(stream: Any, container: Container, codec: str) -> None:
    """The codec tag: Apple's players accept HEVC only as hvc1."""
    if codec == "h265" and container.format in ("mp4", "mov"):
        stream.codec_context.codec_tag = "hvc1"


def _bitstream(container: Container, codec: str, template: Any, stream: Any) -> Callable[[Any], Iterator[Any]]:
    """The bitstream filter from a piece to the container: AVI stores H.264 with start codes."""
    if container.format != "avi" or codec != "h264":
        return lambda packet: iter((packet,))
    filtering = av.bitstream.BitStreamFilterContext("h264_mp4toannexb", template, stream)

    def change(packet: Any) -> Iterator[Any]:
        base = packet.time_base
        for made in filtering.filter(packet):
            made.time_base = base
            yield made

    return change


def _copy_packets(
    file: Any,
    stream: Any,
    pieces: Sequence[Path],
    timing: Timing,
    carried: Tracks | None,
    change: Callable[[Any], Iterator[Any]],
    iso: bool,
) -> None:
    """Set each frame's time by its position in the video; decoding times precede it by the codec's delay."""
    stamps, last, delay = timing.stamps, timing.last, max(map(_delay, pieces))
    step = stamps[1] - stamps[0] if len(stamps) > 1 else last
    end, start = len(stamps) - 1, 0
    decoded = [stamps[k - delay] if k >= delay else stamps[0] + (k - delay) * step for k in range(len(stamps))]
    for piece in pieces:
        with open_input(piece) as source:
            packets = [packet for packet in source.demux(source.streams.video[0]) if packet.size]
            place = {pts: start + k for k, pts in enumerate(sorted(int(packet.pts or 0) for packet in packets))}
            for number, packet in enumerate(packets, start):
                shown = place[int(packet.pts or 0)]
                if shown > end:
                    break
                duration = last if shown == end else stamps[shown + 1] - stamps[shown]
                if number == end and iso:
                    # These containers count a track's length from the packet decoded last, others from the one shown last.
                    # Decoded later, it does not end after the video.
                    decoded[end] = max(decoded[end], stamps[shown] - delay * step)
                    duration = max(stamps[-1] + last - stamps[0] - (decoded[end] - decoded[0]), 1)
                packet.pts, packet.dts, packet.duration = stamps[shown], decoded[min(number, end)], duration
                packet.time_base = timing.tick
                if carried:
                    carried.copy(float(packet.dts * timing.tick))
                for made in change(packet):
                    made.stream = stream
                    file.mux(made)
            start += len(packets)
    if start != len(stamps):
        raise InputError(f"{pieces[0].parent}: the pieces hold {start} frames, expected {len(stamps)}: start again")
    if carried:
        carried.copy(float("inf"))


def _delay(piece: Path) -> int:
    """Number of frames by which decoding order precedes presentation order."""
    with open_input(piece) as source:
        shown = [int(packet.pts or 0) for packet in source.demux(source.streams.video[0]) if packet.size]
    rank = {pts: k for k, pts in enumerate(sorted(shown))}
    return max(number - rank[pts] for number, pts in enumerate(shown))


class _guarded:
    """Convert FFmpeg's errors to one line."""

    def __init__(self, path: Path, encoding: Encoding) -> None:
        self._path, self._encoding = path, encoding

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, _: object) -> None:
        if isinstance(error, (OSError, ValueError)) and not isinstance(error, InputError):  # FFmpeg's errors are both
            remedy = "choose another container (.mkv takes most), codec or folder"
            if self._encoding.options:
                remedy = f"check the values of -e (ffmpeg -h encoder={self._encoding.encoder})"
            reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
            raise InputError(
                f"{self._path}: cannot be written as {self._encoding.codec} ({reason}); {remedy}"
            ) from error
