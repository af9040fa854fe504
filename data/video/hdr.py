"""HDR side data: the mastering display and the content light level of a video (SMPTE ST 2086, CTA-861.3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from data.video.side_data import side_data

DYNAMIC = {
    "DOVI_METADATA": "Dolby Vision metadata",
    "DOVI_RPU_BUFFER": "Dolby Vision metadata",
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata",
    "DYNAMIC_HDR_VIVID": "HDR Vivid metadata",
    "A53_CC": "closed captions inside the pictures",
}
STEREO, SPHERICAL = "the 3D layout", "the spherical projection"


@dataclass(frozen=True)
class Mastering:
    """primaries: x, y of red, green, blue.   white: x, y.   luminance: lowest, highest, cd/m^2. None where not given."""

    primaries: tuple[Fraction, ...] | None
    white: tuple[Fraction, ...] | None
    luminance: tuple[Fraction, Fraction] | None


@dataclass(frozen=True)
class Light:
    """content: greatest level of a pixel and of a frame's mean, cd/m^2.   dynamic: kinds of metadata that change from frame
    to frame, 3D layout and projection, which are not carried."""

    mastering: Mastering | None = None
    content: tuple[int, int] | None = None
    dynamic: tuple[str, ...] = ()

    @classmethod
    def of(cls, frame: Any) -> Light:
        sides = side_data(frame)
        mastering = _mastering(sides.get("MASTERING_DISPLAY_METADATA", b""))
        content = sides.get("CONTENT_LIGHT_LEVEL", b"")
        dynamic = dict.fromkeys(DYNAMIC[name] for name in sides if name in DYNAMIC)
        dynamic |= {STEREO: None} if any(sides.get("STEREO3D", b"")[:4]) else {}  # type 0: one picture
        dynamic |= {SPHERICAL: None} if "SPHERICAL" in sides else {}
        return cls(mastering, struct.unpack("II", content[:8]) if len(content) >= 8 else None, tuple(dynamic))


def _mastering(content: bytes) -> Mastering | None:
    """FFmpeg's AVMasteringDisplayMetadata: 6 + 2 + 2 rationals and two flags."""
    if len(content) < 88:
        return None
    numbers = struct.unpack("22i", content[:88])
    ratios = [Fraction(n, d) if d else Fraction(0) for n, d in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
    primaries, luminance = numbers[20:22]
    return Mastering(
        tuple(ratios[:6]) if primaries else None,
        tuple(ratios[6:8]) if primaries else None,
        (ratios[8], ratios[9]) if luminance else None,
    )


def x265_options(light: Light) -> dict[str, str]:
    """Parameters of x265 (and of x264, under the names in `x264_options`)."""
    options = {}
    if light.mastering and light.mastering.primaries and light.mastering.white and light.mastering.luminance:
        options["master-display"] = _display(light.mastering)
    if light.content:
        options["max-cll"] = f"{light.content[0]},{light.content[1]}"
    return options


def x264_options(light: Light) -> dict[str, str]:
    names = {"master-display": "mastering-display", "max-cll": "cll"}
    return {names[name]: value for name, value in x265_options(light).items()}


def _display(mastering: Mastering) -> str:
    """G(x,y)B(x,y)R(x,y)WP(x,y)L(max,min) in units of 0.00002 and 0.0001 cd/m^2."""
    assert mastering.primaries and mastering.white and mastering.luminance
    red, green, blue = (mastering.primaries[k : k + 2] for k in (0, 2, 4))
    points = zip(("G", "B", "R", "WP"), (green, blue, red, mastering.white), strict=True)
    parts = [f"{name}({round(x * 50000)},{round(y * 50000)})" for name, (x, y) in points]
    low, high = mastering.luminance
    return "".join(parts) + f"L({round(high * 10000)},{round(low * 10000)})"
