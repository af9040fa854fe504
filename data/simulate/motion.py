"""Map ground to frame coordinates: drift, shaking, slow distortion and rolling exposure of the platform.

Points are (x, y) in ground-truth pixels, pixel centres at integers; ground and frame coordinates are equal in the
middle of the clip. Times are frame numbers, not necessarily integers. The mapping is `ground = image - D(image, time)`
with a smooth D, so frames are rendered without a search; the inverse is a short fixed-point iteration.
"""

from __future__ import annotations

import numpy as np

from data.simulate.settings import MotionSettings, Range

MODES = 24  # sinusoids of the shaking, per axis
WAVES = 3  # sinusoids of the distortion, per axis

Field = tuple[np.ndarray, np.ndarray]  # along x, along y


class Platform:
    """The motion of one clip of `frames` frames of `size` (H, W); drawn from `rng`."""

    def __init__(self, settings: MotionSettings, size: tuple[int, int], frames: int, rng: np.random.Generator) -> None:
        self.size, self.rolling = size, settings.rolling
        self.middle = (frames - 1) / 2
        angle = rng.uniform(0, 2 * np.pi) if settings.direction is None else np.deg2rad(settings.direction)
        self.velocity = draw(settings.drift, rng) * np.array([np.cos(angle), np.sin(angle)])
        # One cycle in four clips up to two cycles a frame; the fastest are visible only with rolling exposure.
        self.frequency = np.geomspace(0.25 / max(frames, 2), 2.0, MODES) * rng.uniform(0.9, 1.1, (2, MODES))
        amplitude = self.frequency**-settings.jitter_slope * rng.rayleigh(1.0, (2, MODES))
        self.amplitude = settings.jitter * amplitude / np.sqrt((amplitude**2).sum(axis=1, keepdims=True) / 2)
        self.phase = rng.uniform(0, 2 * np.pi, (2, MODES))
        wavelength = rng.uniform(0.8, 2.0, (2, WAVES)) * max(size)
        turn = rng.uniform(0, 2 * np.pi, (2, WAVES))
        # (x | y of the wave vector, axis, wave)
        self.wave = 2 * np.pi / wavelength * np.stack([np.cos(turn), np.sin(turn)])
        self.wave_phase = rng.uniform(0, 2 * np.pi, (2, WAVES))
        self.warp = settings.warp

    @property
    def reach(self) -> float:
        """A practical bound of |D| (five standard deviations of the shaking)."""
        shaking = 5 * np.sqrt((self.amplitude**2).sum(axis=1).max() / 2)
        return float(np.abs(self.velocity).max() * (self.middle + 1) + shaking + self.warp * (self.middle + 1))

    def offset(self, time: np.ndarray) -> np.ndarray:
        """Drift and shaking at the times (...): (..., 2)."""
        time = np.asarray(time, dtype=np.float64)
        angle = 2 * np.pi * self.frequency * (time - self.middle)[..., None, None] + self.phase
        shaking = (self.amplitude * (np.sin(angle) - np.sin(self.phase))).sum(axis=-1)
        return (time - self.middle)[..., None] * self.velocity + shaking

    def distortion(self, x: np.ndarray, y: np.ndarray) -> Field:
        """The field, of size about 1, that grows by `warp` pixels a frame; `x` and `y` broadcast, as (1, W), (H, 1)."""
        field = []
        for axis in range(2):
            total = np.zeros(np.broadcast_shapes(np.shape(x), np.shape(y)))
            for (kx, ky), phase in zip(self.wave[:, axis].T, self.wave_phase[axis], strict=True):
                across, down = kx * x + phase, ky * y  # sin(a + b) from one-dimensional factors: fast on a grid
                total += np.sin(across) * np.cos(down) + np.cos(across) * np.sin(down)
            field.append(total / WAVES)
        return field[0], field[1]

    def displacement(self, x: np.ndarray, y: np.ndarray, time: float) -> Field:
        """D at the image points; `x` and `y` broadcast against each other."""
        shape = np.broadcast_shapes(np.shape(x), np.shape(y))
        field = self.distortion(x, y) if self.warp else (np.zeros(shape), np.zeros(shape))
        return self.with_field(field, y, time)

    def with_field(self, field: Field, y: np.ndarray, time: float) -> Field:
        """D from a `distortion` computed before, which does not depend on time."""
        rolled = time + self.rolling * (np.asarray(y) / self.size[0] - 0.5) if self.rolling else time
        offset = self.offset(np.asarray(rolled))
        if field[0].dtype == np.float32:
            offset = offset.astype(np.float32)
        growth = self.warp * (time - self.middle)
        return offset[..., 0] + growth * field[0], offset[..., 1] + growth * field[1]

    def to_ground(self, points: np.ndarray, time: float) -> np.ndarray:
        """Image points (..., 2) -> ground points."""
        return points - np.stack(self.displacement(points[..., 0], points[..., 1], time), axis=-1)

    def to_image(self, points: np.ndarray, time: float) -> np.ndarray:
        """Ground points (..., 2) -> image points. D changes by about 1 % per pixel: four steps reach 1e-7."""
        image = np.asarray(points, dtype=np.float64)
        for _ in range(4):
            image = points + np.stack(self.displacement(image[..., 0], image[..., 1], time), axis=-1)
        return image


def draw(interval: Range, rng: np.random.Generator) -> float:
    """Draw a value from [lowest, highest]."""
    return float(rng.uniform(*interval))
