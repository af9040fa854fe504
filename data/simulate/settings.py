"""Settings of simulated satellite video. Lengths are in ground-truth pixels, times in frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from errors import InputError
from settings import Between, convert_fields, from_mapping

# Larger values only cost time and memory.
Count = Annotated[int, Between(0, 1000)]
Length = Annotated[float, Between(0, 1000)]
Share = Annotated[float, Between(0, 1)]
Seed = Annotated[int, Between(0, 2**32 - 1)]
Quality = Annotated[float, Between(0, 100)]  # of JPEG
Side = Annotated[int, Between(32, 8192)]  # pixels of a frame's side
Ground = Annotated[float, Between(0.5, 1000)]  # still pixels per pixel
Range = tuple[Length, Length]  # lowest and highest value; one is drawn per clip (or per object)


@dataclass(frozen=True)
class MotionSettings:
    """The platform's motion, in ground-truth pixels (per frame)."""

    drift: Range = (0.0, 0.4)  # speed of the steady drift
    direction: Annotated[float, Between(-360, 360)] | None = None  # of the drift, degrees clockwise; null: random
    jitter: Length = 0.12  # root mean square of the platform's shaking on each axis
    jitter_slope: Annotated[float, Between(0, 10)] = 1.0  # amplitude of the shaking at frequency f: 1 / f ** slope
    warp: Length = 0.03  # growth per frame of the smooth, parallax-like distortion
    rolling: Share = 0.0  # time between the exposures of the first and the last row, as a share of the frame interval

    def __post_init__(self) -> None:
        convert_fields(self, "motion.")
        _ascending(drift=self.drift)


@dataclass(frozen=True)
class ObjectSettings:
    """Buildings and moving objects; the integers are counts per clip."""

    roads: Count = 1  # drawn across the still; vehicles follow them
    vehicles: Count = 8
    ships: Count = 0  # if there are any, a bay of open water is drawn
    planes: Count = 0
    trains: Count = 0  # each on a separate railway
    buildings: Count = 3
    speed: Range = (0.3, 2.0)  # of a vehicle, pixels a frame; trains and ships take half of it, planes twice
    vehicle_length: Range = (4.0, 9.0)
    height: Range = (3.0, 14.0)  # of a building
    lean: Length = 0.25  # tangent of the off-nadir angle: displacement of a roof per unit of height
    lean_change: Length = 0.01  # change of that vector per frame, as the satellite passes

    def __post_init__(self) -> None:
        convert_fields(self, "objects.")
        _ascending(speed=self.speed, vehicle_length=self.vehicle_length, height=self.height)
        if self.vehicles and not self.roads:
            raise InputError(
                f"vehicles: {self.vehicles} vehicles need a road: set roads to 1 or more, or vehicles to 0"
            )


@dataclass(frozen=True)
class SkySettings:
    """Clouds and their shadows."""

    cover: tuple[Share, Share] = (0.0, 0.0)  # share of the frame under cloud
    opacity: Share = 0.9
    shadow: Share = 0.45  # share of the light that a dense cloud blocks
    wind: Range = (0.2, 1.0)  # pixels a frame

    def __post_init__(self) -> None:
        convert_fields(self, "sky.")
        _ascending(cover=self.cover, wind=self.wind)


@dataclass(frozen=True)
class SensorSettings:
    """The sensor; experiments/trials.md compares the result with real Jilin-1 clips."""

    mtf: Annotated[float, Between(0, 100)] = 0.45  # deviation of the optics' Gaussian blur, in pixels
    noise: Range = (3.5, 5.0)  # deviation at mid grey, in 8-bit grey levels
    shot: Share = 0.5  # share of the noise power that grows with the light
    correlation: Share = 0.7  # between the noise of two colour channels
    # Video stores colour at a lower resolution than luma: standard deviation of the noise of red and of blue minus luma in
    # 8-bit grey levels, and of the Gaussian, in pixels, that blurs this noise and the colours.
    colour_noise: Range = (0.0, 0.0)
    colour_blur: Annotated[float, Between(0, 100)] = 0.0
    jpeg: tuple[Quality, Quality] = (0.0, 0.0)  # JPEG quality of every frame, up to 100; 0: no compression
    flicker: Annotated[float, Between(0, 10)] = 0.002  # relative standard deviation of the exposure from frame to frame
    bits: Literal[8, 16] = 8  # 8: uint8; 16: uint16, white is 65535

    def __post_init__(self) -> None:
        convert_fields(self, "sensor.")
        _ascending(noise=self.noise, colour_noise=self.colour_noise, jpeg=self.jpeg)
        if self.jpeg[1] and self.jpeg[0] < 1:
            raise InputError(f"jpeg: expected qualities from 1 to 100, or [0, 0] for none, got {list(self.jpeg)}")
        if self.jpeg[1] and self.bits != 8:
            raise InputError("jpeg: JPEG compression is for 8 bits: set bits to 8, or jpeg to [0, 0]")


@dataclass(frozen=True)
class SimulatorSettings:
    """One set of simulated clips; the group `simulate` of a data source with `kind: simulated` in a config."""

    stills: tuple[str, ...] = ()  # files or folders of overhead images; empty: data/samples/stills
    seed: Seed = 0
    clips: Annotated[int, Between(1, 100_000)] = 24
    frames: Annotated[int, Between(1, 100_000)] = 9
    size: tuple[Side, Side] = (192, 192)  # height and width of a ground-truth frame
    fps: Annotated[float, Between(0.001, 1000)] = 10.0
    ground: tuple[Ground, Ground] = (2.0, 3.0)  # pixels of the still that one ground-truth pixel covers
    contrast: Range = (1.0, 1.0)  # factor on the still's contrast about its mean, before objects are drawn
    turn: bool = True  # rotate the still by a random angle
    test_share: Share = 0.3  # share of each still, at the far end of its longer side, that belongs to the split "test"
    motion: MotionSettings = field(default_factory=MotionSettings)
    objects: ObjectSettings = field(default_factory=ObjectSettings)
    sky: SkySettings = field(default_factory=SkySettings)
    sensor: SensorSettings = field(default_factory=SensorSettings)

    def __post_init__(self) -> None:
        convert_fields(self, "simulate.")
        _ascending(ground=self.ground, contrast=self.contrast)


def settings_from(mapping: Mapping[str, Any] | SimulatorSettings | None, where: str = "") -> SimulatorSettings:
    """The settings of a config group (`where` is its dotted key, for messages); a ready dataclass passes through."""
    return mapping if isinstance(mapping, SimulatorSettings) else from_mapping(SimulatorSettings, mapping, where)


def _ascending(**ranges: Range) -> None:
    for name, (low, high) in ranges.items():
        if low > high:
            raise InputError(f"{name}: expected [lowest, highest], got [{low}, {high}]")
