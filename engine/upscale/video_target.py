"""The video that a job writes: its format is checked before the work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data.video import join
from data.video.containers import Timing, check_size, container_of, timing
from data.video.encoding import PARAMS, Encoding
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

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on tracks of the source that are converted or dropped."""
        if self.source is None:
            return ()
        info, codec = self.source.video.info, self.encoding.codec
        light, lost = info.light, [*info.light.dynamic]
        if (light.mastering or light.content) and codec not in PARAMS:
            lost.append("the HDR mastering display and light level")
        if self.encoding.aspect != 1 and codec not in PARAMS and container_of(self.path).constant:  # AVI
            lost.append(f"the pixel shape {self.encoding.aspect.numerator}:{self.encoding.aspect.denominator}")
        notes = (
            [f"{info.bits} bits of each value become {self.encoding.depth}"] if info.bits > self.encoding.depth else []
        )
        return (
            *self.source.plan.notes,
            *notes,
            *([f"left out ({codec} cannot carry it): {', '.join(lost)}"] if lost else []),
        )
