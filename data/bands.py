"""Select the colour bands of a multi-band image, and stretch their values to [0, 1] and back.

Satellite products hold 11-bit values in uint16, reflectances, or eight bands. The file does not tell which, so the user specifies it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from errors import InputError
from settings import Between, convert_fields

USUAL = (0.1, 99.9)  # default percentiles that map to black and white
LEAST_RANGE = 0.25  # floats from 0 to 1 that differ by less (reflectances, backscatter) are stretched
OVERSHOOT = 0.05  # by which all but a few floats from 0 to 1 may exceed these: resampled or calibrated values do
DARK = 2**14  # 16-bit frames whose values all stay at or below this hold fewer bits

Band = Annotated[int, Between(1, 10_000)]
Percent = Annotated[float, Between(0, 100)]
Stored = Annotated[float, Between(-1e30, 1e30)]  # units of the file


@dataclass(frozen=True)
class Bands:
    """Which bands to take and how to stretch them. The fields are the keys of `bands` in a config."""

    choice: tuple[Band, ...] | None = None  # one (grey) or three (red, green, blue), from 1; null: grey or RGB already
    percentiles: tuple[Percent, Percent] | None = None  # (low, high) of the clip, band by band, become 0 and 1
    limits: tuple[Stored, Stored] | None = None  # (low, high) in stored units become 0 and 1; instead of percentiles

    def __post_init__(self) -> None:
        convert_fields(self, "bands.")
        if self.choice is not None and len(self.choice) not in (1, 3):
            raise InputError(f"bands.choice is {list(self.choice)}: expected one or three bands, numbered from 1")
        if self.percentiles is not None and self.percentiles[0] >= self.percentiles[1]:
            raise InputError(f"bands.percentiles is {list(self.percentiles)}: expected (low, high) within 0..100")
        if self.limits is not None and not self.limits[0] < self.limits[1]:
            raise InputError(f"bands.limits is {list(self.limits)}: expected (low, high)")
        if self.limits is not None and self.percentiles is not None:
            raise InputError("bands: give percentiles or limits, not both")


@dataclass(frozen=True)
class BandMap:
    """Map stored values to [0, 1] and back. Values beyond the limits map outside [0, 1] and are restored unchanged.

    low, high: (C,) float64 limits per chosen band, None without a stretch.   dtype: of the file, to which `invert` returns.
    Values are stretched in float64: 32-bit integers and dates lie close together far from zero.
    """

    choice: tuple[int, ...]
    dtype: np.dtype
    low: np.ndarray | None = None
    high: np.ndarray | None = None

    @classmethod
    def fit(cls, bands: Bands, frames: Sequence[np.ndarray], dtype: np.dtype, source: str) -> BandMap:
        """Limits from some (H, W, C) frames of a clip, missing values NaN; `source` names it in messages."""
        present = frames[0].shape[-1]
        choice = bands.choice or ((1, 2, 3) if present >= 3 else (1,))  # the callers refuse more bands
        if max(choice) > present:
            raise InputError(f"{source}: has {present} band(s), band {max(choice)} was chosen")
        picked = tuple(number - 1 for number in choice)
        if bands.percentiles is None and bands.limits is None:
            return cls(picked, dtype)
        if bands.percentiles is None:
            assert bands.limits is not None
            low, high = (np.full(len(picked), limit, np.float64) for limit in bands.limits)
        else:
            values = np.concatenate([frame[..., picked].reshape(-1, len(picked)) for frame in frames])
            low, high = _percentiles(values, bands.percentiles)
        return cls(picked, dtype, low, high)

    def apply(self, array: np.ndarray) -> np.ndarray:
        """(H, W, bands) as stored -> (H, W, 1 or 3): float32 where stretched, else as stored."""
        return self.stretch(array[..., self.choice])

    def stretch(self, chosen: np.ndarray) -> np.ndarray:
        """The same for (H, W, 1 or 3) with only the chosen bands, as `invert` returns them."""
        if self.low is None or self.high is None:
            return chosen
        return ((chosen.astype(np.float64) - self.low) / (self.high - self.low)).astype(np.float32)

    def invert(self, array: np.ndarray) -> np.ndarray:
        """(H, W, 1 or 3) float in [0, 1] -> stored units and type, rounded and clamped to the range of the type."""
        kind = self.dtype.kind
        if self.low is not None and self.high is not None:
            array = array.astype(np.float64) * (self.high - self.low) + self.low
        elif kind in "ui":
            array = array * np.float32(np.iinfo(self.dtype).max)
        if kind not in "ui":
            return array.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        top = float(limits.max) if limits.max <= 2**53 else np.nextafter(float(limits.max), 0)  # 64 bits: rounded up
        return np.clip(np.rint(array.astype(np.float64)), float(limits.min), top).astype(self.dtype)


def _percentiles(values: np.ndarray, share: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Limits of (values, bands), float64. For a constant band the upper limit is one unit above the value."""
    empty = np.isnan(values).all(axis=0) if values.dtype.kind == "f" else np.zeros(values.shape[1], bool)
    low, high = np.nanpercentile(np.where(empty, 0, values).astype(np.float64), share, axis=0)
    constant = ~(high > low)
    if constant.any():
        known = np.where(empty, 0, values)
        low, high = (np.where(constant, end(known, axis=0), now) for end, now in ((np.nanmin, low), (np.nanmax, high)))
    return low, np.where(high > low, high, low + 1)


def fill_unit_range(frames: Sequence[np.ndarray]) -> bool:
    """Whether values (NaN: missing) need no stretch: from 0 to 1 but for `OVERSHOOT` and a few more, and not all alike.

    frames: of any shapes, each with some values.
    """
    low, high = min(float(np.nanmin(frame)) for frame in frames), max(float(np.nanmax(frame)) for frame in frames)
    if low < -1 or high > 2 or high - low < LEAST_RANGE:
        return False
    some = np.concatenate([frame.ravel()[:: max(frame.size // 2**18, 1)] for frame in frames])
    usual = np.nanpercentile(some, USUAL)
    return bool(usual[0] >= -OVERSHOOT and usual[1] <= 1 + OVERSHOOT)


def hint(array: np.ndarray) -> str | None:
    """Return a hint with suitable limits for 16-bit frames that use a small part of the range; None for others."""
    peak = int(array.max())
    if array.dtype != np.uint16 or peak >= DARK:
        return None
    bits = max(peak.bit_length(), 8)
    return (
        f"has values up to {peak} of 65535, like {bits}-bit data, which is nearly black for a network: set the white value, "
        f"for example with limits 0 and {2**bits - 1}"
    )
