"""The video that a job writes: its format is checked before the work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data.video import join
from data.video.containers import Container, Timing, check_size, container_of, timing
from data.video.encoding import PARAMS, Encoding
from data.video.hdr import STEREO
from engine.upscale.timeline import Timeline


@dataclass(frozen=True)
class VideoTarget:
    """A video to write: its path, its encoding, and the video to copy tracks and metadata from (None: no video)."""

    path: Path
    encoding: Encoding
    source: join.Source | None = None

    def timing(self, timeline: Timeline) -> Timing:
        """Raises InputError if the file format cannot store the frame times."""
        base = self.source.video.info.time_base if self.source else None
        return timing(self.path, timeline.times, timeline.last, timeline.fps, base)

    def check(self, size: tuple[int, int], timeline: Timeline) -> None:
        """Raises InputError, before any frame is restored, if the file format cannot store the video."""
        check_size(self.path, self.encoding.codec, size)
        self.timing(timeline)
        join.rehearse(self.path, self.encoding, size, self.source)

    def notes(self, timeline: Timeline) -> tuple[str, ...]:
        """Notes on tracks and properties of the source that are converted or dropped."""
        if self.source is None:
            return ()
        info, codec = self.source.video.info, self.encoding.codec
        container, light = container_of(self.path), info.light
        lost = [name for name in light.dynamic if name != STEREO or not _copies_stereo_mode(info.container, container)]
        if (light.mastering or light.content) and codec not in PARAMS:
            lost.append("the HDR mastering display and light level")
        if self.encoding.aspect != 1 and codec not in PARAMS and container.constant:  # AVI
            lost.append(f"the pixel shape {self.encoding.aspect.numerator}:{self.encoding.aspect.denominator}")
        notes = (
            [f"{info.bits} bits of each value become {self.encoding.depth}"] if info.bits > self.encoding.depth else []
        )
        if info.timecode is not None and (container.constant or not self.source.timecode(self.timing(timeline).fps)):
            reason = f"{self.path.suffix} cannot hold it" if container.constant else "the frame rate changes"
            notes.append(f"left out ({reason}): the timecode")
        return (
            *self.source.plan.notes,
            *notes,
            *([f"left out ({codec} cannot carry it): {', '.join(lost)}"] if lost else []),
        )


def _copies_stereo_mode(source: str, out: Container) -> bool:
    """Whether the 3D layout is copied: Matroska and WebM have it in the metadata of the track. source: FFmpeg's format."""
    return source.startswith("matroska") and out.tick is not None
