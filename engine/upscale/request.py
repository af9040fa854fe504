"""The options of upscale.py as one typed request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data.bands import Bands
from models.base import Spacing

CONTEXT = 4  # key frames that a chunk of a space-time network sees beyond its ends


@dataclass(frozen=True)
class Request:
    """The user's request; fields have the names of upscale.py's options."""

    source: Path
    out: Path
    weight: Path | None = None
    scale: float | None = None
    size: str | None = None  # "1920x1080", "1920x" or "x1080", in place of scale
    fps: str | None = None  # "x2": twice as many; a number: frames per second
    times: tuple[float, ...] = ()
    precision: str = "auto"
    tile: int | None = None
    exact: bool = False
    ensemble: bool = False
    compile: bool = False
    device: str = "auto"
    padding: str | None = None  # None: from the weights
    spacing: Spacing | None = None  # None: from the weights
    temporal_filter: str | None = None  # None: from the weights
    key_weights: tuple[str, ...] | None = None  # None: from the weights
    quality: Literal["auto", "clean", "compressed"] = "auto"  # of the source; selects the released weights
    context: int = CONTEXT
    input_fps: float | None = None
    begin: float | None = None  # seconds: first time to upscale ...
    end: float | None = None  # ... and the time to stop before
    scenes: bool = True  # do not combine frames across scene cuts
    deinterlace: bool = True
    stills: bool = False  # every picture of a folder is a separate clip
    bands: tuple[int, ...] | None = None  # one or three, from 1
    limits: tuple[float, float] | None = None  # stored values mapped to 0 and 1
    percentiles: tuple[float, float] | None = None
    image_format: str | None = None
    codec: str | None = None
    crf: int = 16
    bitrate: int | None = None  # bits per second, in place of crf
    pix_fmt: str | None = None
    encoder_options: tuple[tuple[str, str], ...] = ()
    lossless: bool = False
    compare: bool = False
    trust: bool = False  # maps of uncertainty next to the output
    preview: int | None = None
    preview_seconds: float | None = None
    pipe_format: str = "y4m"  # of `-` as source or out: y4m, rgb24 or rgb48le
    input_size: str | None = None  # "640x360", of raw frames from a pipe
    resume: bool = False
    overwrite: bool = False

    def stretch(self) -> Bands | None:
        """The requested conversion of stored bands to colours, if any."""
        requested = Bands(self.bands, self.percentiles, self.limits)
        return None if requested == Bands() else requested
