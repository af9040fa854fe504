"""Figures of crops for papers: one per place, bicubic | methods | ground truth, as PNG and as PDF with selectable text.

Needs the optional package matplotlib.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import metrics
from data.files import replacing
from data.layouts import Pair
from data.media import to_uint8
from engine.compare import slices
from engine.compare.measure import BICUBIC, ClipRows, MethodFrames, Settings
from engine.compare.results import ResultClip
from errors import InputError

INSTALL = "pip install matplotlib"
PANEL, LABEL = 1.5, 0.42  # inches: width of a panel, height of the text below it
COLUMNS = 5  # panels in a row
FORMATS = ("png", "pdf")

Array = np.ndarray[Any, np.dtype[Any]]


class Crop(NamedTuple):
    """A place in one frame of one clip, in pixels of the ground truth."""

    clip: str
    frame: int
    x: int
    y: int
    width: int
    height: int

    def of(self, picture: Array) -> Array:
        return picture[self.y : self.y + self.height, self.x : self.x + self.width]


def installed() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def require() -> None:
    """Raises InputError if matplotlib is missing."""
    if not installed():
        raise InputError(f"--crop draws figures with matplotlib, which is not installed: {INSTALL}")


def parse_crop(text: str, pairs: Sequence[Pair]) -> Crop:
    """`CLIP/FRAME:x,y,w,h`; the frame by its name or number. Raises InputError for an invalid description."""
    match = re.fullmatch(r"(.+)/([^/:]+):(\d+),(\d+),(\d+),(\d+)", text)
    if not match:
        raise InputError(f"--crop '{text}': expected CLIP/FRAME:x,y,w,h, such as city/00000010:120,80,96,64")
    name, frame = match[1], match[2]
    x, y, width, height = (int(number[:9]) for number in match.groups()[2:])
    pair = next((pair for pair in pairs if pair.name == name), None)
    if pair is None or pair.gt is None:
        known = ", ".join(pair.name for pair in pairs[:6]) + (", ..." if len(pairs) > 6 else "")
        raise InputError(f"--crop '{text}': no clip '{name}': expected one of {known}")
    index = frame_index(frame, list(pair.gt.frame_names))
    if index is None:
        names = pair.gt.frame_names
        raise InputError(f"--crop '{text}': clip '{name}' has no frame '{frame}', only {names[0]} to {names[-1]}")
    tall, wide = pair.gt.size
    if min(width, height) < 8 or x + width > wide or y + height > tall:
        raise InputError(f"--crop '{text}': expected at least 8x8 pixels within {wide}x{tall}")
    return Crop(name, index, x, y, width, height)


def check_crops(crops: Sequence[Crop], opened: Mapping[str, Mapping[str, ResultClip]]) -> None:
    """Raises InputError for a crop of a frame that a method lacks. opened: clip -> method -> its version."""
    for crop in crops:
        for method, result in opened[crop.clip].items():
            if result.gt is not None and crop.frame not in result.frames:
                frame = result.gt.frame_names[crop.frame]
                raise InputError(f"--crop: {method} has no frame '{frame}' of clip '{crop.clip}'")


def frame_index(frame: str, names: Sequence[str]) -> int | None:
    """A frame by its name; else by its number, if all names are numbers."""
    if frame in names:
        return list(names).index(frame)
    if frame.isdecimal() and all(name.isdecimal() for name in names):
        numbers = [int(name) for name in names]
        return numbers.index(int(frame)) if int(frame) in numbers else None
    return None


def most_disputed(clips: Sequence[ClipRows], count: int) -> list[Crop]:
    """The places where the methods' errors differ most, from different clips if there are enough."""
    ranked = []
    for clip in clips:
        places = sorted(clip.disputed, reverse=True)
        ranked += [(rank, -place.amount, clip.pair.name, place) for rank, place in enumerate(places)]
    chosen: list[Crop] = []
    for _, _, name, place in sorted(ranked):
        crop = Crop(name, place.frame, place.x, place.y, place.side, place.side)
        if len(chosen) < count and not any(_near(crop, other) for other in chosen):
            chosen.append(crop)
    return chosen


def _near(a: Crop, b: Crop) -> bool:
    return a.clip == b.clip and abs(a.x - b.x) < a.width and abs(a.y - b.y) < a.height


def draw_all(
    crops: Sequence[Crop],
    views: Mapping[str, MethodFrames],
    clips: Mapping[str, ClipRows],
    settings: Settings,
    out: Path,
    notes: list[str],
) -> list[dict[str, Any]]:
    """All figures of `crops`, written to OUT/figures; returns the report's entries."""
    if crops and not installed():
        notes.append(f"No figures were drawn: matplotlib is not installed ({INSTALL}).")
        return []
    entries = []
    for crop in crops:
        shown = views[crop.clip]
        methods = [BICUBIC, *shown.results]
        frame = shown.gt.frame_names[crop.frame]
        place = out / "figures" / crop.clip / f"{frame}_{crop.x}_{crop.y}_{crop.width}_{crop.height}"
        files = _draw_crop(crop, shown, methods, settings, place)
        times = clips[crop.clip].indices
        if len(times) >= 3:
            files += _draw_slices(crop, shown, methods, times, place.with_name(f"{place.name}_xt"))
        area = {"x": crop.x, "y": crop.y, "width": crop.width, "height": crop.height}
        entries.append({"clip": crop.clip, "frame": frame, **area, "files": [str(path) for path in files]})
    return entries


def _draw_crop(crop: Crop, shown: MethodFrames, methods: Sequence[str], settings: Settings, path: Path) -> list[Path]:
    gt = shown.gt.truth(crop.frame)
    area = (..., slice(crop.y, crop.y + crop.height), slice(crop.x, crop.x + crop.width))
    panels = []
    for name in methods:
        frame = shown.of(name, crop.frame)
        value = metrics.mean([metrics.psnr(frame[area], gt[area], settings.protocol).item()])
        panels.append((crop.of(to_uint8(frame)), f"{name}\n{value:.2f} dB"))
    panels.append((crop.of(to_uint8(gt)), "ground truth\nPSNR Y"))
    return _draw(panels, path, context=(to_uint8(gt), crop))


def _draw_slices(
    crop: Crop, shown: MethodFrames, methods: Sequence[str], times: Sequence[int], path: Path
) -> list[Path]:
    row, columns = crop.y + crop.height // 2, slice(crop.x, crop.x + crop.width)

    def read(name: str, index: int) -> Array:
        return to_uint8(shown.of(name, index))

    stretch = max(1, round(crop.width / (2 * min(len(times), slices.FRAMES))))
    panels = [
        (np.repeat(slices.over_time(read, name, times, row, columns), stretch, axis=0), label)
        for name, label in (*((name, name) for name in methods), ("gt", "ground truth"))
    ]
    return _draw(panels, path, title=f"row {row}, time downwards ({min(len(times), slices.FRAMES)} frames)")


def _draw(
    panels: Sequence[tuple[Array, str]], path: Path, context: tuple[Array, Crop] | None = None, title: str = ""
) -> list[Path]:
    """Panels in rows, with the full frame at the left if `context` is given; returns the written files."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(len(panels), COLUMNS)
    rows = -(-len(panels) // columns)
    height, width = panels[0][0].shape[:2]
    tall = rows * (PANEL * height / width + LABEL)
    left = min(tall * context[0].shape[1] / context[0].shape[0], 2.2 * PANEL * rows) if context else 0.0
    with matplotlib.rc_context({"pdf.fonttype": 42, "font.size": 8, "font.family": "sans-serif"}):
        figure = Figure(figsize=(left + columns * PANEL + 0.1, tall + (0.25 if title else 0)), dpi=200)
        FigureCanvasAgg(figure)
        widths = [left] * bool(context) + [PANEL] * columns
        grid = figure.add_gridspec(rows, len(widths), width_ratios=widths, wspace=0.06)
        if context:
            _draw_context(figure.add_subplot(grid[:, 0]), *context)
        for number, (picture, text) in enumerate(panels):
            axes = figure.add_subplot(grid[number // columns, number % columns + bool(context)])
            axes.imshow(picture, interpolation="none")
            _bare(axes, _literal(text))
            if title and not number:
                axes.set_title(title, loc="left", fontsize=8, pad=3)
        return [_saved(figure, path, kind) for kind in FORMATS]


def _draw_context(axes: Any, frame: Array, crop: Crop) -> None:
    """The full frame, with a box around the crop."""
    from matplotlib.patches import Rectangle

    axes.imshow(frame, interpolation="none")
    place = (crop.x - 0.5, crop.y - 0.5)
    axes.add_patch(Rectangle(place, crop.width, crop.height, fill=False, edgecolor="#ffd23f"))
    _bare(axes, _literal(f"{crop.clip}, {crop.width}x{crop.height} pixels"))


def _saved(figure: Any, path: Path, kind: str) -> Path:
    target = path.with_name(f"{path.name}.{kind}")
    with replacing(target) as temporary:
        figure.savefig(temporary, format=kind, bbox_inches="tight", pad_inches=0.03, metadata={})
    return target


def _literal(text: str) -> str:
    """Names as matplotlib accepts them: a dollar sign begins a formula, and bytes that are no UTF-8 are an error."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").replace("$", r"\$")


def _bare(axes: Any, text: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(text, labelpad=3)
    for side in axes.spines.values():
        side.set_visible(False)
