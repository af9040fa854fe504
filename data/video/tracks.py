"""Copy or convert sound, subtitles, chapters and metadata of a source video.

`plan` selects the tracks before the work and notes which are converted or left out; `Tracks` copies while the video is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from data.video.containers import TEXT, Container, container_of
from data.video.convert import SoundConverter, TextConverter
from data.video.frames import JUMP, Stretch
from data.video.opening import open_input

LOSSLESS = ("pcm_", "flac", "alac", "tta", "wavpack", "truehd", "mlp", "ape", "wmalossless", "shorten", "tak")
TECHNICAL = ("major_brand", "minor_version", "compatible_brands", "encoder", "duration", "number_of_frames")
TECHNICAL_PREFIXES = ("_statistics", "bps", "number_of_bytes", "vendor_id")
EARLY = 0.03  # seconds: if the container has no start times, sound that begins further from the picture is converted
# MOV has a table of languages; FFmpeg knows it under these names.
MOV_LANGUAGES = {
    "deu": "ger", "fre": "fra", "nld": "dut", "swe": "sve", "ell": "gre", "isl": "ice", "zho": "chi", "ron": "rum",
    "ces": "cze", "slk": "slo", "fas": "per", "sqi": "alb", "cym": "wel", "eus": "baq",
}  # fmt: skip
NAMES = {"audio": "sound", "subtitle": "subtitles", "video": "video", "data": "data", "attachment": "attachment"}


@dataclass(frozen=True)
class Track:
    """A stream of the source that goes into the output. to: None: copied; else the encoder it is converted with."""

    index: int
    kind: str
    to: str | None = None


@dataclass(frozen=True)
class TrackPlan:
    """tracks: copied and converted tracks, in the source's order.   notes: messages on converted and omitted tracks, for the user."""

    tracks: tuple[Track, ...] = ()
    notes: tuple[str, ...] = ()
    chapters: bool = False


@dataclass(frozen=True)
class Placement:
    """Times of the source to times of the output, in seconds.

    stretches: of the video (`FrameTable`).   begin: seconds from the first frame at which the output begins.   end: where it
    ends; None: with the source.
    """

    stretches: Sequence[Stretch]
    begin: float = 0.0
    end: float | None = None

    def __call__(self, seconds: float, stretch: int = 0) -> float:
        return seconds + self.stretches[min(stretch, len(self.stretches) - 1)].shift - self.begin

    @property
    def cut(self) -> bool:
        return self.begin > 0 or self.end is not None


def plan(path: Path, video: int, out: Path, start: float, sound: bool = True) -> TrackPlan:
    """Select the tracks of the source at `path` that the output `out` gets.

    video: index of the source's stream that is upscaled.   start: its first frame's time.   sound: False leaves sound and
    subtitles out (another speed).
    """
    container, tracks, notes = container_of(out), [], []
    suffix = out.suffix.lower()
    left: list[str] = []
    with open_input(path) as source:
        for stream in source.streams:
            if stream.index == video:
                continue
            track = _track(stream, container, start) if sound or stream.type == "attachment" else None
            if track is None:
                if not (stream.type == "data" and _is_timecode(stream)):
                    left.append(describe(stream))
                continue
            tracks.append(track)
            if track.to:
                notes.append(
                    f"{describe(stream)} is converted to {_pretty(track.to)}: {suffix} does not take it as it is"
                )
        if source.chapters() and not (container.chapters and sound):
            left.append("chapters")
        if container.constant:  # AVI
            left += ["languages"] if any(_language(source.streams[track.index]) for track in tracks) else []
            left += ["the place"] if any("location" in key.lower() for key in source.metadata) else []
        if left:
            why = f"{suffix} cannot hold it" if sound else "the speed is changed"
            notes.append(f"left out ({why}): {', '.join(left)}")
        return TrackPlan(tuple(tracks), tuple(notes), bool(source.chapters()) and container.chapters and sound)


def _language(stream: Any) -> str:
    language = stream.metadata.get("language", "")
    return "" if language == "und" else language


def describe(stream: Any) -> str:
    """A stream in words: `sound 2 (aac, ger)`."""
    codec = stream.codec_context.name if stream.codec_context else getattr(stream, "name", None) or "unknown"
    picture = stream.type == "video" and int(stream.disposition) & int(av.stream.Disposition.attached_pic)
    kind = "cover picture" if picture else f"{NAMES.get(stream.type, stream.type)} stream {stream.index}"
    return f"{kind} ({', '.join(filter(None, (codec, _language(stream))))})"


def _track(stream: Any, container: Container, start: float) -> Track | None:
    codec = stream.codec_context.name if stream.codec_context else ""
    if stream.type == "attachment":
        return Track(stream.index, "attachment") if container.attachments else None
    if stream.type == "audio" and codec:
        begin = stream.start_time * stream.time_base - start if stream.start_time is not None else 0
        codec = _family(codec)
        if codec in container.sound and not (container.constant and abs(begin) > EARLY):
            return Track(stream.index, "audio")
        exact = container.exact if codec.startswith(LOSSLESS) else None
        return Track(stream.index, "audio", exact or container.encoder) if _decodable(stream) else None
    if stream.type == "subtitle" and codec:
        if codec in container.subtitles:
            return Track(stream.index, "subtitle")
        return Track(stream.index, "subtitle", container.text) if container.text and codec in TEXT else None
    return None


def _family(codec: str) -> str:
    """The codec of a decoder's name."""
    names = {
        "mp3float": "mp3",
        "aac_latm": "aac_latm",
        "libopus": "opus",
        "libvorbis": "vorbis",
        "dca": "dts",
        "ac3_fixed": "ac3",
    }
    return names.get(codec, codec)


def _decodable(stream: Any) -> bool:
    return bool(stream.codec_context.sample_rate)


def _is_timecode(stream: Any) -> bool:
    return "timecode" in stream.metadata


def _pretty(encoder: str) -> str:
    names = {
        "aac": "AAC",
        "libopus": "Opus",
        "libmp3lame": "MP3",
        "flac": "FLAC",
        "mov_text": "MP4 text",
        "subrip": "SubRip",
    }
    return names.get(encoder, "WebVTT" if encoder == "webvtt" else "PCM" if encoder.startswith("pcm") else encoder)


# --- metadata ---------------------------------------------------------------------------------------------------------


def tags(metadata: dict[str, str]) -> dict[str, str]:
    """The user's metadata, without entries that describe the file itself."""
    return {
        key: value
        for key, value in metadata.items()
        if key.lower() not in TECHNICAL and not key.lower().startswith(TECHNICAL_PREFIXES)
    }


def copy_tags(source: Any, output: Any, format: str) -> None:
    """The file's metadata. MP4 and MOV name the location differently from the key that phones write."""
    found = tags(source.metadata)
    if format in ("mp4", "mov"):  # Matroska's names are in capitals
        found = {key.lower() if key.isupper() else key: value for key, value in found.items()}
    place = found.get("com.apple.quicktime.location.ISO6709") or found.get("location-eng")
    if place and format in ("mp4", "mov"):
        found.setdefault("location", place)
    if format in ("mp4", "mov"):
        found.pop("location-eng", None)
    output.metadata.update(found)


def copy_stream_tags(source: Any, output: Any, format: str) -> None:
    found = tags(source.metadata)
    if format == "mov" and "language" in found:
        found["language"] = MOV_LANGUAGES.get(found["language"], found["language"])
    output.metadata.update(found)
    output.disposition = int(source.disposition)


def chapters(source: Any, place: Placement, length: float) -> list[Any]:
    """The source's chapters, mapped to an output of `length` seconds. Their times count from the start of the file."""
    found, first = [], (source.start_time or 0) / av.time_base + place.begin
    for number, chapter in enumerate(source.chapters()):
        base = chapter["time_base"]
        start, end = (float(chapter[key] * base) - first for key in ("start", "end"))
        if end <= 0 or start >= length:
            continue
        span = max(round(start * 1000), 0), round((min(end, length) if place.cut else end) * 1000)
        found.append(
            {
                "id": number,
                "start": span[0],
                "end": span[1],
                "time_base": Fraction(1, 1000),
                "metadata": chapter["metadata"],
            }
        )
    return found


# --- copying ----------------------------------------------------------------------------------------------------------


@dataclass
class _Lane:
    """State of one track: destination of its packets and its clock."""

    source: Any
    output: Any
    send: Callable[[Any, float], Iterator[Any]]  # (packet, seconds to add to its times) -> packets of the output
    finish: Callable[[], Iterator[Any]]
    stretch: int = 0
    last: float | None = None
    written: int | None = None
    early: int | None = None  # units by which the first packet would begin before zero


class Tracks:
    """The planned tracks of a source, interleaved with the pictures.

    Create it before the header is written (it adds the streams); then call `copy(until)` as the pictures advance.
    """

    def __init__(self, path: Path, plan: TrackPlan, output: Any, out: Path, place: Placement) -> None:
        self._source, self._output, self._place = open_input(path), output, place
        self._container = container_of(out)
        self._lanes: dict[int, _Lane] = {}
        for track in plan.tracks:
            self._add(track)
        copied = [lane.source for lane in self._lanes.values() if lane.source.type != "attachment"]
        self._packets: Iterator[Any] = self._source.demux(*copied) if copied else iter(())
        self._waiting: tuple[Any, float] | None = None

    @property
    def source(self) -> Any:
        """The open source container."""
        return self._source

    def close(self) -> None:
        self._source.close()

    def _add(self, track: Track) -> None:
        stream = self._source.streams[track.index]
        if track.kind == "attachment":
            name = stream.metadata.get("filename", f"attachment{track.index}")
            mime = stream.metadata.get("mimetype", "application/octet-stream")
            output = self._output.add_attachment(name, mime, stream.data)
            self._lanes[track.index] = _Lane(stream, output, lambda packet, shift: iter(()), lambda: iter(()))
            return
        if track.to is None:
            output = self._output.add_stream_from_template(stream, opaque=True)
            lane = _Lane(stream, output, self._copied(output), lambda: iter(()))
        elif track.kind == "audio":
            sound = SoundConverter(stream, self._output, track.to, from_zero=self._container.constant)
            lane = _Lane(stream, sound.output, sound, sound.finish)
        else:
            text = TextConverter(stream, self._output, track.to)
            lane = _Lane(stream, text.output, text, lambda: iter(()))
        copy_stream_tags(stream, lane.output, self._container.format)
        self._lanes[track.index] = lane

    @staticmethod
    def _copied(output: Any) -> Callable[[Any, float], Iterator[Any]]:
        def send(packet: Any, shift: float) -> Iterator[Any]:
            units = round(shift / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + units
            packet.dts = packet.pts if packet.dts is None else packet.dts + units
            packet.stream = output
            yield packet

        return send

    def copy(self, until: float) -> None:
        """Write all packets that begin before `until` seconds of the output; infinity: all that remain."""
        while True:
            held = self._waiting or self._next()
            self._waiting = None
            if held is None:
                break
            packet, shift = held
            begin = _seconds(packet) + shift
            if begin > until:
                self._waiting = held
                return
            length = float((packet.duration or 0) * packet.time_base)
            if (begin + length / 2 < 0 and self._place.begin > 0) or self._late(begin):
                continue
            self._write(self._lanes[packet.stream_index], packet, shift)
        if until == float("inf"):
            for lane in self._lanes.values():
                self._mux(lane, lane.finish())

    def _late(self, begin: float) -> bool:
        return self._place.end is not None and begin >= self._place.end - self._place.begin

    def _next(self) -> tuple[Any, float] | None:
        """The next packet and the seconds to add to its times."""
        while True:
            try:
                packet = next(self._packets, None)
            except av.error.FFmpegError:  # the file is cut short
                return None
            if packet is None:
                return None
            if packet.size == 0 or (packet.pts is None and packet.dts is None):
                continue
            lane, seconds = self._lanes[packet.stream_index], _seconds(packet)
            if lane.last is not None and len(self._place.stretches) > 1 and not -0.5 < seconds - lane.last < JUMP:
                lane.stretch += 1  # the clock of a joined stream jumps for the sound too
            lane.last = seconds
            return packet, self._place(0.0, lane.stretch)

    def _write(self, lane: _Lane, packet: Any, shift: float) -> None:
        self._mux(lane, lane.send(packet, shift))

    def _mux(self, lane: _Lane, packets: Iterator[Any]) -> None:
        """Make decoding times rise: damaged sources and joints repeat some. Without start times they begin at zero; else the
        muxer would shift the pictures."""
        for packet in packets:
            if self._container.constant and lane.early is None and packet.dts is not None:
                lane.early = max(-packet.dts, 0)
            if lane.early and packet.dts is not None:
                packet.pts, packet.dts = packet.pts + lane.early, packet.dts + lane.early
            if packet.dts is not None and lane.written is not None and packet.dts <= lane.written:
                if lane.source.type == "audio":
                    continue
                packet.dts = lane.written + 1
                packet.pts = max(packet.pts, packet.dts)
            lane.written = packet.dts
            self._output.mux(packet)


def _seconds(packet: Any) -> float:
    return float((packet.dts if packet.pts is None else packet.pts) * packet.time_base)
