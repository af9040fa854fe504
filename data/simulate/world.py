"""The ground of a clip: a rotated and scaled crop of a still, with water, roads, railways and shadows of buildings.

It is painted once per clip onto a canvas of `grain` pixels per ground-truth pixel, `margin` ground-truth pixels larger
than the frame on every side. A frame is one remapping of the canvas.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data.simulate import sprites
from data.simulate.motion import draw
from data.simulate.objects import Path, crossing
from data.simulate.settings import ObjectSettings, SimulatorSettings

REFINED = 4  # pixels of the finished canvas per ground-truth pixel; a power of 2
SUN = np.array([0.55, -0.4])  # tip of the shadow of an object of height 1


@dataclass
class Building:
    """A block with a flat roof; its side walls become visible as it leans with the viewing angle."""

    foot: np.ndarray  # (4, 2) corners on the ground, in order around the roof's picture
    height: float
    roof: np.ndarray  # sprite
    wall: np.ndarray  # RGB of the walls in full light


class Canvas:
    """A picture of the ground, (h, w, 3) float32 in [0, 1]."""

    def __init__(self, size: tuple[int, int], margin: int, grain: int) -> None:
        self.size, self.margin, self.grain = size, margin, grain
        height, width = ((side + 2 * margin) * grain for side in size)
        self.picture = np.zeros((height, width, 3), np.float32)
        self.wet = np.zeros((height, width), bool)

    def place(self, points: np.ndarray) -> np.ndarray:
        """Ground points -> canvas pixels."""
        return (np.asarray(points) + self.margin + 0.5) * self.grain - 0.5

    def mask(self, *polygons: np.ndarray) -> np.ndarray:
        """Coverage of polygons of ground points, (h, w) float32 in [0, 1]."""
        mask = np.zeros(self.picture.shape[:2], np.uint8)
        for polygon in polygons:
            cv2.fillPoly(mask, [_fixed(self.place(polygon))], 255, cv2.LINE_AA, shift=6)
        return mask.astype(np.float32) / 255

    def band(self, width: float, *paths: np.ndarray) -> np.ndarray:
        """Coverage of lines of `width` ground-truth pixels along ground points."""
        sides = [_normals(path) * width / 2 for path in paths]
        bands = [np.concatenate([path + right, (path - right)[::-1]]) for path, right in zip(paths, sides, strict=True)]
        return self.mask(*bands)

    def refine(self, grain: int) -> None:
        """Enlarge the painted picture to `grain` pixels per ground-truth pixel.

        Frames are sampled from it by linear interpolation, which neither blurs nor shifts on such a fine grid. (OpenCV's
        cubic, a = -0.75, shifts all frequencies by up to 0.05 pixels.)
        """
        while self.grain < grain:
            self.picture, self.grain = doubled(self.picture), 2 * self.grain
        np.clip(self.picture, 0, 1, out=self.picture)

    def paint(self, colour: np.ndarray, coverage: np.ndarray) -> None:
        """Blend `colour` (RGB or a picture of the canvas' size) into the canvas by `coverage`."""
        rows, columns = np.nonzero(coverage.any(axis=1))[0], np.nonzero(coverage.any(axis=0))[0]
        if len(rows) == 0:
            return
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        colour = colour[part] if np.ndim(colour) == 3 else np.asarray(colour, np.float32)
        self.picture[part] += (colour - self.picture[part]) * coverage[part][..., None]


def spread(canvas: Canvas, region: np.ndarray, settings: SimulatorSettings, rng: np.random.Generator) -> None:
    """Paint a random window of the region of a still (H, W, 3), float32 in [0, 1], onto the canvas.

    The scale is drawn from `ground`, again up to 12 times until the window fits into the region. If it never fits, the
    window is mirrored at the region's border, so that no pixel comes from outside.
    """
    corners = canvas.picture.shape[1] / canvas.grain, canvas.picture.shape[0] / canvas.grain
    for _ in range(12):
        ground = draw(settings.ground, rng)
        angle = rng.uniform(0, 2 * np.pi) if settings.turn else 0.0
        cos, sin = np.cos(angle), np.sin(angle)
        across = ground * (abs(cos) * corners[0] + abs(sin) * corners[1])
        down = ground * (abs(sin) * corners[0] + abs(cos) * corners[1])
        if across <= region.shape[1] and down <= region.shape[0]:
            break
    free = np.maximum([region.shape[1] - across, region.shape[0] - down], 0)
    centre = (np.array([region.shape[1], region.shape[0]]) + free * rng.uniform(-1, 1, 2)) / 2 - 0.5
    mirror = -1 if settings.turn and rng.random() < 0.5 else 1
    step = ground / canvas.grain  # still pixels per canvas pixel
    if step > 1:  # average first: sampling would alias
        shrunk = tuple(max(1, round(side / step)) for side in (region.shape[1], region.shape[0]))
        ratio = np.array(shrunk) / [region.shape[1], region.shape[0]]
        region = cv2.resize(region, shrunk, interpolation=cv2.INTER_AREA)
        centre, step = (centre + 0.5) * ratio - 0.5, 1.0
    linear = step * np.array([[cos * mirror, -sin], [sin * mirror, cos]])
    middle = (np.array([canvas.picture.shape[1], canvas.picture.shape[0]]) - 1) / 2
    matrix = np.concatenate([linear, (centre - linear @ middle)[:, None]], axis=1)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    size = canvas.picture.shape[1::-1]
    window = cv2.warpAffine(region, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    if settings.contrast != (1, 1):
        mean = window.mean(axis=(0, 1))
        window = mean + draw(settings.contrast, rng) * (window - mean)
    canvas.picture[:] = np.clip(window, 0, 1)


def water(canvas: Canvas, count: int, rng: np.random.Generator) -> list[Path]:
    """Flood one side of a winding coast; returns `count` straight lanes on the water."""
    height, width = canvas.size
    angle = rng.uniform(0, 2 * np.pi)
    outward, along = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    far = np.hypot(height, width) / 2 + 2 * canvas.margin
    s = np.linspace(-far, far, 300)
    winding = sum(
        rng.normal(0, 1) * 0.02 * far / k * np.sin(2 * np.pi * k * s / far + rng.uniform(0, 6.28))
        for k in (1, 2, 3, 5, 8)
    )
    middle = np.array([width - 1, height - 1]) / 2
    coast = middle + s[:, None] * along + (winding - 0.05 * far)[:, None] * outward
    polygon = np.concatenate([coast, coast[::-1] + 3 * far * outward])
    tone = np.array([0.1, 0.2, 0.27]) * rng.uniform(0.7, 1.4)
    ripples = fractal(canvas.picture.shape[:2], 0.9, rng) * 0.012
    canvas.paint(np.full(3, 0.75), canvas.band(2.0, coast))
    flooded = canvas.mask(polygon)
    canvas.paint((tone + ripples[..., None]).astype(np.float32), flooded)
    canvas.wet |= flooded > 0.5
    lanes = []
    for index in range(count):
        distance = far * (0.1 + 0.42 * (index + rng.uniform(0.2, 0.8)) / count)
        ends = np.array([-0.8, 0.8]) * far * (1 if rng.random() < 0.5 else -1)
        lanes.append(Path(middle + ends[:, None] * along + distance * outward))
    return lanes


def roads(canvas: Canvas, count: int, rng: np.random.Generator) -> list[tuple[Path, float]]:
    """Asphalt with worn texture, light kerbs and a broken line in the middle; returns paths and widths."""
    found = []
    for _ in range(count):
        path, width = crossing(canvas.size, canvas.margin, rng), rng.uniform(7.0, 12.0)
        tone = rng.uniform(0.25, 0.5) + rng.normal(0, 0.01, 3)
        wear = fractal(canvas.picture.shape[:2], 0.6, rng) * 0.025
        canvas.paint(tone * 0.4 + 0.5, canvas.band(width + 1.2, path.points))
        canvas.paint((tone + wear[..., None]).astype(np.float32), canvas.band(width, path.points))
        starts = np.arange(0, path.length[-1], 9.0)
        dashes = [np.stack([path.at(start + step)[0] for step in (0.0, 2.0, 4.0)]) for start in starts]
        canvas.paint(np.full(3, 0.88), canvas.band(0.5, *(dash for dash in dashes if _inside(dash, canvas))))
        found.append((path, width))
    return found


def railways(canvas: Canvas, count: int, rng: np.random.Generator) -> list[Path]:
    """Ballast with two rails; returns the paths."""
    found = []
    for _ in range(count):
        path = crossing(canvas.size, canvas.margin, rng, bend=0.12)
        canvas.paint(np.array([0.42, 0.38, 0.35]), canvas.band(4.6, path.points))
        gauge = 0.9 * _normals(path.points)
        canvas.paint(np.full(3, 0.68), canvas.band(0.35, path.points + gauge, path.points - gauge))
        found.append(path)
    return found


def buildings(canvas: Canvas, settings: ObjectSettings, lines: list[Path], rng: np.random.Generator) -> list[Building]:
    """Place buildings that do not touch each other, roads or railways; paint their shadows."""
    height, width = canvas.size
    found: list[Building] = []
    centres: list[tuple[np.ndarray, float]] = []
    for _ in range(20 * settings.buildings):
        if len(found) == settings.buildings:
            break
        sides = rng.uniform(8, 30, 2)
        reach = float(np.hypot(*sides) / 2)
        centre = rng.uniform([0, 0], [width, height])
        if any(np.hypot(*(line.points - centre).T).min() < reach + 6 for line in lines):
            continue
        if any(np.hypot(*(centre - other)) < reach + radius + 3 for other, radius in centres):
            continue
        rows, columns = np.rint(canvas.place(centre + reach * sprites.box(-1, 1, -1, 1))).astype(int).T[::-1]
        if canvas.wet[rows.min() : rows.max(), columns.min() : columns.max()].any():
            continue
        centres.append((centre, reach))
        angle = rng.uniform(0, np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        foot = centre + (sprites.box(-0.5, 0.5, -0.5, 0.5) * sides) @ turn.T
        picture = sprites.roof(sides[0] * canvas.grain, sides[1] * canvas.grain, rng)
        found.append(Building(foot, draw(settings.height, rng), picture, np.full(3, rng.uniform(0.4, 0.75))))
    for building in found:
        hull = np.concatenate([building.foot, building.foot + building.height * SUN])
        shadow = cv2.convexHull(hull.astype(np.float32))[:, 0]
        canvas.paint(canvas.picture * 0.35, canvas.mask(shadow))
    return found


def doubled(picture: np.ndarray) -> np.ndarray:
    """(h, w, 3) float32 -> (2 h, 2 w, 3) by cubic convolution (a = -0.5), aligned by pixel areas."""
    before = np.array([-0.0234375, 0.2265625, 0.8671875, -0.0703125, 0])  # a quarter of a pixel up or to the left
    height, width = picture.shape[:2]
    large = np.empty((2 * height, 2 * width, picture.shape[2]), np.float32)
    for row, down in enumerate((before, before[::-1])):
        for column, across in enumerate((before, before[::-1])):
            part = cv2.sepFilter2D(picture, cv2.CV_32F, across, down, borderType=cv2.BORDER_REFLECT)
            large[row::2, column::2] = part
    return large


def _normals(path: np.ndarray) -> np.ndarray:
    """Unit vectors to the right of a line of points (n, 2)."""
    forward = np.gradient(path, axis=0)
    forward /= np.maximum(np.hypot(forward[:, 0], forward[:, 1]), 1e-9)[:, None]
    return np.stack([-forward[:, 1], forward[:, 0]], axis=1)


def _inside(points: np.ndarray, canvas: Canvas) -> bool:
    place = canvas.place(points)
    return bool((place > -8).all() and (place < np.array(canvas.picture.shape[1::-1]) + 8).all())


def _fixed(points: np.ndarray) -> np.ndarray:
    """Points as OpenCV's fixed-point numbers with 6 fractional bits."""
    return np.rint(points * 64).astype(np.int32)


def fractal(shape: tuple[int, int], smoothness: float, rng: np.random.Generator, largest: float = 256) -> np.ndarray:
    """Noise of deviation 1 whose amplitude falls with frequency as 1 / f ** smoothness; periodic after 256 pixels.

    largest: wavelength in pixels beyond which the amplitude is constant.
    """
    side = 256
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    spectrum = np.fft.rfft2(rng.standard_normal((side, side))) * np.maximum(frequency, 1 / largest) ** -smoothness
    spectrum[0, 0] = 0
    tile = np.fft.irfft2(spectrum, (side, side))
    repeats = [-(-length // side) for length in shape]
    return np.tile((tile / tile.std()).astype(np.float32), repeats)[: shape[0], : shape[1]]
