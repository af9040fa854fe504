"""Pictures of the page: crops, amplified differences, and embedding."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image
from torch import Tensor

from data.media import read_image, to_tensor, to_uint8
from errors import InputError
from metrics import PSNR_CEILING, planes

SHOWN = ("bicubic", "ours", "gt")
STAGE_PIXELS = 720_000  # of one comparison; all comparisons of a page share twice as many
STAGE_BYTES = 2_800_000  # for all comparisons of a page, before base64 adds a third
CROP = 96  # pixels a side; of small frames half their shorter side
FACTORS = (1, 2, 4, 8, 16, 32)  # maximum amplification of differences
QUALITIES = (92, 82, 65, 40, 15)  # tried in order until a picture fits its share of the page

Array = np.ndarray[Any, np.dtype[Any]]


class Rectangle(NamedTuple):
    """A rectangle of a frame, in its pixels."""

    x: int
    y: int
    width: int
    height: int

    def of(self, picture: Array) -> Array:
        return picture[self.y : self.y + self.height, self.x : self.x + self.width]


@dataclass
class Comparison:
    """Versions of one frame, (H, W, 3) uint8, `bicubic` first and `gt` last, with the amplified differences to `gt`.

    Keys are those of the page's markup: plain words. `slices`: row number `row` of every frame over time, with the same
    keys.
    """

    clip: str
    frame: str
    pictures: dict[str, Array]
    boxes: list[Mapping[str, Any]]
    slices: dict[str, Array] = field(default_factory=dict)
    row: int | None = None

    def __post_init__(self) -> None:
        self.shown = list(self.pictures)
        self.methods = [name for name in self.pictures if name != "gt"]
        self.luma = {name: planes(to_tensor(picture))[0].numpy() for name, picture in self.pictures.items()}
        self.errors = {name: np.abs(self.luma[name] - self.luma["gt"]) for name in self.methods}
        self.factor = amplification(self.errors["bicubic"])
        for name, error in self.errors.items():
            amplified = np.minimum(error * self.factor, 255).round().astype(np.uint8)
            self.pictures[f"{name}_difference"] = np.repeat(amplified[..., None], 3, axis=-1)

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.pictures["gt"].shape[:2]
        return height, width

    def tensor(self, name: str) -> Tensor:
        return to_tensor(self.pictures[name])

    def psnr(self, name: str, place: Rectangle) -> float:
        """PSNR Y of a method within a place."""
        error = float(np.square(place.of(self.errors[name])).mean())
        return min(PSNR_CEILING, 10 * float(np.log10(255**2 / error))) if error else PSNR_CEILING


def load(entry: Mapping[str, Any], folder: Path) -> Comparison:
    """One entry of the report's `pictures`. Raises `InputError` for files that are missing or differ in size."""
    files = entry["files"] if "files" in entry else {name: entry[name] for name in SHOWN}
    keys = dict(zip(files, page_keys(files), strict=True))
    pictures = {keys[name]: _picture(folder / str(path)) for name, path in files.items()}
    sizes = {picture.shape for picture in pictures.values()}
    if len(sizes) > 1:
        raise InputError(f"pictures of clip '{entry.get('clip')}' differ in size: {sorted(sizes)}")
    slices = {keys[name]: _picture(folder / str(path)) for name, path in (entry.get("slices") or {}).items()}
    boxes = list(entry.get("boxes") or [])
    return Comparison(
        str(entry.get("clip", "")), str(entry.get("frame", "")), pictures, boxes, slices, entry.get("row")
    )


def page_keys(names: Iterable[str]) -> list[str]:
    """Identifiers of pictures in the page's markup and address, because method names may contain any character."""
    return [name if name in SHOWN else f"method{number}" for number, name in enumerate(names)]


def _picture(path: Path) -> Array:
    return to_uint8(to_tensor(read_image(path)))


def amplification(error: Array) -> int:
    """The largest factor that leaves 99.5 % of the baseline's differences below white."""
    height = max(float(np.quantile(error, 0.995)), 1e-6)
    return max((factor for factor in FACTORS if factor * height <= 255), default=FACTORS[0])


def stage(comparison: Comparison, shown: int) -> Rectangle:
    """The part of the frame for the slider: all of it, or the part around the objects or with most detail."""
    height, width = comparison.size
    budget = min(STAGE_PIXELS, 2 * STAGE_PIXELS // shown)
    if height * width <= budget:
        return Rectangle(0, 0, width, height)
    wide = min(width, max(1, int((budget * 1.5) ** 0.5)))
    tall = min(height, budget // wide)
    if comparison.boxes:
        x = np.mean([box["x"] + box["w"] / 2 for box in comparison.boxes])
        y = np.mean([box["y"] + box["h"] / 2 for box in comparison.boxes])
        return around(float(x), float(y), wide, tall, comparison.size)
    return max(windows(comparison.size, (tall, wide)), key=window_sums(detail(comparison.luma["gt"])))


def chosen_crops(comparison: Comparison) -> dict[str, Rectangle]:
    """Three crops, by rule: most detail; largest gain and largest loss of one method, or largest difference of several."""
    side = min(CROP, max(min(comparison.size) // 2, min(16, *comparison.size)))
    candidates = list(windows(comparison.size, (side, side)))
    rules = {"most detail": detail(comparison.luma["gt"]), **_contrasts(comparison, candidates)}
    chosen: dict[str, Rectangle] = {}
    for name, score in rules.items():
        free = [place for place in candidates if not any(overlap(place, other) for other in chosen.values())]
        if free:
            chosen[name] = max(free, key=window_sums(score))
    return chosen


def _contrasts(comparison: Comparison, candidates: Sequence[Rectangle]) -> dict[str, Array]:
    """Titles and scores of the places where methods differ in quality."""
    squares = [np.square(comparison.errors[name]) for name in comparison.methods]
    if len(squares) > 2:
        return {
            "methods differ most": np.max(squares, axis=0) - np.min(squares, axis=0),
            "largest error of all methods": np.min(squares, axis=0),
        }
    gained = squares[0] - squares[-1]
    lost = max(map(window_sums(-gained), candidates)) > 0
    title = "largest loss" if lost else "largest error of ours"
    return {"largest gain": gained, title: -gained if lost else squares[-1]}


def around(x: float, y: float, width: int, height: int, size: tuple[int, int]) -> Rectangle:
    """A place with its centre at (x, y), shifted to be inside the frame."""
    width, height = min(width, size[1]), min(height, size[0])
    left, top = round(x - width / 2), round(y - height / 2)
    return Rectangle(min(max(left, 0), size[1] - width), min(max(top, 0), size[0] - height), width, height)


def windows(size: tuple[int, int], window: tuple[int, int]) -> Iterator[Rectangle]:
    """All windows of one size, a third of a window apart."""
    rows, columns = (_starts(length, part) for length, part in zip(size, window, strict=True))
    return (Rectangle(x, y, window[1], window[0]) for y in rows for x in columns)


def _starts(length: int, part: int) -> Sequence[int]:
    return sorted({*range(0, length - part + 1, max(1, part // 3)), length - part})


def window_sums(score: Array) -> Any:
    """A function of a place: the sum of `score` within it, from an integral image."""
    integral = cv2.integral(score.astype(np.float64))

    def total(place: Rectangle) -> float:
        x, y, width, height = place
        corners = integral[y + height, x + width] - integral[y, x + width] - integral[y + height, x] + integral[y, x]
        return float(corners)

    return total


def detail(luma: Array) -> Array:
    across, down = np.abs(np.diff(luma, axis=1, prepend=luma[:, :1])), np.abs(np.diff(luma, axis=0, prepend=luma[:1]))
    return np.asarray(across + down)


def overlap(a: Rectangle, b: Rectangle) -> bool:
    return a.x < b.x + b.width and b.x < a.x + a.width and a.y < b.y + b.height and b.y < a.y + a.height


def embedded(picture: Array, limit: int | None = None) -> str:
    """A data URI. Without a limit lossless; with one, WebP of the best quality that stays below so many bytes."""
    if limit is None:
        return _uri(_webp(picture, lossless=True))
    content = b""
    for quality in QUALITIES:
        content = _webp(picture, quality=quality)
        if len(content) <= limit:
            break
    return _uri(content)


def _webp(picture: Array, **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(content, "WEBP", method=0, **options)
    return content.getvalue()


def _uri(content: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(content).decode("ascii")
