"""One simulated clip: ground and moving objects, rendered at any time, with true motion.

From bottom to top: the ground (world.py), cars, trains and ships, buildings that lean with the viewing angle, planes,
the shadows of clouds, clouds; then the sensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
import psutil

from data.simulate import sensor, world
from data.simulate.motion import Field, Platform, draw
from data.simulate.objects import Part, Traffic, crossing, outline
from data.simulate.paint import fill, paste
from data.simulate.settings import SimulatorSettings
from data.simulate.sky import Sky
from data.simulate.sprites import GRAIN
from errors import InputError

SPLITS = ("train", "test")
SHADOW = np.array([0, 0, 0, 0.4], np.float32)  # factor on a sprite (RGBA): black with an opacity of 0.4

Pose = tuple[np.ndarray, float]  # centre (x, y) in the frame, heading in radians


class SceneView(NamedTuple):
    """A scene at one time, before the sensor; arrays on the fine grid of `grain` pixels per ground-truth pixel."""

    light: np.ndarray  # (h, w, 3) float32 in [0, 1]
    owner: np.ndarray  # (h, w) int16: index of the visible moving part + 1, or 0
    height: np.ndarray  # (h, w) float32: height of the visible building, or 0
    cloud: np.ndarray  # (h, w) float32: opacity of the cloud in front


@dataclass
class TrueBox:
    """A moving object in a frame. x, y: top left corner in pixels (0 is the frame's edge); visible: visible share of its area."""

    track: int
    x: float
    y: float
    w: float
    h: float
    label: str
    visible: float


def check_memory(settings: SimulatorSettings, margin: int) -> None:
    """Raise `InputError` if the canvas and the frames of a clip exceed the memory of the machine.

    margin: of the canvas, ground-truth pixels; it grows with the motion over all frames.
    """
    height, width = settings.size
    canvas = (height + 2 * margin) * (width + 2 * margin) * world.REFINED**2 * 12  # RGB, float32
    frames = settings.frames * height * width * 3 * settings.sensor.bits // 8
    if canvas + frames > psutil.virtual_memory().total:
        raise InputError(
            f"a simulated clip of {settings.frames} frames of {width}x{height} pixels needs {(canvas + frames) / 2**30:,.0f} GiB of "
            "memory: lower size, frames or motion.drift in 'simulate'"
        )


class Scene:
    """Clip `index` of a split: a function of (settings, seed, split, index) and the region of the still."""

    def __init__(self, region: np.ndarray, settings: SimulatorSettings, split: str, index: int) -> None:
        """region: the split's part of a still, (h, w, 3) float32 in [0, 1]."""
        self.settings, self.key = settings, [settings.seed, SPLITS.index(split), index]
        rng = np.random.default_rng(self.key)
        wanted, size = settings.objects, settings.size
        self.grain = int(np.clip(round(settings.ground[0]), 1, 2))
        self.platform = Platform(settings.motion, size, settings.frames, rng)
        tilt = rng.uniform(0, 2 * np.pi, 2)
        self.lean = wanted.lean * np.array([np.cos(tilt[0]), np.sin(tilt[0])])
        self.lean_change = wanted.lean_change * np.array([np.cos(tilt[1]), np.sin(tilt[1])])
        margin = int(np.ceil(self.platform.reach)) + 2
        check_memory(settings, margin)
        self.canvas = world.Canvas(size, margin, self.grain)
        world.spread(self.canvas, region, settings, rng)
        lanes = world.water(self.canvas, wanted.ships, rng) if wanted.ships else []
        railways = world.railways(self.canvas, wanted.trains, rng)
        streets = world.roads(self.canvas, wanted.roads, rng)
        lines = railways + [road for road, _ in streets]
        self.buildings = world.buildings(self.canvas, wanted, lines, rng)
        self.canvas.refine(world.REFINED)
        traffic = Traffic(wanted, settings.frames, self.grain, rng)
        traffic.trains(railways)
        if wanted.vehicles:
            traffic.vehicles(streets)
        traffic.ships(lanes)
        traffic.planes([crossing(size, self.canvas.margin, rng, bend=0) for _ in range(wanted.planes)])
        self.movers = traffic.movers
        self.parts = [(mover, part) for mover in self.movers for part in mover.parts]
        self._known: dict[float, list[Pose]] = {}
        self.sky = Sky(settings.sky, rng)
        self.sigma = draw(settings.sensor.noise, rng)
        self.colour_sigma = draw(settings.sensor.colour_noise, rng)
        self.quality = round(draw(settings.sensor.jpeg, rng))

    # --- pictures -----------------------------------------------------------------------------------------------------

    def frame(self, time: float, view: SceneView | None = None) -> np.ndarray:
        """The frame recorded at `time` (a frame number, not necessarily an integer): (H, W, 3) uint8 or uint16."""
        light = (view or self.view(time)).light
        rng = np.random.default_rng([*self.key, 1 + round(time * 1000)])
        frame = sensor.expose(light, self.grain, self.sigma, self.colour_sigma, self.settings.sensor, rng)
        return sensor.compress(frame, self.quality) if self.quality else frame

    def view(self, time: float) -> SceneView:
        """The scene before the sensor at `time`, with the visible object of every pixel."""
        light = self._ground(time)
        view = SceneView(
            light, np.zeros(light.shape[:2], np.int16), *(np.zeros(light.shape[:2], np.float32) for _ in range(2))
        )
        poses = self._poses(time)
        for number, (mover, _) in enumerate(self.parts):
            if not mover.height:
                self._draw(view, number, *poses[number])
        for building in self.buildings:
            self._raise(view, building, time)
        for number, (mover, _) in enumerate(self.parts):
            if mover.height:
                self._draw(view, number, *poses[number])
        if self.sky.cover > 0:
            opacity, sun = self.sky.layers(self.settings.size, self.grain, time, self.platform)
            np.multiply(light, sun, out=light)
            light += (0.8 + 0.18 * opacity - light) * opacity  # thin cloud is greyer
            view = view._replace(cloud=opacity[..., 0])
        return view

    def tilt(self, time: float) -> np.ndarray:
        """Offset in the image from the foot to the top of an object of height 1, (2,)."""
        return self.lean + self.lean_change * (time - self.platform.middle)

    @cached_property
    def _grid(self) -> tuple[np.ndarray, np.ndarray, Field]:
        """Columns (1, w), rows (h, 1) of the fine grid in ground-truth pixels, and the distortion there; float32."""
        height, width = self.settings.size
        x = ((np.arange(width * self.grain) + 0.5) / self.grain - 0.5)[None]
        y = ((np.arange(height * self.grain) + 0.5) / self.grain - 0.5)[:, None]
        field = self.platform.distortion(x, y)
        return x.astype(np.float32), y.astype(np.float32), (field[0].astype(np.float32), field[1].astype(np.float32))

    def _ground(self, time: float) -> np.ndarray:
        x, y, field = self._grid
        shift_x, shift_y = self.platform.with_field(field, y, time)
        columns, rows = (self.canvas.place(place).astype(np.float32) for place in (x - shift_x, y - shift_y))
        picture = cv2.remap(self.canvas.picture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(picture, np.float32)

    def _draw(self, view: SceneView, number: int, centre: np.ndarray, heading: float) -> None:
        mover, part = self.parts[number]
        if mover.wake:
            self._foam(view, part, centre, heading)
        forward = np.array([np.cos(heading), np.sin(heading)])
        linear = np.stack([forward, [-forward[1], forward[0]]], axis=1) / GRAIN
        shade = world.SUN * max(mover.height, 0.7)
        paste(view.light, part.sprite * SHADOW, linear, self._fine(centre + shade))
        covered = paste(view.light, part.sprite, linear, self._fine(centre))
        if covered is not None:
            where, alpha = covered
            view.owner[where][alpha > 0.5] = number + 1
            view.height[where][alpha > 0.5] = 0

    def _foam(self, view: SceneView, part: Part, centre: np.ndarray, heading: float) -> None:
        """The wake: a bright triangle that fades behind the ship."""
        stern = part.sprite.shape[0], part.sprite.shape[1] * 2
        fade = np.linspace(0, 0.5, stern[1], dtype=np.float32)[None] ** 2
        spread = np.abs(np.linspace(-1, 1, stern[0], dtype=np.float32))[:, None]
        foam = fade * (spread < np.linspace(1, 0.4, stern[1], dtype=np.float32)[None])
        sprite = np.repeat((foam * 0.9)[..., None], 4, axis=2)
        sprite[..., 3] = foam
        forward = np.array([np.cos(heading), np.sin(heading)])
        linear = np.stack([forward, [-forward[1], forward[0]]], axis=1) / GRAIN
        paste(view.light, sprite, linear, self._fine(centre - forward * part.length * 1.2))

    def _raise(self, view: SceneView, building: world.Building, time: float) -> None:
        """Visible walls, then the roof, shifted by height times tilt."""
        foot = self._fine(self.platform.to_image(building.foot, time))
        rise = building.height * self.tilt(time) * self.grain
        for first, second in ((0, 1), (1, 2), (2, 3), (3, 0)):
            a, b = foot[first], foot[second]
            outward = np.array([(b - a)[1], -(b - a)[0]])
            if outward @ rise >= 0:
                continue
            lit = 0.55 + 0.45 * max(float(outward @ -world.SUN) / (np.hypot(*outward) * np.hypot(*world.SUN)), 0)
            wall = fill(view.light, np.stack([a, b, b + rise, a + rise]), building.wall * lit)
            if wall is not None:
                where, alpha = wall
                rows, columns = np.mgrid[where].astype(np.float32)
                up = ((columns - a[0]) * outward[0] + (rows - a[1]) * outward[1]) / (outward @ rise)
                view.height[where][alpha > 0.5] = (np.clip(up, 0, 1) * building.height)[alpha > 0.5]
                view.owner[where][alpha > 0.5] = 0
        top = foot + rise
        linear = np.stack([top[1] - top[0], top[3] - top[0]], axis=1)
        inner = np.array([building.roof.shape[1] - 4, building.roof.shape[0] - 4])
        covered = paste(view.light, building.roof, linear / inner, top.mean(axis=0))
        if covered is not None:
            where, alpha = covered
            view.height[where][alpha > 0.5] = building.height
            view.owner[where][alpha > 0.5] = 0

    def _poses(self, time: float) -> list[Pose]:
        """Centre (x, y) in the frame and heading of every part at `time`; the latest times are cached."""
        if time not in self._known and self.parts:
            places = [mover.place(part, time) for mover, part in self.parts]
            centres = self.platform.to_image(np.array([ground for ground, _ in places]), time)
            lifted = centres + np.array([[mover.height] for mover, _ in self.parts]) * self.tilt(time)
            while len(self._known) > 3:
                self._known.pop(next(iter(self._known)))
            self._known[time] = [(centre, heading) for centre, (_, heading) in zip(lifted, places, strict=True)]
        return self._known.get(time, [])

    def _fine(self, points: np.ndarray) -> np.ndarray:
        return (points + 0.5) * self.grain - 0.5

    # --- truth --------------------------------------------------------------------------------------------------------

    def boxes(self, time: float, view: SceneView | None = None) -> list[TrueBox]:
        """Boxes of moving objects of which at least a third is visible, cropped to the frame."""
        view = view or self.view(time)
        poses = self._poses(time)
        seen = np.bincount(view.owner[view.cloud < 0.5], minlength=len(self.parts) + 1)[1:] / self.grain**2
        height, width = self.settings.size
        found = []
        for mover in self.movers:
            numbers = [number for number, (owner, _) in enumerate(self.parts) if owner is mover]
            edge = np.concatenate([outline(self.parts[number][1], *poses[number]) for number in numbers]) + 0.5
            total = sum(float(part.sprite[..., 3].sum()) for part in mover.parts) / (GRAIN * self.grain) ** 2
            visible = min(float(seen[numbers].sum()) / max(total, 1e-6), 1.0)
            left, top = np.clip(edge.min(axis=0), 0, [width, height]).tolist()
            right, bottom = np.clip(edge.max(axis=0), 0, [width, height]).tolist()
            if visible >= 1 / 3 and min(right - left, bottom - top) > 0:
                found.append(TrueBox(mover.track, left, top, right - left, bottom - top, mover.label, visible))
        return found

    def flow(self, start: float, end: float, view: SceneView | None = None) -> np.ndarray:
        """True motion (H, W, 2) float32: the content of pixel (x, y) at `start` is at (x, y) + flow at `end`.

        Exact for ground, walls, roofs, moving objects, and clouds that hide more than half; content that is hidden at
        `end` keeps its motion. Shadows move with the surface they fall on.
        view: the view at `start`, to save rendering it again.
        """
        view = view or self.view(start)
        height, width = self.settings.size
        picks = np.s_[self.grain // 2 :: self.grain]
        owner, tall, cloud = (layer[picks, picks] for layer in (view.owner, view.height, view.cloud))
        image = np.stack(np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)), axis=-1)
        ground = self.platform.to_ground(image - tall[..., None] * self.tilt(start), start)
        flow = self.platform.to_image(ground, end) + tall[..., None] * self.tilt(end) - image
        moved = zip(self._poses(start), self._poses(end), strict=True)
        for number, ((before, heading), (after, turned)) in enumerate(moved):
            rows, columns = np.nonzero(owner == number + 1)
            if len(rows):
                cos, sin = np.cos(turned - heading), np.sin(turned - heading)
                around = image[rows, columns] - before
                flow[rows, columns] = around @ np.array([[cos, sin], [-sin, cos]]) + after - image[rows, columns]
        hidden = cloud > 0.5
        if hidden.any():
            carried = self.platform.to_ground(image[hidden], start) + self.sky.wind * (end - start)
            flow[hidden] = self.platform.to_image(carried, end) - image[hidden]
        return flow.astype(np.float32)
