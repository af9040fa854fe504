"""Interpret colour tags of videos and convert frames to RGB arrays.

Matrix and range come from the stream's tags. Untagged streams use BT.709 above 576 lines and BT.601 otherwise, as players
do, and studio range for YUV. Primaries and transfer are passed on without conversion.
Numbers follow ITU-T H.273, as in FFmpeg.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from data.video.side_data import side_data
from errors import InputError

UNKNOWN = 2
# YUV matrix of a stream -> matrix of the scaler: BT.709, FCC, BT.601 (two names), SMPTE 240M, BT.2020 (two names)
MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
UNSUPPORTED = {8: "YCgCo", 11: "YDzDx", 12: "chroma-derived", 13: "chroma-derived", 14: "ICtCp", 15: "IPT-C2"}
STUDIO, FULL = 1, 2  # ranges: 16..235 and 0..255
FINE = 4 | 8192 | 262144  # bicubic, chroma interpolated at full width, accurate rounding


@dataclass(frozen=True)
class Colour:
    """Tags of a stream, as stored (2: unspecified; range 0: unspecified)."""

    primaries: int = UNKNOWN
    transfer: int = UNKNOWN
    matrix: int = UNKNOWN
    range: int = 0

    @classmethod
    def of(cls, frame: Any) -> Colour:
        return cls(int(frame.color_primaries), int(frame.color_trc), int(frame.colorspace), int(frame.color_range))


def is_yuv(frame: Any) -> bool:
    return not frame.format.is_rgb and not frame.format.name.startswith(("gray", "mono", "pal"))


def usual_matrix(height: int) -> int:
    """The matrix that players assume for untagged YUV of `height` lines."""
    return 1 if height > 576 else 5


def matrix_of(frame: Any) -> int:
    """The matrix to decode `frame` with. InputError for matrices that the scaler does not support."""
    named = int(frame.colorspace)
    if is_yuv(frame) and named in UNSUPPORTED:
        raise InputError(
            f"its colours are {UNSUPPORTED[named]}, which cannot be decoded here: convert it to BT.709 first"
        )
    return named if named in MATRICES else usual_matrix(frame.height)


def full_range(frame: Any) -> bool:
    if not is_yuv(frame):
        return int(frame.color_range) != STUDIO
    return frame.format.name.startswith("yuvj") or int(frame.color_range) == FULL


def bits_of(frame: Any) -> int:
    return max(component.bits for component in frame.format.components)


def channels_of(frame: Any) -> int:
    return 1 if frame.format.name.startswith("gray") else 3


def is_transparent(frame: Any) -> bool:
    """Whether a pixel of `frame` is not opaque."""
    if not any(component.is_alpha for component in frame.format.components):
        return False
    return bool(frame.to_ndarray(format="rgba")[..., 3].min() < 255)


# --- orientation ------------------------------------------------------------------------------------------------------


def orientation(frame: Any) -> tuple[bool, bool, bool]:
    """(transpose, then flip left to right, then flip top to bottom) from the display matrix.

    Angles that are not a multiple of 90 degrees are ignored.
    """
    matrix = side_data(frame).get("DISPLAYMATRIX")
    if matrix:
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5] / 65536
        if abs(a) + abs(d) > 1.98 and abs(b) + abs(c) < 0.02:
            return False, bool(a < 0), bool(d < 0)
        if abs(b) + abs(c) > 1.98 and abs(a) + abs(d) < 0.02:
            return True, bool(c < 0), bool(b < 0)
    return False, False, False


def upright(array: np.ndarray, turn: tuple[bool, bool, bool]) -> np.ndarray:
    """Rotate and flip (H, W, C) from stored to displayed orientation."""
    transpose, left_right, top_bottom = turn
    array = array.swapaxes(0, 1) if transpose else array
    array = array[:, ::-1] if left_right else array
    return array[::-1] if top_bottom else array


# --- conversion -------------------------------------------------------------------------------------------------------


def to_rgb(frame: Any, bits: int, channels: int, size: tuple[int, int]) -> np.ndarray:
    """Convert to (H, W, channels) uint8, or to uint16 with range 0..65535 for more than 8 bits; not yet rotated upright.

    size: (H, W) as stored; frames of other sizes are resized.
    """
    deep = bits > 8
    name = ("gray16le" if deep else "gray") if channels == 1 else ("rgb48le" if deep else "rgb24")
    if frame.format.name != name or (frame.height, frame.width) != size:
        frame = frame.reformat(
            width=size[1],
            height=size[0],
            format=name,
            src_colorspace=MATRICES[matrix_of(frame)],
            src_color_range=FULL if full_range(frame) else STUDIO,
            dst_color_range=FULL,
            interpolation=FINE,
        )
    array = frame.to_ndarray()
    return array[..., None] if array.ndim == 2 else array
