"""Moving objects: cars, ships, planes and trains on their paths, with true positions at any time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from data.simulate import sprites
from data.simulate.motion import draw
from data.simulate.settings import ObjectSettings


class Path:
    """A smooth curve on the ground, parametrised by distance and continued straight beyond its ends."""

    def __init__(self, points: np.ndarray) -> None:
        self.points = points
        steps = np.hypot(*np.diff(points, axis=0).T)
        self.length = np.concatenate([[0], np.cumsum(steps)])

    def at(self, distance: float, aside: float = 0.0) -> tuple[np.ndarray, float]:
        """(x, y) after `distance` pixels, `aside` pixels to the right of the curve, and the heading in radians."""
        inside = float(np.clip(distance, 0, self.length[-1]))
        place = np.array([np.interp(inside, self.length, self.points[:, axis]) for axis in range(2)])
        ahead, behind = (np.clip(inside + step, 0, self.length[-1]) for step in (2.0, -2.0))
        chord = [np.diff(np.interp([behind, ahead], self.length, self.points[:, axis]))[0] for axis in range(2)]
        heading = float(np.arctan2(chord[1], chord[0]))
        forward = np.array([np.cos(heading), np.sin(heading)])
        right = np.array([-forward[1], forward[0]])
        return place + (distance - inside) * forward + aside * right, heading


@dataclass
class Part:
    """One rigid part, `lag` pixels behind the head on the path; `fine` sprite pixels per ground-truth pixel."""

    sprite: np.ndarray
    fine: float
    lag: float = 0.0

    @property
    def length(self) -> float:
        return self.sprite.shape[1] / self.fine

    @cached_property
    def outline(self) -> np.ndarray:
        """Convex hull (n, 2) of the sprite around its centre, nose to the right, in ground-truth pixels."""
        opaque = self.sprite[..., 3] > 0.5
        rows, columns = np.nonzero(
            opaque if opaque.any() else np.ones_like(opaque)
        )  # none: smaller than a sprite pixel
        edges = np.concatenate(
            [np.stack([columns + right, rows + down], axis=1) for right in (0, 1) for down in (0, 1)]
        )
        hull = cv2.convexHull(edges.astype(np.int32))[:, 0]
        return (hull - np.array(self.sprite.shape[1::-1]) / 2) / self.fine


@dataclass
class Mover:
    """One moving object. `height` (planes) lifts it above the ground; `backward`: it moves against the path."""

    track: int
    label: str
    path: Path
    start: float
    speed: float
    parts: list[Part]
    aside: float = 0.0
    backward: bool = False
    height: float = 0.0
    wake: bool = False

    def place(self, part: Part, time: float) -> tuple[np.ndarray, float]:
        """Centre (x, y) on the ground and heading in radians at the time."""
        sign = -1.0 if self.backward else 1.0
        distance = self.start + sign * (self.speed * time - part.lag)
        ground, heading = self.path.at(distance, sign * self.aside)
        return ground, heading + (np.pi if self.backward else 0.0)


def outline(part: Part, centre: np.ndarray, heading: float) -> np.ndarray:
    """The outline (n, 2) of a part in the frame."""
    forward = np.array([np.cos(heading), np.sin(heading)])
    return centre + part.outline @ np.stack([forward, [-forward[1], forward[0]]])


def crossing(size: tuple[int, int], margin: float, rng: np.random.Generator, bend: float = 0.25) -> Path:
    """A gently bent path from one side of the canvas to the other, through the middle half of the frame."""
    height, width = size
    through = np.array([rng.uniform(0.25, 0.75) * width, rng.uniform(0.25, 0.75) * height])
    angle = rng.uniform(0, 2 * np.pi)
    reach = np.hypot(height, width) / 2 + margin + max(size) / 2
    forward = np.array([np.cos(angle), np.sin(angle)])
    right = np.array([-forward[1], forward[0]])
    along = np.linspace(-1, 1, 200)
    sideways = bend * max(size) * (rng.normal(0, 0.5) * along**2 + rng.normal(0, 0.4) * (along**3 - along))
    return Path(through + reach * along[:, None] * forward + sideways[:, None] * right)


class Traffic:
    """Draws the movers of a clip kind by kind; numbers the tracks from 1."""

    def __init__(self, settings: ObjectSettings, duration: int, grain: float, rng: np.random.Generator) -> None:
        self.settings, self.duration, self.grain, self.rng = settings, duration, grain, rng
        self.movers: list[Mover] = []

    def vehicles(self, roads: list[tuple[Path, float]]) -> None:
        """Cars and lorries in both lanes; each lane has one speed, so that vehicles do not overlap."""
        lanes = [(road, width, backward) for road, width in roads for backward in (False, True)]
        speeds = [draw(self.settings.speed, self.rng) for _ in lanes]
        taken: list[list[float]] = [[] for _ in lanes]
        for _ in range(self.settings.vehicles):
            length = draw(self.settings.vehicle_length, self.rng)
            for _ in range(8):  # the lane is full
                lane = int(self.rng.integers(len(lanes)))
                road, width, backward = lanes[lane]
                start = self._start(road, speeds[lane], backward)
                if all(abs(start - other) > 1.4 * self.settings.vehicle_length[1] + 2 for other in taken[lane]):
                    taken[lane].append(start)
                    broad = min(0.45 * length, 0.42 * width)
                    part = self._part(sprites.vehicle, length, broad)
                    self._add("car", road, start, speeds[lane], [part], aside=width / 4, backward=backward)
                    break

    def trains(self, railways: list[Path]) -> None:
        """Add a train of three to five wagons to every railway."""
        for railway in railways:
            length, width = self.rng.uniform(9, 13), 3.2
            paint = sprites.PAINTS[self.rng.integers(len(sprites.PAINTS))]
            parts = []
            for index in range(int(self.rng.integers(3, 6))):
                picture = sprites.wagon(length * self.grain, width * self.grain, paint)
                parts.append(Part(picture, self.grain * sprites.GRAIN, lag=index * (length + 0.8)))
            backward = bool(self.rng.random() < 0.5)
            speed = draw(self.settings.speed, self.rng) / 2
            self._add("train", railway, self._start(railway, speed, backward), speed, parts, backward=backward)

    def ships(self, lanes: list[Path]) -> None:
        """Add a ship with a wake to every lane."""
        for lane in lanes:
            length = self.rng.uniform(10, 30)
            speed = draw(self.settings.speed, self.rng) / 2
            part = self._part(sprites.ship, length, length * self.rng.uniform(0.2, 0.3))
            self._add("ship", lane, self._start(lane, speed, False), speed, [part], wake=True)

    def planes(self, routes: list[Path]) -> None:
        """Add a plane above the ground to every route."""
        for route in routes:
            length = self.rng.uniform(14, 28)
            speed = draw(self.settings.speed, self.rng) * 2
            part = self._part(sprites.plane, length, length * 0.95)
            self._add("plane", route, self._start(route, speed, False), speed, [part], height=self.rng.uniform(6, 20))

    def _part(self, picture, length: float, width: float) -> Part:
        return Part(picture(length * self.grain, width * self.grain, self.rng), self.grain * sprites.GRAIN)

    def _start(self, path: Path, speed: float, backward: bool) -> float:
        """A start that puts the mover in the middle section of its path at the middle of the clip."""
        middle = self.rng.uniform(0.3, 0.7) * path.length[-1]
        return middle - (-1 if backward else 1) * speed * self.duration / 2

    def _add(self, label: str, path: Path, start: float, speed: float, parts: list[Part], **options) -> None:
        self.movers.append(Mover(len(self.movers) + 1, label, path, start, speed, parts, **options))
