"""Select the tracks of a source video that are copied or converted, and describe the converted and omitted ones."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av

from data.video.containers import TEXT, Container, container_of
from data.video.metadata import lost_tags
from data.video.opening import is_cover, open_named

LOSSLESS = ("pcm_", "flac", "alac", "tta", "wavpack", "truehd", "mlp", "ape", "wmalossless", "shorten", "tak")
PRIMING = 0.05  # seconds: sound that begins this much before the picture is part of its codec's delay
MOST_KEYS = 6  # of metadata that a message names
TRIED = 50  # packets of a sound stream that are decoded to see whether it can be converted
EARLY = 0.03  # seconds: if the container has no start times, sound that begins further from the picture is converted
FLAGS = {
    name: av.stream.Disposition[name]
    for name in ("forced", "original", "dub", "comment", "hearing_impaired", "visual_impaired")
}
NAMES = {"audio": "sound", "subtitle": "subtitles", "video": "video", "data": "data", "attachment": "attachment"}


@dataclass(frozen=True)
class Track:
    """A stream of the source that goes into the output. to: None: copied; else the encoder it is converted with."""

    index: int
    kind: str
    to: str | None = None


@dataclass(frozen=True)
class TrackPlan:
    """tracks: copied and converted tracks, in the source's order.   notes: messages on converted and omitted tracks, for the
    user.   lead: seconds of sound before the first frame."""

    tracks: tuple[Track, ...] = ()
    notes: tuple[str, ...] = ()
    chapters: bool = False
    lead: float = 0.0

    @property
    def has_cover(self) -> bool:
        return has_cover(self.tracks)


def has_cover(tracks: Sequence[Track]) -> bool:
    """Whether a cover picture is one of the tracks."""
    return any(track.kind == "cover" for track in tracks)


def plan(path: Path, video: int, out: Path, start: float, sound: bool = True) -> TrackPlan:
    """Select the tracks of the source at `path` that the output `out` gets.

    video: index of the source's stream that is upscaled.   start: its first frame's time.   sound: False leaves sound and
    subtitles out (another speed).
    """
    container, tracks, notes, left = container_of(out), [], [], []
    suffix = out.suffix.lower()
    with open_named(path) as source:
        for stream in source.streams:
            if stream.index == video:
                continue
            track = _track(stream, container, start) if sound or not _is_timed(stream) else None
            if why := _unusable(path, stream, track, sound):
                notes.append(f"{describe(stream)} is left out: {why}")
            elif track is not None:
                tracks.append(track)
                if track.to:
                    why = _reason(stream, container, suffix)
                    notes.append(f"{describe(stream)} is converted to {_pretty(track.to)}: {why}")
            elif not (stream.type == "data" and (_is_timecode(stream) or _has_chapters(stream, source))):
                left.append(describe(stream))
        has_chapters = bool(source.chapters()) and container.chapters and sound
        left += ["chapters"] if source.chapters() and not has_chapters else []
        left += _lost_properties(source, tracks, container)
        if words := _lost_metadata(source, tracks, container):
            left += [words] if sound else []
            notes += [] if sound else [f"left out ({suffix} cannot hold it): {words}"]
        if left:
            why = f"{suffix} cannot hold it" if sound else "the speed is changed"
            notes.append(f"left out ({why}): {', '.join(left)}")
        return TrackPlan(tuple(tracks), tuple(notes), has_chapters, _lead(source, tracks, container, start))


def _is_timed(stream: Any) -> bool:
    return stream.type != "attachment" and not is_cover(stream)


def _unusable(path: Path, stream: Any, track: Track | None, sound: bool) -> str:
    """Why a stream of sound or video cannot be used, whatever the container; "" for others."""
    if track is not None and track.kind == "audio" and track.to and not _decodable(path, stream.index):
        return "it cannot be decoded"
    if sound and stream.type == "audio" and stream.codec_context and not stream.codec_context.sample_rate:
        return "it has no content, or its header is damaged"
    if track is None and stream.type == "video" and _is_timed(stream):
        return "one video stream is upscaled, the one that players choose"
    return ""


def _lost_properties(source: Any, tracks: Sequence[Track], container: Container) -> list[str]:
    """Properties of the tracks that the container does not store."""
    streams = [source.streams[track.index] for track in tracks]
    lost = [flags for stream in streams if (flags := _lost_flags(stream, container))]
    return [*lost, "languages"] if container.constant and any(map(_language, streams)) else lost  # AVI


def _lost_metadata(source: Any, tracks: Sequence[Track], container: Container) -> str:
    """The keys of the file's metadata that the container does not store, in words; "" if there are none."""
    lost = lost_tags(source.metadata, container.format, has_cover(tracks))
    more = f" and {len(lost) - MOST_KEYS} more" if len(lost) > MOST_KEYS else ""
    return f"metadata ({', '.join(lost[:MOST_KEYS])}{more})" if lost else ""


def _lead(source: Any, tracks: Sequence[Track], container: Container, start: float) -> float:
    """Seconds of sound before the first frame, at `start`."""
    sounds = [source.streams[track.index] for track in tracks if track.kind == "audio" and not container.constant]
    begins = [float(stream.start_time * stream.time_base) for stream in sounds if stream.start_time is not None]
    lead = max((start - begin for begin in begins), default=0.0)
    return lead if lead > PRIMING else 0.0


def _language(stream: Any) -> str:
    language = stream.metadata.get("language", "")
    return "" if language == "und" else language


def names(path: Path, video: int) -> list[str]:
    """Descriptions of all tracks of a file except its stream `video`, and of its chapters."""
    with open_named(path) as source:
        found = [describe(stream) for stream in source.streams if stream.index != video and not _is_timecode(stream)]
        return [*found, *(["chapters"] if source.chapters() else [])]


def _lost_flags(stream: Any, container: Container) -> str:
    """The flags of a track that the container does not store, in words; "" if there are none."""
    lost = [name for name in FLAGS if name not in container.flags and int(stream.disposition) & int(FLAGS[name])]
    return f"the flag {' and '.join(lost)} of {describe(stream)}" if lost else ""


def describe(stream: Any) -> str:
    """A stream in words: `sound 2 (aac, ger)`."""
    codec = _family(stream.codec_context.name) if stream.codec_context else getattr(stream, "name", None) or "unknown"
    kind = "cover picture" if is_cover(stream) else f"{NAMES.get(stream.type, stream.type)} stream {stream.index}"
    return f"{kind} ({', '.join(filter(None, (codec, _language(stream))))})"


def _track(stream: Any, container: Container, start: float) -> Track | None:
    codec = stream.codec_context.name if stream.codec_context else ""
    if stream.type == "attachment":
        return Track(stream.index, "attachment") if container.attachments else None
    if is_cover(stream):
        return Track(stream.index, "cover") if codec in container.covers else None
    if stream.type == "audio" and codec:
        begin = stream.start_time * stream.time_base - start if stream.start_time is not None else 0
        codec = _family(codec)
        if codec in container.sound and not (container.constant and abs(begin) > EARLY):
            return Track(stream.index, "audio")
        exact = container.exact if codec.startswith(LOSSLESS) else None
        return Track(stream.index, "audio", exact or container.encoder) if stream.codec_context.sample_rate else None
    if stream.type == "subtitle" and codec:
        if codec in container.subtitles:
            return Track(stream.index, "subtitle")
        return Track(stream.index, "subtitle", container.text) if container.text and codec in TEXT else None
    return None


def _reason(stream: Any, container: Container, suffix: str) -> str:
    if stream.type == "audio" and _family(stream.codec_context.name) in container.sound:
        return f"in {suffix} all sound starts with the picture"
    return f"{suffix} does not support its codec"


def _family(codec: str) -> str:
    """The codec of a decoder's name."""
    names = {
        "mp3float": "mp3",
        "libopus": "opus",
        "libvorbis": "vorbis",
        "dca": "dts",
        "ac3_fixed": "ac3",
    }
    return names.get(codec, codec)


def _decodable(path: Path, index: int) -> bool:
    """Whether one of the first packets of a stream can be decoded, or it has none."""
    with open_named(path) as source:
        packets = [packet for packet in islice(source.demux(source.streams[index]), TRIED) if packet.size]
        for packet in packets:
            with suppress(av.error.FFmpegError):
                if packet.decode():
                    return True
        return not packets


def _has_chapters(stream: Any, source: Any) -> bool:
    """Whether a data stream of MP4 holds the titles of the chapters, which are carried as chapters."""
    return bool(source.chapters()) and getattr(stream, "name", None) == "bin_data"


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
