"""Copy metadata and chapters of a source video, with times mapped to the output."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from data.video.clock import Stretch

TECHNICAL = (
    "major_brand",
    "minor_version",
    "compatible_brands",
    "encoder",
    "duration",
    "number_of_frames",
    "alpha_mode",
)
TECHNICAL_PREFIXES = ("_statistics", "bps", "number_of_bytes", "vendor_id")
RECORDED = (
    "com.apple.",
    "com.android.",
    "make",
    "model",
    "firmware",
)  # beginnings of keys that cameras and phones write
HANDLER = re.compile(
    r"(?i)(\W*(video|sound|subtitle|text|audio|data)?\s*(media)?\s*handler|core media|apple |gpac|iso media|l-smash|mainconcept)"
)
TIMECODE = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.])(\d{1,3})")  # SMPTE ST 12-1; with ; or . numbers are dropped
# MOV has a table of languages; FFmpeg knows it under these names.
MOV_LANGUAGES = {
    "deu": "ger", "fre": "fra", "nld": "dut", "swe": "sve", "ell": "gre", "isl": "ice", "zho": "chi", "ron": "rum",
    "ces": "cze", "slk": "slo", "fas": "per", "sqi": "alb", "cym": "wel", "eus": "baq",
}  # fmt: skip


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


def tags(metadata: dict[str, str]) -> dict[str, str]:
    """The user's metadata, without entries that describe the file itself."""
    return {
        key: value
        for key, value in metadata.items()
        if key.lower() not in TECHNICAL and not key.lower().startswith(TECHNICAL_PREFIXES)
    }


def file_tags(metadata: dict[str, str], format: str) -> dict[str, str]:
    """The file's metadata for an output. MP4 and MOV name the location differently from the key that phones write."""
    found = tags(metadata)
    if format in ("mp4", "mov"):  # Matroska's names are in capitals
        found = {key.lower() if key.isupper() else key: value for key, value in found.items()}
    place = found.get("com.apple.quicktime.location.ISO6709") or found.get("location-eng")
    if place and format in ("mp4", "mov"):
        found.setdefault("location", place)
    if format in ("mp4", "mov"):
        found.pop("location-eng", None)
    return found


def muxer_options(metadata: dict[str, str], format: str, cover: bool) -> dict[str, str]:
    """FFmpeg's options to store metadata in a format. MP4 and MOV have a table of any keys, as phones write it, in place of the
    usual table, which has a place for a cover picture.
    """
    recorded = any(key.startswith(RECORDED) for key in file_tags(metadata, format))
    return {"movflags": "use_metadata_tags"} if format in ("mp4", "mov") and recorded and not cover else {}


def lost_tags(metadata: dict[str, str], format: str, cover: bool) -> list[str]:
    """Keys of the metadata that a format does not store, found by writing them to memory."""
    wanted, memory = file_tags(metadata, format), io.BytesIO()
    if format not in ("mp4", "mov", "avi") or not wanted:
        return []
    with av.open(memory, "w", format=format, container_options=muxer_options(metadata, format, cover)) as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        file.metadata.update(wanted)
        for picture in (av.VideoFrame(16, 16, "yuv420p"), None):
            file.mux(stream.encode(picture))
    memory.seek(0)
    with av.open(memory, metadata_errors="replace") as file:
        kept = {key.lower() for key in file.metadata}
    kept |= {"timecode", "location-eng"}  # which have a message of their own, or are "location" too
    return [key for key in wanted if key.lower() not in kept and not wanted[key].startswith("Lavf")]


def copy_stream_tags(source: Any, output: Any, format: str) -> None:
    """A track's metadata and flags. Players of MP4 and MOV show the name of the handler as the title."""
    found = tags(source.metadata)
    handler, name = found.pop("handler_name", ""), found.pop("name", "")  # only MP4 and MOV have them
    title = found.get("title") or name or ("" if HANDLER.match(handler) else handler)
    if title:
        found["title"] = title
    if format in ("mp4", "mov") and (title or handler):
        found["handler_name"] = title or handler
    if format == "mov" and "language" in found:
        found["language"] = MOV_LANGUAGES.get(found["language"], found["language"])
    output.metadata.update(found)
    output.disposition = int(source.disposition)


def timecode(*tags: Mapping[str, str]) -> str | None:
    """The first timecode in the metadata of a stream and its file."""
    return next((value for each in tags for key, value in each.items() if key.lower() == "timecode"), None)


def set_timecode(code: str | None, *tags: dict[str, str]) -> None:
    """Replace the timecode in copied metadata, or remove it."""
    for each in tags:
        for key in [key for key in each if key.lower() == "timecode"]:
            del each[key]
            if code is not None:
                each[key] = code


def later_timecode(code: str, frames: int, fps: Fraction) -> str | None:
    """The timecode `frames` frames after `code` at `fps` frames per second; None for text that is no timecode.

    Drop-frame timecode leaves out the first two numbers (four at 60) of every minute but each tenth.
    """
    match = TIMECODE.fullmatch(code.strip())
    if match is None:
        return None
    hours, minutes, seconds, frame = (int(match[group]) for group in (1, 2, 3, 5))
    rate, minutes = round(fps), minutes + 60 * hours
    dropped = 0 if match[4] == ":" else 2 * rate // 30
    number = (60 * minutes + seconds) * rate + frame - dropped * (minutes - minutes // 10) + frames
    tens, rest = divmod(number, 600 * rate - 9 * dropped)
    later = (rest - 60 * rate) // (60 * rate - dropped) + 1 if rest >= 60 * rate else 0
    seconds, frame = divmod(number + dropped * (9 * tens + later), rate)
    return f"{seconds // 3600 % 24:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{match[4]}{frame:02}"


def chapters(source: Any, place: Placement, length: float) -> list[Any]:
    """The source's chapters, mapped to an output of `length` seconds. Their times count from the start of the file."""
    found, first = [], (source.start_time or 0) / av.time_base + max(place.begin, 0.0)
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
