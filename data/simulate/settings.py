"""Settings of simulated satellite video. Lengths are in ground-truth pixels, times in frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from errors import InputError
from settings import from_mapping

MOST = 1000  # upper limit of counts, lengths and factors: larger values only cost time and memory
Range = tuple[float, float]  # lowest and highest value; one is drawn per clip (or per object)


@dataclass(frozen=True)
class MotionSettings:
    """The platform's motion, in ground-truth pixels (per frame)."""

    drift: Range = (0.0, 0.4)  # speed of the steady drift
    direction: float | None = None  # of the drift, degrees clockwise from right; None: drawn per clip
    jitter: float = 0.12  # root mean square of the platform's shaking on each axis
    jitter_slope: float = 1.0  # amplitude of the shaking falls with frequency as 1 / f ** slope
    warp: float = 0.03  # growth per frame of the smooth, parallax-like distortion
    rolling: float = (
        0.0  # time from the exposure of the first row to that of the last, as a share of the frame interval
    )

    def __post_init__(self) -> None:
        _ascending(drift=self.drift)
        _positive(jitter=self.jitter, jitter_slope=self.jitter_slope, warp=self.warp)
        _share(rolling=self.rolling)


@dataclass(frozen=True)
class ObjectSettings:
    """Buildings and moving objects; the integers are counts per clip."""

    roads: int = 1  # drawn across the still; vehicles follow them
    vehicles: int = 8
    ships: int = 0  # if there are any, a bay of open water is drawn
    planes: int = 0
    trains: int = 0  # each on a separate railway
    buildings: int = 3
    speed: Range = (0.3, 2.0)  # of a vehicle, pixels a frame; trains and ships take half of it, planes twice
    vehicle_length: Range = (4.0, 9.0)
    height: Range = (3.0, 14.0)  # of a building
    lean: float = 0.25  # tangent of the off-nadir angle: displacement of a roof per unit of height
    lean_change: float = 0.01  # change of that vector per frame, as the satellite passes

    def __post_init__(self) -> None:
        _positive(roads=self.roads, vehicles=self.vehicles, ships=self.ships, planes=self.planes, trains=self.trains)
        _positive(buildings=self.buildings, lean=self.lean, lean_change=self.lean_change)
        _ascending(speed=self.speed, vehicle_length=self.vehicle_length, height=self.height)
        if self.vehicles and not self.roads:
            raise InputError(
                f"vehicles: {self.vehicles} vehicles need a road: set roads to 1 or more, or vehicles to 0"
            )


@dataclass(frozen=True)
class SkySettings:
    """Clouds and their shadows."""

    cover: Range = (0.0, 0.0)  # share of the frame under cloud
    opacity: float = 0.9
    shadow: float = 0.45  # share of the light that a dense cloud blocks
    wind: Range = (0.2, 1.0)  # pixels a frame

    def __post_init__(self) -> None:
        _ascending(cover=self.cover, wind=self.wind)
        _share(opacity=self.opacity, shadow=self.shadow, highest_cover=self.cover[1])


@dataclass(frozen=True)
class SensorSettings:
    """The sensor; experiments/trials.md compares the result with real Jilin-1 clips."""

    mtf: float = (
        0.45  # deviation of the optics' Gaussian blur, in pixels, in addition to the averaging over the pixel's area
    )
    noise: Range = (3.5, 5.0)  # deviation at mid grey, in 8-bit grey levels
    shot: float = 0.5  # share of the noise power that grows with the light
    correlation: float = 0.7  # between the noise of two colour channels
    # Video stores colour at a lower resolution than luma: standard deviation of the noise of red and of blue minus luma in
    # 8-bit grey levels, and of the Gaussian, in pixels, that blurs this noise and the colours.
    colour_noise: Range = (0.0, 0.0)
    colour_blur: float = 0.0
    jpeg: Range = (0.0, 0.0)  # JPEG quality of every frame, up to 100; 0: no compression
    flicker: float = 0.002  # relative standard deviation of the exposure from frame to frame
    bits: int = 8  # 8: uint8; 16: uint16, white is 65535

    def __post_init__(self) -> None:
        _ascending(noise=self.noise, colour_noise=self.colour_noise, jpeg=self.jpeg)
        _positive(mtf=self.mtf, flicker=self.flicker, colour_blur=self.colour_blur)
        _share(shot=self.shot, correlation=self.correlation)
        if self.bits not in (8, 16):
            raise InputError(f"bits: expected 8 or 16, got {self.bits}")
        if self.jpeg[1] > 100 or (self.jpeg[1] and self.jpeg[0] < 1):
            raise InputError(f"jpeg: expected qualities from 1 to 100, or [0, 0] for none, got {list(self.jpeg)}")
        if self.jpeg[1] and self.bits != 8:
            raise InputError("jpeg: JPEG compression is for 8 bits: set bits to 8, or jpeg to [0, 0]")


@dataclass(frozen=True)
class SimulatorSettings:
    """One set of simulated clips; the group `simulate` of a data source with `kind: simulated` in a config."""

    stills: tuple[str, ...] = ()  # files or folders of overhead images; empty: data/samples/stills
    seed: int = 0
    clips: int = 24
    frames: int = 9
    size: tuple[int, int] = (192, 192)  # height and width of a ground-truth frame
    fps: float = 10.0
    ground: Range = (2.0, 3.0)  # pixels of the still that one ground-truth pixel covers
    contrast: Range = (1.0, 1.0)  # factor on the still's contrast about its mean, before objects are drawn
    turn: bool = True  # rotate the still by a random angle
    test_share: float = 0.3  # share of each still, at the far end of its longer side, that belongs to the split "test"
    motion: MotionSettings = field(default_factory=MotionSettings)
    objects: ObjectSettings = field(default_factory=ObjectSettings)
    sky: SkySettings = field(default_factory=SkySettings)
    sensor: SensorSettings = field(default_factory=SensorSettings)

    def __post_init__(self) -> None:
        _ascending(ground=self.ground, contrast=self.contrast)
        _share(test_share=self.test_share)
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed: expected 0 or more, below 2**32, got {self.seed}")
        for name, value in (("clips", self.clips), ("frames", self.frames)):
            if not 1 <= value <= 100_000:
                raise InputError(f"{name}: expected 1 to 100000, got {value}")
        if not 32 <= min(self.size) <= max(self.size) <= 8192:
            raise InputError(f"size: expected 32x32 to 8192x8192, got {self.size[0]}x{self.size[1]}")
        if not 0 < self.fps <= 1000:
            raise InputError(f"fps: expected more than 0, up to 1000 frames a second, got {self.fps}")
        if self.ground[0] < 0.5:
            raise InputError(f"ground: expected at least 0.5 still pixels per pixel, got {self.ground[0]}")


def settings_from(mapping: Mapping[str, Any] | SimulatorSettings | None, where: str = "") -> SimulatorSettings:
    """The settings of a config group (`where` is its dotted key, for messages); a ready dataclass passes through."""
    return mapping if isinstance(mapping, SimulatorSettings) else from_mapping(SimulatorSettings, mapping, where)


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= MOST:
            raise InputError(f"{name}: expected 0 to {MOST}, got {value}")


def _ascending(**ranges: Range) -> None:
    for name, (low, high) in ranges.items():
        if not 0 <= low <= high <= MOST:
            raise InputError(f"{name}: expected [lowest, highest], both from 0 to {MOST}, got [{low}, {high}]")


def _share(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise InputError(f"{name}: expected a share between 0 and 1, got {value}")
