"""`eval.py --results`: compare stored frames of several methods."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tqdm import tqdm

import metrics
import models
from data import samples
from data.clips import CroppedClip
from data.layouts import Layout, Pair
from data.media import to_uint8, write_image
from engine.compare import figures, slices
from engine.compare.measure import (
    BICUBIC,
    DEFAULT,
    ClipRows,
    MethodFrames,
    Settings,
    check_ndvi,
    common_frames,
    measure_clip,
)
from engine.compare.results import Candidate, ResultClip, match_clips, open_result, parse_results
from engine.compare.statistics import REPLICATES, SEED, differences
from engine.compare.write import FILES, console, write_comparison
from engine.config import Config, config_from_mapping, config_to_mapping, read_yaml
from engine.evaluate.averages import both_means, detection_results, means
from engine.evaluate.measure import data_settings
from engine.evaluate.options import KEYS, override
from engine.evaluate.output import COMPARISON, output_folder
from engine.evaluate.scripts import inputs
from engine.report import provenance
from engine.sources import open_source
from errors import InputError

GROUPS = ("data.", "eval.", "network.", "train.", "loss.")
OUT = "runs/compare"
FOLDERS = ("pictures", "figures")  # within the output folder
SCALE, FIGURES = 4.0, 2  # default without an option


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the methods of `--results`, write tables, figures and page, and return the report.

    Raises InputError, before anything is measured, for clips and frames that do not match.
    """
    words, overrides = split_words(options.results, options.overrides)
    measures, overrides = split_words(options.metrics or DEFAULT, overrides)
    folders = parse_results(words)
    if options.weight:
        raise InputError(
            "--results compares frames and runs no network: leave --weight out (its frames: eval.py --save-frames)"
        )
    config = comparison_config(options, overrides)
    settings = Settings.of(config.eval, config.scale, measures, ndvi_bands(options.ndvi))
    layout = open_source(config, "val")
    out = Path(options.outputpath or OUT)
    with output_folder(out, COMPARISON, FILES, FOLDERS, [*inputs(options, config), *folders.values()]):
        return compare_methods(options, config, settings, layout, folders, out)


def compare_methods(
    options: argparse.Namespace,
    config: Config,
    settings: Settings,
    layout: Layout,
    folders: Mapping[str, Path],
    out: Path,
) -> dict[str, Any]:
    """Measure the methods, write everything to `out`, and return the report."""
    check_ndvi(settings.ndvi, layout.pairs)
    names = [pair.name for pair in layout.pairs]
    matched = {method: match_clips(method, folder, names) for method, folder in folders.items()}
    opened = {pair.name: open_results(pair, matched) for pair in layout.pairs}
    crops = [figures.parse_crop(text, layout.pairs) for text in options.crop or ()]
    if crops:
        figures.require()
        figures.check_crops(crops, opened)
    total = sum(len(common_frames(pair, opened[pair.name], settings)[0]) for pair in layout.pairs)
    with tqdm(total=total, unit="frame", desc="compare", leave=False, dynamic_ncols=True) as bar:
        clips = [measure_clip(pair, opened[pair.name], settings, bar) for pair in layout.pairs]
    report = build_report(config, settings, layout, folders, clips, opened)
    crops = crops or figures.most_disputed(clips, FIGURES if options.figures is None else options.figures)
    views = {name: MethodFrames(clip.pair, opened[name], settings.stride) for name, clip in by_name(clips).items()}
    report["pictures"] = [
        picture(views[clip.pair.name], clip, folders, out) for clip in clips[: max(config.eval.pictures, 0)]
    ]
    report["figures"] = figures.draw_all(crops, views, by_name(clips), settings, out, report["notes"])
    print(console(report))
    write_comparison(report, out)
    print(f"report: {out / 'report.md'} (also .html, .tex, .csv, .json; figures/)")
    return report


def by_name(clips: Sequence[ClipRows]) -> dict[str, ClipRows]:
    return {clip.pair.name: clip for clip in clips}


def split_words(results: Sequence[str], overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate overrides from methods: argparse gives `--results` all words that follow it."""
    keys = [word for word in results if word.startswith(GROUPS)]
    return [word for word in results if word not in keys], [*overrides, *keys]


def ndvi_bands(text: str | None) -> tuple[int, int] | None:
    """Parse `NIR,RED`, positions from 1; None without the option. Raises InputError for other text."""
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"--ndvi '{text}': expected the positions of near infrared and red, such as 1,2")
    return int(parts[0]), int(parts[1])


def comparison_config(options: argparse.Namespace, overrides: Sequence[str]) -> Config:
    """Data and evaluation settings of --config and the options; the network group only carries the scale."""
    default: dict[str, Any] = {"name": "comparison", "data": {"val": {"kind": "auto"}}}
    mapping = read_yaml(options.config) if options.config else default
    scale = SCALE if options.scale is None else options.scale
    if not math.isfinite(scale):
        raise InputError(f"--scale {scale:g}: expected a magnification, such as 4")
    group = mapping.get("eval")
    stride = isinstance(group, dict) and group.get("stride")  # `config_from_mapping` refuses other types
    stride = stride or any(word.startswith("eval.stride=") for word in overrides)
    mapping["network"] = network_allowing(scale, bool(stride))
    space_time = "scale" not in mapping["network"]
    given = [
        override(key, getattr(options, option)) for option, key in KEYS.items() if getattr(options, option) is not None
    ]
    config = config_from_mapping(mapping, [*given, *([f"eval.scale={scale}"] if space_time else []), *overrides])
    if not config.data.val.root and config.data.val.kind == "auto":
        config.data.val.kind, config.data.val.root = "file", str(samples.natural("test"))
    return config


def network_allowing(scale: float, stride: bool) -> dict[str, Any]:
    """The network group of a config with this scale. stride: it also has the keys of space-time networks."""
    window = {"name": models.first_of(space_time=False), "scale": int(scale)}
    if not stride and scale == int(scale):
        with suppress(InputError):  # window networks have few scales
            models.config_from_mapping(window)
            return window
    return {"name": models.first_of(space_time=True)}


def open_results(pair: Pair, matched: Mapping[str, Mapping[str, Candidate]]) -> dict[str, ResultClip]:
    """Every method's version of a clip."""
    if pair.gt is None:
        raise InputError(f"clip '{pair.name}' has no ground truth: a comparison needs it")
    full = pair.gt.clip.size if isinstance(pair.gt, CroppedClip) else pair.gt.size
    return {method: open_result(method, clips[pair.name], pair.gt, pair.lr, full) for method, clips in matched.items()}


def build_report(
    config: Config,
    settings: Settings,
    layout: Layout,
    folders: Mapping[str, Path],
    clips: Sequence[ClipRows],
    opened: Mapping[str, Mapping[str, ResultClip]],
) -> dict[str, Any]:
    """The report dict: engine/report/files.py has its keys."""
    rows = {name: {clip.pair.name: clip.rows[name] for clip in clips} for name in (BICUBIC, *folders)}
    notes = [note for results in opened.values() for result in results.values() for note in result.notes]
    notes += [note for clip in clips for note in clip.notes]
    report: dict[str, Any] = {
        "title": f"Comparison of {', '.join(folders)}, x{settings.scale:g}",
        "protocol": settings.protocol,
        "crop": settings.crop,
        "scale": settings.scale,
        "baseline": BICUBIC if not settings.stride else "linear blend + bicubic",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": provenance.commit(),
        "machine": provenance.machine(),
        "data": {"root": str(layout.root), "kind": layout.kind, "clips": len(clips)},
        "settings": provenance.evaluation_settings(config, restores=False) | data_settings(layout),
        "measures": list(settings.measures),
        "methods": {name: method(name, of, clips, folders.get(name)) for name, of in rows.items()},
        "differences": differences(rows, settings.measures),
        "bootstrap": {"replicates": REPLICATES, "seed": SEED, "level": 0.95},
        "notes": list(dict.fromkeys(notes)),
        "config": config_to_mapping(config),
    }
    if detection := detection_results(clip.found for clip in clips):
        report["detection"] = detection
    return report


def method(
    name: str, rows: Mapping[str, Sequence[dict[str, Any]]], clips: Sequence[ClipRows], folder: Path | None
) -> dict[str, Any]:
    """The part of one method in the report."""
    entry: dict[str, Any] = {"source": str(folder) if folder else "computed from the low resolution"}
    entry["clips"] = {clip: {**means(frames), "frames": frames} for clip, frames in rows.items()}
    kinds = dict.fromkeys(row["kind"] for frames in rows.values() for row in frames if "kind" in row)
    entry |= both_means(rows.values(), kinds)
    objects = [row for clip in clips if name in clip.objects for row in clip.objects[name].rows]
    if objects:
        entry["objects"] = metrics.summarise(objects)
        for clip in clips:
            if name in clip.objects:
                entry["clips"][clip.pair.name]["objects"] = clip.objects[name].result()
    return entry


def picture(shown: MethodFrames, clip: ClipRows, folders: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """The middle frame of a clip for the page: every method's picture, and one row over time."""
    index = clip.indices[len(clip.indices) // 2]
    frame = shown.gt.frame_names[index]
    entry: dict[str, Any] = {"clip": clip.pair.name, "frame": frame, "files": {}, "slices": {}}
    entry["row"] = row = slices.row_of(shown, index)

    def read(name: str, number: int) -> Any:
        return to_uint8(shown.of(name, number))

    for name, stem in safe_names((BICUBIC, *folders, "gt")).items():
        place = out / "pictures" / clip.pair.name
        path, slice_path = (place / f"{frame}_{stem}{suffix}.png" for suffix in ("", "_xt"))
        write_image(path, read(name, index))
        write_image(slice_path, slices.over_time(read, name, clip.indices, row))
        entry["files"][name], entry["slices"][name] = str(path), str(slice_path)
    if clip.pair.boxes:
        entry["boxes"] = [box._asdict() for box in clip.pair.boxes[index]]
    return entry


def safe_names(methods: Sequence[str]) -> dict[str, str]:
    """Every method's name as part of a file name, all different, also where upper and lower case are the same."""
    names: dict[str, str] = {}
    for method in methods:
        name = "".join(character if character.isalnum() or character in "-+" else "_" for character in method)
        taken = {other.lower() for other in names.values()}
        names[method] = name if name.lower() not in taken else f"{name}_{len(names)}"
    return names
