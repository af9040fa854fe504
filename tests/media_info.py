"""Properties of a video file, read without the code under test: with PyAV, and with ffprobe if it is installed.

`media_info(path)` reads a file; `differences(source, result)` lists the lost and changed properties of a result. From a shell:
python -m tests.media_info SOURCE RESULT
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

SAME_LANGUAGE = {"ger": "deu", "fra": "fre", "und": ""}  # two names of one language
COLOURS = ("primaries", "transfer", "matrix", "range")


@dataclass
class MediaInfo:
    """times: seconds of each frame in the file.   size: (H, W).   colour: H.273 numbers.   light: HDR side data in bytes.
    streams: (type, codec, language, default) in order.   chapters: (start, end, title) in seconds."""

    times: list[float] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    pixels: str = ""
    codec: str = ""
    tag: str = ""
    aspect: float = 1.0
    colour: dict[str, int] = field(default_factory=dict)
    light: dict[str, bytes] = field(default_factory=dict)
    streams: list[tuple[str, str, str, bool]] = field(default_factory=list)
    chapters: list[tuple[float, float, str]] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    duration: float = 0.0
    damaged: int = 0

    @property
    def from_first(self) -> list[float]:
        return [time - self.times[0] for time in self.times]


def media_info(path: str | Path) -> MediaInfo:
    with av.open(f"file:{path}") as file:
        found = MediaInfo(metadata=dict(file.metadata), duration=(file.duration or 0) / av.time_base)
        stream = file.streams.best("video")
        for other in file.streams:
            name = other.codec_context.name if other.codec_context else ""
            default = bool(int(other.disposition) & 1)
            language = other.metadata.get("language", "")
            found.streams.append((other.type, name, SAME_LANGUAGE.get(language, language), default))
        for chapter in file.chapters():
            begin, end = (float(chapter[key] * chapter["time_base"]) for key in ("start", "end"))
            found.chapters.append((begin, end, chapter["metadata"].get("title", "")))
        found.codec, found.tag = stream.codec_context.name, stream.codec_context.codec_tag
        found.aspect = float(stream.sample_aspect_ratio or 1)
        for frame in file.decode(stream):
            if not found.times:
                _describe(found, frame)
            stamp = frame.dts if file.format.name == "avi" else frame.pts
            if stamp is not None:
                found.times.append(float(stamp * frame.time_base))
            found.damaged += bool(frame.is_corrupt)
    return found


def _describe(found: MediaInfo, frame: av.VideoFrame) -> None:
    found.size, found.pixels = (frame.height, frame.width), frame.format.name
    values = (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range)
    found.colour = dict(zip(COLOURS, map(int, values), strict=True))
    for side in frame.side_data:
        if side.type.name in ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"):
            found.light[side.type.name] = bytes(side)


def sound_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def sound(path: str | Path, stream: int = 0) -> tuple[np.ndarray, int, float]:
    """(samples of the first channel in [-1, 1], sample rate, seconds of the first sample in the file); lost packets are silent."""
    parts: list[tuple[int, np.ndarray]] = []
    rate = 0
    with av.open(f"file:{path}") as file:
        for packet in file.demux(file.streams.audio[stream]):
            with suppress(av.error.FFmpegError):
                for frame in packet.decode():
                    values, rate = frame.to_ndarray(), frame.sample_rate
                    values = (
                        values[0] if frame.format.is_planar else values.reshape(-1, len(frame.layout.channels))[:, 0]
                    )
                    scale = float(np.iinfo(values.dtype).max) if values.dtype.kind in "iu" else 1.0
                    next_one = parts[-1][0] + len(parts[-1][1]) if parts else 0
                    start = next_one if frame.pts is None else round(frame.pts * frame.time_base * rate)
                    parts.append((start, values.astype(np.float32) / scale))
    first = parts[0][0]
    samples = np.zeros(max(start + len(values) for start, values in parts) - first, np.float32)
    for start, values in parts:
        samples[start - first : start - first + len(values)] = values
    return samples, rate, first / rate


def onset(path: str | Path, stream: int = 0, level: float = 0.1) -> float:
    """Seconds in the file at which the sound first exceeds `level`."""
    samples, rate, start = sound(path, stream)
    return start + int(np.argmax(np.abs(samples) > level)) / rate


def differences(source: str | Path, result: str | Path, tolerance: float = 1e-3) -> list[str]:
    """Differences of `result` from `source`: frame times, colours, HDR side data, pixel shape, tracks, chapters, metadata."""
    a, b, found = media_info(source), media_info(result), []
    if len(a.times) != len(b.times):
        found.append(f"{len(a.times)} frames, now {len(b.times)}")
    elif a.times:
        worst = max(abs(x - y) for x, y in zip(a.from_first, b.from_first, strict=True))
        found += [f"times off by {worst:.6f} s"] if worst > tolerance else []
    for key in COLOURS:
        if a.colour[key] not in (2, b.colour[key]) and not (key == "range" and a.colour[key] == 0):
            found.append(f"{key} {a.colour[key]}, now {b.colour[key]}")
    found += [f"{name} lost" for name in a.light if b.light.get(name) != a.light[name]]
    found += [f"pixel shape {a.aspect:.4f}, now {b.aspect:.4f}"] if abs(a.aspect - b.aspect) > 1e-3 else []
    for kind in ("audio", "subtitle"):
        had, has = ([s[2:] for s in f.streams if s[0] == kind] for f in (a, b))
        found += [f"{kind} {had}, now {has}"] if had != has else []
    if [c[2] for c in a.chapters] != [c[2] for c in b.chapters]:
        found.append(f"chapters {a.chapters}, now {b.chapters}")
    before, after = ({key.lower(): value for key, value in f.metadata.items()} for f in (a, b))
    for key in ("title", "location", "comment", "artist", "date"):
        if key in before and after.get(key) != before[key]:
            found.append(f"{key} {before[key]!r}, now {after.get(key)!r}")
    return found


def probe_times(path: str | Path) -> list[float] | None:
    """Times by ffprobe, a second reader; None where it is not installed."""
    if not shutil.which("ffprobe"):
        return None
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "frame=best_effort_timestamp_time"]
    answer = subprocess.run([*command, "-of", "json", f"file:{path}"], capture_output=True, text=True, check=True)
    return [float(frame["best_effort_timestamp_time"]) for frame in json.loads(answer.stdout)["frames"]]


if __name__ == "__main__":
    print("\n".join(differences(*sys.argv[1:3])) or "nothing differs")
