"""Moving objects from above: small pictures with transparency, drawn once per clip.

A sprite is (h, w, 4) float32, RGB times alpha, then alpha, in [0, 1]; heading right, with `GRAIN` sprite
pixels per canvas pixel. Sprites are drawn four times as large and averaged, for smooth edges.
"""

from __future__ import annotations

import cv2
import numpy as np

GRAIN = 2  # sprite pixels per canvas pixel
FINE = 4  # supersampling of drawn shapes

PAINTS = np.array(  # of cars: white, silver, grey, black, red, blue, yellow
    [
        [0.95] * 3,
        [0.75, 0.76, 0.78],
        [0.45, 0.46, 0.48],
        [0.1, 0.1, 0.12],
        [0.6, 0.12, 0.1],
        [0.15, 0.25, 0.5],
        [0.85, 0.7, 0.15],
    ]
)

Shape = tuple[np.ndarray, np.ndarray]  # corners as shares of length and width in [-0.5, 0.5], and a colour


def vehicle(length: float, width: float, rng: np.random.Generator) -> np.ndarray:
    """A car, or a lorry when it is long: body, dark windscreens or a load of another colour. Sizes in canvas pixels."""
    paint = PAINTS[rng.integers(len(PAINTS))]
    if rng.random() < 0.25:
        load = PAINTS[rng.integers(len(PAINTS))]
        return _sprite(length, width, [(box(-0.5, 0.28, -0.5, 0.5), load), (box(0.32, 0.5, -0.45, 0.45), paint)])
    glass = np.array([0.08, 0.1, 0.13])
    return _sprite(
        length,
        width,
        [
            (box(-0.5, 0.5, -0.5, 0.5), paint),
            (box(0.12, 0.26, -0.4, 0.4), glass),
            (box(-0.36, -0.26, -0.4, 0.4), glass),
        ],
    )


def ship(length: float, width: float, rng: np.random.Generator) -> np.ndarray:
    """A hull with a pointed bow, a deck, a bridge at the stern."""
    hull = np.array([[-0.5, -0.4], [-0.4, -0.5], [0.2, -0.5], [0.5, 0], [0.2, 0.5], [-0.4, 0.5], [-0.5, 0.4]])
    deck = np.array([[0.55, 0.25, 0.2], [0.35, 0.4, 0.38], [0.7, 0.7, 0.68]])[rng.integers(3)]
    shapes: list[Shape] = [
        (hull, np.full(3, 0.85)),
        (hull * 0.85, deck),
        (box(-0.42, -0.28, -0.35, 0.35), np.full(3, 0.97)),
    ]
    for start in np.arange(-0.2, 0.2, 0.14):
        shapes.append((box(start, start + 0.09, -0.28, 0.28), PAINTS[rng.integers(len(PAINTS))]))
    return _sprite(length, width, shapes)


def plane(length: float, width: float, rng: np.random.Generator) -> np.ndarray:
    """Fuselage, swept wings and tail; `width` is the span."""
    paint = np.full(3, rng.uniform(0.85, 1.0))
    wing = np.array([[0.12, 0], [-0.12, -0.5], [-0.2, -0.5], [-0.08, 0]])
    tail = wing * [0.5, 0.36] - [0.4, 0]
    half = 3.2 / 2 / max(width, 8)
    body = np.array([[-0.5, 0], [-0.35, -half], [0.38, -half], [0.5, 0], [0.38, half], [-0.35, half]])
    halves = [wing, tail, wing * [1, -1], tail * [1, -1]]
    return _sprite(length, width, [*((shape, paint * 0.93) for shape in halves), (body, paint)])


def wagon(length: float, width: float, paint: np.ndarray) -> np.ndarray:
    """A railway carriage: a roof with a lighter ridge."""
    ridge = np.clip(paint + 0.2, 0, 1)
    return _sprite(length, width, [(box(-0.48, 0.48, -0.5, 0.5), paint), (box(-0.42, 0.42, -0.15, 0.15), ridge)])


def roof(length: float, width: float, rng: np.random.Generator) -> np.ndarray:
    """A flat roof: a parapet, machines and their shadows."""
    base = np.clip(rng.uniform(0.35, 0.85) + rng.normal(0, 0.04, 3), 0.05, 1)
    shapes: list[Shape] = [
        (box(-0.5, 0.5, -0.5, 0.5), np.clip(base * 1.15, 0, 1)),
        (box(-0.46, 0.46, -0.44, 0.44), base),
    ]
    for _ in range(rng.integers(2, 7)):
        x, y = rng.uniform(-0.36, 0.3, 2)
        size = rng.uniform(0.05, 0.16, 2)
        shapes.append((box(x + 0.03, x + 0.03 + size[0], y + 0.03, y + 0.03 + size[1]), base * 0.4))
        shapes.append((box(x, x + size[0], y, y + size[1]), np.clip(base + rng.uniform(-0.2, 0.3), 0, 1)))
    return _sprite(length, width, shapes)


def box(left: float, right: float, top: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _sprite(length: float, width: float, shapes: list[Shape]) -> np.ndarray:
    """Paint the shapes in order, with a transparent border of two sprite pixels."""
    border = 2
    columns, rows = (int(np.ceil(side * GRAIN)) + 2 * border for side in (length, width))
    large = np.zeros((rows * FINE, columns * FINE, 4), np.float32)
    middle = np.array([columns, rows]) * FINE / 2 - 0.5
    for corners, colour in shapes:
        points = corners * np.array([length, width]) * GRAIN * FINE + middle
        cv2.fillPoly(large, [np.rint(points).astype(np.int32)], (*np.clip(colour, 0, 1).tolist(), 1.0))
    return cv2.resize(large, (columns, rows), interpolation=cv2.INTER_AREA)
