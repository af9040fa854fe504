"""The page's sections with pictures: the comparison slider with zoomed crops, and the moving objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from engine.report.page.markup import Markup, element, together
from engine.report.page.pictures import (
    SHOWN,
    STAGE_BYTES,
    Comparison,
    Rectangle,
    around,
    chosen_crops,
    embedded,
    load,
    page_keys,
    stage,
)
from engine.report.tables import number
from errors import InputError
from metrics import ObjectMeter, box_region

PICTURES = 6  # comparisons on one page
OBJECTS = 9  # of one picture
OBJECT_SIDE = (32, 192)  # pixels of the frame shown around an object, least and most
Measured = tuple[Mapping[str, Any], Mapping[str, Any]]  # a box and its figures


class Names(dict[str, str]):
    """Labels of pictures on the page, in order: methods, ground truth, errors of the methods."""

    def __init__(self, baseline: str, methods: Sequence[str] = ("ours",)) -> None:
        keys = page_keys(["bicubic", *methods])
        shown = dict(zip(keys, [baseline, *methods], strict=True))
        errors = {f"{key}_difference": f"error of {name}" for key, name in shown.items()}
        super().__init__(shown | {"gt": "ground truth"} | errors)


def load_pictures(report: Mapping[str, Any], folder: Path) -> tuple[list[Comparison], list[str]]:
    """The pictures of the page, and notes on omitted ones."""
    entries = list(report.get("pictures") or [])
    found, notes = [], []
    for entry in entries[:PICTURES]:
        try:
            found.append(load(entry, folder))
        except (InputError, KeyError) as error:
            notes.append(f"A picture of clip '{entry.get('clip', '')}' cannot be shown: {error}")
    if len(entries) > PICTURES:
        notes.append(f"The first {PICTURES} of {len(entries)} pictures; the others are in the report's folder.")
    return found, notes


def picture_section(comparisons: Sequence[Comparison], notes: Iterable[str], names: Names) -> Markup | None:
    """Per picture: the slider, and three crops chosen by rule."""
    parts = [scene(comparison, index, len(comparisons), names) for index, comparison in enumerate(comparisons)]
    parts += [element("p", note, _class="note") for note in notes]
    return together(parts) if parts else None


def scene(comparison: Comparison, index: int, count: int, names: Names) -> Markup:
    """One picture of the page: the slider and its crops."""
    part = stage(comparison, count)
    height, width = comparison.size
    size = f"{width}x{height} pixels"
    if part[2:] != (width, height):
        size = f"{part.width}x{part.height} of {size}, from ({part.x}, {part.y})"
    title = element("h3", comparison.clip, element("small", f"frame {comparison.frame}, {size}"))
    crops = chosen_crops(comparison)
    side = next(iter(crops.values())).width
    explained = (
        f"Errors: difference of luma to the ground truth, amplified {comparison.factor} times. The crops below, "
        f"{side}x{side} pixels each, are chosen by rule from the full frame and stored without loss; the large picture is not."
    )
    strips = [strip(name, comparison, place, part, names) for name, place in crops.items()]
    note = element("p", explained, _class="note")
    return element(
        "article", title, viewer(comparison, part, index, count, names), slice_section(comparison, names), note, strips
    )


def slice_section(comparison: Comparison, names: Names) -> Markup | None:
    """One row of every frame, stacked vertically, for each method: flicker appears as horizontal stripes."""
    if not comparison.slices:
        return None
    frames = len(comparison.slices["gt"])
    repeat = max(1, min(8, 96 // frames))
    caption = f"Row {comparison.row} of {frames} frames, time downwards"
    panels = [panel(np.repeat(comparison.slices[key], repeat, axis=0), names[key], "") for key in comparison.shown]
    return element(
        "details",
        element("summary", f"Over time (x): {caption}"),
        element("div", panels, _class="panels one"),
        _class="slices",
    )


def viewer(comparison: Comparison, part: Rectangle, index: int, count: int, names: Names) -> Markup:
    """The slider: all pictures in one place; the script shows two of them, separated by a divider."""
    shown = [key for key in names if key in comparison.pictures]
    limit = STAGE_BYTES // (len(shown) * count)
    layers = [
        element(
            "div",
            element("img", src=embedded(part.of(comparison.pictures[key]), limit), alt=names[key], draggable="false"),
            _class="layer",
            data_picture=key,
        )
        for key in shown
    ]
    tags = [element("span", _class=f"tag {side}", aria_hidden="true") for side in ("left", "right")]
    hint = (
        "Comparison: digits choose the right picture, with Shift the left one, B blinks, X shows rows over time, "
        "arrow keys move the picture when zoomed, + and - zoom, 0 fits it"
    )
    area = element(
        "div",
        layers,
        marks(comparison, part),
        divider(),
        tags,
        zoom_buttons(bool(comparison.boxes)),
        _class="stage",
        tabindex=0,
        role="group",
        aria_label=hint,
        style=f"aspect-ratio:{part.width}/{part.height}",
    )
    blink = element("button", "blink", type="button", _class="blink", aria_pressed="false")
    bar = [choice("left", index, names, "bicubic"), choice("right", index, names, comparison.methods[-1]), blink]
    size = {"data_width": part.width, "data_height": part.height}
    return element("div", element("div", bar, _class="bar"), area, _class="viewer", **size)


def divider() -> Markup:
    """The line between the left and the right picture, which moves with the mouse and the arrow keys."""
    range_ = {"aria_valuemin": 0, "aria_valuemax": 100, "aria_valuenow": 50}
    label = "Divider between the left and the right picture"
    return element("div", role="slider", tabindex=0, aria_label=label, **range_, _class="divider")


def choice(side: str, index: int, names: Names, chosen: str) -> Markup:
    """Radio buttons that choose the picture of one side of the slider."""
    options = [
        element(
            "label",
            element("input", type="radio", name=f"{side}-{index}", value=key, checked=key == chosen, data_side=side),
            element("span", name),
        )
        for key, name in names.items()
    ]
    return element("fieldset", element("legend", side), options, _class="choice")


def zoom_buttons(boxes: bool) -> Markup:
    """Buttons for zooming, the zoom level and a switch for the boxes."""
    words = (("out", "−", "Zoom out"), ("fit", "fit", "Whole picture"), ("in", "+", "Zoom in"))
    buttons = [element("button", text, type="button", data_zoom=key, aria_label=title) for key, text, title in words]
    level = element("output", _class="level", aria_live="off")
    switch = element("label", element("input", type="checkbox", _class="boxes", checked=True), element("span", "boxes"))
    return element("div", buttons, level, switch if boxes else None, _class="zoom")


def marks(comparison: Comparison, part: Rectangle) -> Markup | None:
    """The objects' boxes and a line at the row shown over time, as an overlay that the script moves with the picture."""
    if not comparison.boxes and comparison.row is None:
        return None
    rectangles = [
        element(
            "rect",
            element("title", box["label"]),
            x=box["x"] - part.x,
            y=box["y"] - part.y,
            width=box["w"],
            height=box["h"],
        )
        for box in comparison.boxes
    ]
    if comparison.row is not None:
        y = comparison.row - part.y + 0.5
        rectangles.append(element("line", x1=0, x2=part.width, y1=y, y2=y, _class="row"))
    return element("svg", rectangles, viewBox=f"0 0 {part.width} {part.height}", _class="marks", aria_hidden="true")


def strip(name: str, comparison: Comparison, place: Rectangle, part: Rectangle, names: Names) -> Markup:
    """One place in all pictures, enlarged, with its own PSNR."""
    panels = []
    for key in (key for key in names if key in comparison.pictures):
        psnr = number(comparison.psnr(key, place), ".2f") + " dB" if key in comparison.methods else ""
        panels.append(panel(place.of(comparison.pictures[key]), names[key], psnr))
    heading = element("h4", name, element("small", f" at ({place.x}, {place.y})"))
    inside = (
        part.x <= place.x and part.y <= place.y and place.x < part.x + part.width and place.y < part.y + part.height
    )
    x, y = place.x - part.x + place.width / 2, place.y - part.y + place.height / 2
    show = element("button", "show above", type="button", _class="show", data_x=x, data_y=y) if inside else None
    grid = element(
        "div",
        panels,
        _class="panels",
        style=f"--columns:{len(panels) if len(panels) < 6 else min(len(comparison.shown), 6)}",
    )
    return element("div", element("header", heading, show), grid, _class="strip")


def panel(picture: Any, name: str, figures: str, box: Markup | None = None) -> Markup:
    """A picture with its name and figures below."""
    height, width = picture.shape[:2]
    image = element("img", src=embedded(picture), alt=name, width=width, height=height)
    return element(
        "figure", element("div", image, box, _class="picture"), element("figcaption", name, element("b", figures))
    )


def object_section(comparisons: Sequence[Comparison], names: Names, protocol: str) -> Markup | None:
    """Objects of the shown frames, enlarged, with their boxes and figures."""
    parts = []
    for comparison in comparisons:
        cards = [
            card(comparison, box, row, names) for box, row in chosen_objects(measured_objects(comparison, protocol))
        ]
        if cards:
            title = element("h3", comparison.clip, element("small", f"frame {comparison.frame}"))
            parts.append(element("article", title, element("div", cards, _class="cards")))
    if not parts:
        return None
    note = (
        "Objects of the frames above, from the largest to the smallest of each class. "
        "Contrast: the object's difference to its surroundings, as a share of the ground truth's."
    )
    switch = element(
        "label", element("input", type="checkbox", id="boxes", checked=True), element("span", "boxes"), _class="switch"
    )
    return together([element("p", note, " ", switch, _class="note"), *parts])


def measured_objects(comparison: Comparison, protocol: str) -> list[Measured]:
    """Every box inside the frame, with its figures."""
    inside = [box for box in comparison.boxes if box_region(SimpleNamespace(**box), comparison.size) is not None]
    meter = ObjectMeter(protocol)
    ours, truth, baseline = (comparison.tensor(name) for name in ("ours", "gt", "bicubic"))
    meter.add(ours, truth, baseline, [SimpleNamespace(**box) for box in inside])
    return list(zip(inside, meter.rows, strict=True))


def chosen_objects(objects: Sequence[Measured]) -> list[Measured]:
    """At most OBJECTS objects: the same number of each class, evenly spread from the largest to the smallest."""
    classes: dict[str, list[Measured]] = {}
    for found in sorted(objects, key=lambda found: -found[0]["w"] * found[0]["h"]):
        classes.setdefault(str(found[0]["label"]), []).append(found)
    each = max(1, OBJECTS // max(1, len(classes)))
    chosen: list[Measured] = []
    for _, members in sorted(classes.items()):
        step = max(1.0, (len(members) - 1) / max(1, each - 1))
        chosen += [members[round(k * step)] for k in range(min(each, len(members)))]
    return chosen[:OBJECTS]


def card(comparison: Comparison, box: Mapping[str, Any], row: Mapping[str, Any], names: Names) -> Markup:
    """One object in baseline, ours and ground truth."""
    least, most = OBJECT_SIDE
    side = round(min(max(2.2 * max(box["w"], box["h"]), least), max(most, box["w"], box["h"])))
    place = around(box["x"] + box["w"] / 2, box["y"] + box["h"] / 2, side, side, comparison.size)
    frame = element("i", _class="box", style=outline(box, place), aria_hidden="true")
    figures = {"bicubic": _object_figures(row, "bicubic_"), "ours": _object_figures(row, ""), "gt": ""}
    panels = [panel(place.of(comparison.pictures[key]), names[key], figures[key], frame) for key in SHOWN]
    size = f"{box['w']:.3g}x{box['h']:.3g} px at ({box['x']:.0f}, {box['y']:.0f})"
    heading = element("h4", f"{box['label']} {box['track']}", element("small", f" {size}"))
    return element("div", heading, element("div", panels, _class="panels three"), _class="card")


def outline(box: Mapping[str, Any], place: Rectangle) -> str:
    """CSS position of a box within a rectangle of the frame, in percent."""
    parts = {
        "left": (box["x"] - place.x) / place.width,
        "top": (box["y"] - place.y) / place.height,
        "width": box["w"] / place.width,
        "height": box["h"] / place.height,
    }
    return ";".join(f"{name}:{share:.2%}" for name, share in parts.items())


def _object_figures(row: Mapping[str, Any], prefix: str) -> str:
    figures = f"{number(row[prefix + 'psnr_y'], '.2f')} dB"
    contrast = row[prefix + "contrast"]
    return figures if contrast is None else f"{figures}, contrast {contrast:.0%}"
