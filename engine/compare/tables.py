"""The tables of a comparison: all methods, measures and clips in one; fidelity to the input; objects; differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from engine.report.tables import GROUPS, Table, detection_table, number

Report = Mapping[str, Any]
MEANS = {"mean_over_clips": "mean over clips", "mean_over_frames": "mean over frames"}


class Measure(NamedTuple):
    """A column: heading, unit, number format, and whether more (1), less (-1) or neither (0) is better."""

    title: str
    unit: str
    style: str
    better: int


MEASURES = {
    "psnr_y": Measure("PSNR Y", "dB", ".2f", 1),
    "ssim_y": Measure("SSIM Y", "", ".4f", 1),
    "ms_ssim_y": Measure("MS-SSIM Y", "", ".4f", 1),
    "psnr_rgb": Measure("PSNR RGB", "dB", ".2f", 1),
    "ssim_rgb": Measure("SSIM RGB", "", ".4f", 1),
    "ms_ssim_rgb": Measure("MS-SSIM RGB", "", ".4f", 1),
    "lpips": Measure("LPIPS", "", ".4f", -1),
    "dists": Measure("DISTS", "", ".4f", -1),
    "fsim": Measure("FSIM", "", ".4f", 1),
    "vif": Measure("VIF", "", ".4f", 1),
    "tof": Measure("tOF", "px", ".3f", -1),
    "warping_error": Measure("warping error", "%", ".3f", 0),
    "tlpips": Measure("tLPIPS", "x100", ".3f", -1),
}
INPUT = {
    "consistency": Measure("consistency", "dB", ".2f", 1),
    "bias_1": Measure("bias, band 1", "levels", "+.3f", 0),
    "bias_2": Measure("bias, band 2", "levels", "+.3f", 0),
    "bias_3": Measure("bias, band 3", "levels", "+.3f", 0),
    "ndvi_bias": Measure("NDVI bias", "", "+.4f", 0),
    "ndvi_error": Measure("NDVI change", "", ".4f", -1),
    "restored": Measure("detail restored", "", ".1%", 1),
    "omitted": Measure("omitted", "", ".1%", -1),
    "invented": Measure("invented", "", ".1%", -1),
    "invented_elsewhere": Measure("invented elsewhere", "", ".1%", -1),
}
OBJECTS = {
    "count": Measure("samples", "", "d", 0),
    "psnr_y": Measure("PSNR Y", "dB", ".2f", 1),
    "ssim_y": Measure("SSIM Y", "", ".4f", 1),
    "contrast": Measure("contrast kept", "", ".0%", 0),
}


def tables(report: Report) -> list[Table]:
    """All tables of a comparison that have content."""
    found = [
        block_table("Comparison", report, MEASURES),
        block_table("Fidelity to the input", report, INPUT),
        objects_table(report),
        detection_table(report),
        difference_table(report),
    ]
    notes = {
        "Comparison": warping_note(report),
        "Fidelity to the input": "Consistency: the result, brought back to low resolution, against the input. "
        "Detail: of the pixels where bicubic is off by 4 grey levels or more.",
    }
    for table in found:
        table.note = table.note or notes.get(table.title, "")
    return [table for table in found if table.rows]


def warping_note(report: Report) -> str:
    """The ground truth's own warping error, as a reference for the methods."""
    means = [method.get("mean_over_clips") or {} for method in report["methods"].values()]
    own = next((mean["gt_warping_error"] for mean in means if mean.get("gt_warping_error") is not None), None)
    return "" if own is None else f"Warping error of the ground truth itself: {own:.3f} % (nothing is in bold for it)."


def blocks(report: Report) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Heading -> method -> values: the clips, then both means, then key and intermediate frames."""
    methods: Mapping[str, Any] = report["methods"]
    names = dict.fromkeys(clip for method in methods.values() for clip in method["clips"])
    found = {clip: {name: method["clips"].get(clip, {}) for name, method in methods.items()} for clip in names}
    found |= {text: {name: method.get(key) or {} for name, method in methods.items()} for key, text in MEANS.items()}
    kinds = dict.fromkeys(kind for method in methods.values() for kind in method.get("groups") or {})
    for kind in kinds:
        found[GROUPS.get(kind, kind)] = {name: method["groups"][kind] for name, method in methods.items()}
    return found


def block_table(title: str, report: Report, measures: Mapping[str, Measure]) -> Table:
    """One block of rows per clip and mean, one row per method, one column per measure; the best of a block is bold."""
    found = blocks(report)
    shown = used(measures, (values for block in found.values() for values in block.values()))
    table = Table(title, [("", "clip"), ("", "method"), *headings(shown)], names=2)
    if not shown:
        return table
    for heading, block in found.items():
        table.groups.append(len(table.rows))
        add_block(
            table, [(heading if first else "", name) for first, name in marked(block)], list(block.values()), shown
        )
    table.totals = len(table.rows) - table.groups[len(next(iter(report["methods"].values()))["clips"])]
    return table


def marked(block: Iterable[str]) -> list[tuple[bool, str]]:
    return [(index == 0, name) for index, name in enumerate(block)]


def add_block(
    table: Table, names: Sequence[Sequence[str]], rows: Sequence[Mapping[str, Any]], shown: Mapping[str, Measure]
) -> None:
    """Append rows, and mark the best cell of every column (also those with the same printed value)."""
    start, first = len(table.rows), table.names
    for name, values in zip(names, rows, strict=True):
        table.rows.append([*name, *(number(values.get(key), measure.style) for key, measure in shown.items())])
    for column, (key, measure) in enumerate(shown.items(), start=first):
        known = [row[key] for row in rows if row.get(key) is not None]
        if not measure.better or len(known) < 2 or min(known) == max(known):
            continue
        best = number(max(known) if measure.better > 0 else min(known), measure.style)
        table.best |= {(row, column) for row in range(start, len(table.rows)) if table.rows[row][column] == best}


def objects_table(report: Report) -> Table:
    """Inside the boxes of moving objects, over all clips: all of them, then by class and by size."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, method in report["methods"].items():
        objects = method.get("objects") or {}
        parts = {"all": objects.get("all") or {}, **(objects.get("by_class") or {}), **(objects.get("by_size") or {})}
        for part, values in parts.items():
            if values:
                found.setdefault(part, {})[name] = values
    table = Table("Inside moving objects", [("", "objects"), ("", "method"), *headings(OBJECTS)], names=2)
    for heading, block in found.items():
        table.groups.append(len(table.rows))
        names = [(heading if first else "", name) for first, name in marked(block)]
        add_block(table, names, list(block.values()), OBJECTS)
    return table


def difference_table(report: Report) -> Table:
    """Paired differences on the same frames, with their bootstrap intervals."""
    found: Sequence[Mapping[str, Any]] = report.get("differences") or []
    words = ["a", "b", "measure", "mean of a - b", "95 % interval", "frames", "clips"]
    table = Table("Paired differences", [("", word) for word in words], names=3)
    for entry in found:
        measure = MEASURES[entry["measure"]]
        style = "+" + measure.style
        difference, low, high = (number(entry[key], style) for key in ("difference", "low", "high"))
        counts = [str(entry["frames"]), str(entry["clips"])]
        table.rows.append([entry["a"], entry["b"], measure.title, difference, f"{low} to {high}", *counts])
    if found:
        clips = found[0]["clips"]
        table.note = (
            "Bootstrap over clips and frames within them."
            if clips > 1
            else "One clip: the interval covers frames of this clip, not other clips."
        )
    return table


def used(measures: Mapping[str, Measure], rows: Iterable[Mapping[str, Any]]) -> dict[str, Measure]:
    rows = list(rows)
    return {key: measure for key, measure in measures.items() if any(row.get(key) is not None for row in rows)}


def headings(measures: Mapping[str, Measure]) -> list[tuple[str, str]]:
    """Headings of columns: title, unit and an arrow in the direction of better values."""
    arrow = {1: " ↑", -1: " ↓", 0: ""}
    return [
        ("", measure.title + (f", {measure.unit}" if measure.unit else "") + arrow[measure.better])
        for measure in measures.values()
    ]
