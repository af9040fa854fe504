"""The tables of a report as text cells, shared by the terminal, Markdown and the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MISSING = "–"
Report = Mapping[str, Any]


class Column(NamedTuple):
    """A measure of a report: key, heading (measure, source) and number format."""

    key: str
    group: str
    name: str
    style: str


@dataclass
class Table:
    """Cells as text. The first `names` columns are text, the last `totals` rows are means of the others.

    best: (row, column) of cells that are set in bold.   groups: rows above which a rule is drawn.
    """

    title: str
    headings: list[tuple[str, str]]
    rows: list[list[str]] = field(default_factory=list)
    names: int = 1
    totals: int = 0
    note: str = ""
    best: set[tuple[int, int]] = field(default_factory=set)
    groups: list[int] = field(default_factory=list)


LUMA = [
    Column("bicubic_psnr_y", "PSNR Y, dB", "baseline", ".2f"),
    Column("psnr_y", "PSNR Y, dB", "ours", ".2f"),
    Column("gain_psnr_y", "PSNR Y, dB", "gain", "+.2f"),
    Column("bicubic_ssim_y", "SSIM Y", "baseline", ".4f"),
    Column("ssim_y", "SSIM Y", "ours", ".4f"),
]
COLOUR = [
    Column("bicubic_psnr_rgb", "PSNR RGB, dB", "baseline", ".2f"),
    Column("psnr_rgb", "PSNR RGB, dB", "ours", ".2f"),
    Column("bicubic_ssim_rgb", "SSIM RGB", "baseline", ".4f"),
    Column("ssim_rgb", "SSIM RGB", "ours", ".4f"),
]
TEMPORAL = [
    Column("bicubic_tof", "tOF, px", "baseline", ".3f"),
    Column("tof", "tOF, px", "ours", ".3f"),
    Column("bicubic_warping_error", "warping error, %", "baseline", ".3f"),
    Column("warping_error", "warping error, %", "ours", ".3f"),
    Column("gt_warping_error", "warping error, %", "truth", ".3f"),
]
OBJECTS = [
    Column("count", "samples", "", "d"),
    *LUMA,
    Column("bicubic_contrast", "contrast kept", "baseline", ".0%"),
    Column("contrast", "contrast kept", "ours", ".0%"),
]
SIZE_RANGES = {"small": "small (< 12x12 px)", "medium": "medium (< 32x32 px)", "large": "large"}
GROUPS = {"key": "key frames", "between": "intermediate frames"}


def baseline_name(report: Report) -> str:
    """Name of the baseline, short enough for a heading."""
    name = str(report.get("baseline") or "bicubic")
    return name if len(name) <= 8 else "baseline"


def number(value: Any, style: str) -> str:
    """Format a value; a difference (style "+...") that rounds to zero has no sign."""
    if value is None:
        return MISSING
    text = format(value, style)
    return text[1:] if style.startswith("+") and not text.strip("+-0.") else text


def clip_table(report: Report, columns: Iterable[Column] = (*LUMA, *COLOUR, *TEMPORAL)) -> Table:
    """One row per clip, then the mean, then key and intermediate frames; columns without values are omitted."""
    clips: Mapping[str, Any] = report.get("clips") or {}
    totals = mean_rows(report) if clips else {}
    totals |= {GROUPS.get(kind, kind): values for kind, values in (report.get("groups") or {}).items()}
    shown = _used(columns, [*clips.values(), *totals.values()])
    table = Table("Clips", [("", "clip"), ("", "frames"), *_headings(shown, report)], totals=len(totals))
    for name, clip in clips.items():
        frames = clip.get("frames")
        table.rows.append([name, str(len(frames)) if frames else MISSING, *_cells(clip, shown)])
    for name, values in totals.items():
        table.rows.append([name, _frame_count(clips, name), *_cells(values, shown)])
    return table


def mean_rows(report: Report) -> dict[str, Report]:
    """The mean, or both means by name if they differ because clips differ in length."""
    over_clips, over_frames = report.get("mean_over_clips"), report.get("mean_over_frames")
    lengths = {len(clip.get("frames") or []) for clip in (report.get("clips") or {}).values()}
    if over_clips and over_frames and len(lengths) > 1:
        return {"mean over clips": over_clips, "mean over frames": over_frames}
    return {"mean": report.get("mean") or {}}


def frame_table(clip: str, frames: Sequence[Report], report: Report) -> Table:
    """One row per frame of a clip."""
    shown = _used((*LUMA, *COLOUR, *TEMPORAL), frames)
    words = [
        key for key in ("frame", "kind", "time", "gap_time") if any(frame.get(key) is not None for frame in frames)
    ]
    table = Table(clip, [("", word) for word in words] + _headings(shown, report), names=len(words))
    for frame in frames:
        names = [f"{frame[key]:.4g}" if isinstance(frame.get(key), float) else str(frame.get(key, "")) for key in words]
        table.rows.append([*names, *_cells(frame, shown)])
    return table


def object_table(objects: Report, report: Report, title: str = "Moving objects") -> Table:
    """Classes, then sizes, then all of them."""
    rows: dict[str, Any] = {**(objects.get("by_class") or {})}
    rows |= {SIZE_RANGES.get(name, name): group for name, group in (objects.get("by_size") or {}).items()}
    rows["all"] = objects.get("all") or {}
    shown = _used(OBJECTS, rows.values())
    table = Table(title, [("", "objects"), *_headings(shown, report)], totals=1)
    table.rows = [[name, *_cells(group, shown)] for name, group in rows.items()]
    faint = rows["all"].get("faint")
    notes = [f"{faint} too faint for a contrast"] if faint else []
    if objects.get("skipped"):
        notes.append(f"{objects['skipped']} boxes outside the frame skipped")
    table.note = "; ".join(notes)
    return table


def detection_table(report: Report) -> Table:
    """Detection of moving objects by background subtraction; LR and GT are the bounds for a method."""
    found: Mapping[str, Any] = report.get("detection") or {}
    columns = {"precision": ".3f", "recall": ".3f", "f1": ".3f", "detections": "d", "boxes": "d"}
    headings = ["frames of", "precision", "recall", "F1", "detections", "boxes"]
    table = Table("Finding moving objects", [("", heading) for heading in headings])
    table.rows = [
        [name, *(number(row.get(key), style) for key, style in columns.items())] for name, row in found.items()
    ]
    known = {name: row["f1"] for name, row in found.items() if name not in ("LR", "GT") and row.get("f1") is not None}
    best = max(known.values(), default=None)
    table.best = {(index, 3) for index, name in enumerate(found) if len(known) > 1 and known.get(name) == best}
    table.note = "Background subtraction with the same settings for all (docs/metrics.md)." if found else ""
    return table


def sweep_table(report: Report, key: str = "psnr_y") -> Table:
    """Scales down, times across: ours, and the gain over the baseline in brackets."""
    sweep = report["sweep"]
    ours, baseline = sweep[key], sweep.get(f"bicubic_{key}")
    style = ".4f" if "ssim" in key else ".2f"
    title = f"{'SSIM' if 'ssim' in key else 'PSNR'} Y over scale and time"
    table = Table(title, [("", "scale"), *(("time", time_name(t)) for t in sweep["times"])])
    for i, scale in enumerate(sweep["scales"]):
        cells = []
        for j in range(len(sweep["times"])):
            cell = number(ours[i][j], style)
            if baseline and ours[i][j] is not None and baseline[i][j] is not None:
                cell += f" ({number(ours[i][j] - baseline[i][j], '+' + style)})"
            cells.append(cell)
        table.rows.append([scale_name(scale), *cells])
    table.note = f"In brackets: gain over {report.get('baseline') or 'bicubic'}." if baseline else ""
    return table


def sweep_grids(report: Report) -> list[tuple[str, list[list[Any]], str]]:
    """Heat maps: title, numbers (scales down, times across) and number format."""
    sweep = report["sweep"]
    ours, baseline = sweep["psnr_y"], sweep.get("bicubic_psnr_y")
    grids = [("PSNR Y, dB", ours, ".2f")]
    if baseline:
        gain = [
            [None if a is None or b is None else a - b for a, b in zip(*pair, strict=True)]
            for pair in zip(ours, baseline, strict=True)
        ]
        grids.append((f"gain over {report.get('baseline') or 'bicubic'}, dB", gain, "+.2f"))
    return grids


def scale_name(scale: Any) -> str:
    return f"x{scale:g}" if isinstance(scale, (int, float)) else str(scale)


def time_name(time: Any) -> str:
    """2 means twice the frame rate; 0.25 is a time between two key frames (0 and 1)."""
    if not isinstance(time, (int, float)):
        return str(time)
    return f"x{time:g}" if time >= 1 else f"t = {time:.3g}"


def tables(report: Report) -> list[Table]:
    """All summary tables of a report."""
    found = [clip_table(report)] if report.get("clips") else []
    if report.get("sweep"):
        found += [sweep_table(report, key) for key in ("psnr_y", "ssim_y") if key in report["sweep"]]
    if report.get("objects"):
        found.append(object_table(report["objects"], report))
    if report.get("detection"):
        found.append(detection_table(report))
    return found


def provenance(report: Report) -> list[tuple[str, str]]:
    """Data, weights and machine of the measurement: label and text."""
    network, weights, data = (report.get(key) or {} for key in ("network", "weights", "data"))
    config = (report.get("config") or {}).get("eval") or {}
    lines = [
        ("protocol", _protocol(report, config)),
        ("baseline", str(report.get("baseline") or "bicubic")),
        ("data", _data(data)),
        *((label, str(text)) for label, text in (report.get("settings") or {}).items()),
        ("network", str(network.get("name") or "")),
        ("parameters", f"{network['parameters']:,}" if network.get("parameters") else ""),
        ("cost", _cost(network)),
        ("speed", f"{network['seconds_per_frame']:.3g} s per frame" if network.get("seconds_per_frame") else ""),
        ("peak memory", f"{network['peak_memory_mb']:,.0f} MB" if network.get("peak_memory_mb") else ""),
        ("weights", " ".join(str(weights[key]) for key in ("path",) if weights.get(key))),
        ("SHA-256", str(weights.get("sha256") or "")),
        ("commit", str(report.get("commit") or "")),
        ("created", str(report.get("created") or "")),
        ("machine", ", ".join(_machine(report.get("machine") or {}))),
        *(
            (f"frames of {name}", str(method.get("source") or ""))
            for name, method in (report.get("methods") or {}).items()
        ),
    ]
    return [(label, text) for label, text in lines if text]


def _protocol(report: Report, config: Mapping[str, Any]) -> str:
    name = str(report.get("protocol") or "")
    crop = report.get("crop", config.get("crop"))
    return f"{name}, {crop} pixels of border left out" if name and crop is not None else name


def _data(data: Mapping[str, Any]) -> str:
    words = [str(data["kind"])] if data.get("kind") else []
    if data.get("clips"):
        words.append(f"{data['clips']} clip{'s' if data['clips'] != 1 else ''}")
    root, rest = str(data.get("root") or ""), ", ".join(words)
    return f"{root} ({rest})" if root and rest else root or rest


def _cost(network: dict[str, Any]) -> str:
    if not network.get("gmac_per_frame"):
        return ""
    size = network.get("gmac_counted_at")
    return f"{network['gmac_per_frame']:,.1f} GMAC per frame" + (f" from {size}" if size else "")


def _machine(machine: Mapping[str, Any]) -> list[str]:
    threads = "{} thread" if machine.get("threads") == 1 else "{} threads"
    words = {"threads": threads, "torch": "torch {}", "python": "Python {}", "dcn": "deformable convolution: {}"}
    return [words.get(key, "{}").format(value) for key, value in machine.items() if value not in (None, "")]


def _used(columns: Iterable[Column], rows: Iterable[Report]) -> list[Column]:
    rows = list(rows)
    return [column for column in columns if any(row.get(column.key) is not None for row in rows)]


def _headings(columns: Iterable[Column], report: Report) -> list[tuple[str, str]]:
    baseline = baseline_name(report)
    return [(column.group, baseline if column.name == "baseline" else column.name) for column in columns]


def _cells(row: Report, columns: Iterable[Column]) -> list[str]:
    return [number(row.get(column.key), column.style) for column in columns]


def _frame_count(clips: Mapping[str, Any], total: str) -> str:
    kind = {text: key for key, text in GROUPS.items()}.get(total)
    frames = [frame for clip in clips.values() for frame in clip.get("frames") or []]
    count = sum(frame.get("kind") == kind for frame in frames) if kind else len(frames)
    return str(count) if count else MISSING
