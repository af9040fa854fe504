"""The evaluation scripts' common part: weights and options in, report out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import dcn
from data import samples
from data.layouts import Layout
from engine import distributed
from engine.checkpoint import load_key_networks_, load_network, released_for
from engine.config import MAX_SCALE, Config, config_from_mapping, read_yaml
from engine.distributed import say
from engine.evaluate.measure import check_clips, dark_note, evaluate, output_folders
from engine.evaluate.options import KEYS, output_of, override
from engine.evaluate.output import EVALUATION, REPORTS, output_folder
from engine.report.files import console_table, write_report
from engine.report.page.grid import write_grid
from engine.sources import open_source
from errors import InputError
from models.base import Network
from settings import to_mapping


def prepare(
    options: argparse.Namespace, *, space_time: bool, defaults: Sequence[str] = ()
) -> tuple[Network, Config, Path]:
    """The network, the config from weights, --config and options, and the path of the weights."""
    weights = options.weight or released_for(space_time=space_time)
    model = load_network(weights, key_networks=False)
    if model.space_time != space_time:
        scripts = "test_vid4.py or test_contin.py" if model.space_time else "eval.py or eval_VISO.py"
        kind = "a space-time network" if model.space_time else "a window network"
        raise InputError(f"'{weights}' holds {model.config.name.upper()} weights, {kind}: evaluate them with {scripts}")
    mapping: dict[str, Any] = read_yaml(options.config) if options.config else {"data": {"val": {"kind": "auto"}}}
    mapping["name"] = run_name(weights)
    mapping["network"] = to_mapping(model.config)
    data = mapping.get("data") or {}
    if isinstance(data, dict):  # `config_from_mapping` refuses other types
        mapping["data"] = {**model.restore_settings, **data}
    values = {key: getattr(options, option) for option, key in KEYS.items()}
    given = [override(key, value) for key, value in values.items() if value is not None]
    save = ["eval.save_frames=true"] if options.save_frames else []
    config = config_from_mapping(mapping, [*defaults, *given, *save, *options.overrides])
    requested, trained = to_mapping(config.network), to_mapping(model.config)
    fixed = [key for key in trained if requested[key] != trained[key]]
    if fixed:
        raise InputError(f"network.{fixed[0]} is fixed by the weights '{weights}': leave it out, or use other weights")
    model.set_restore_settings(vars(config.data))
    load_key_networks_(model, weights)
    if not config.data.val.root and config.data.val.kind == "auto":
        kind, root = ("file", str(samples.natural("test"))) if space_time else ("simulated", "")
        config.data.val = replace(config.data.val, kind=kind, root=root)
    dcn.ensure_built(log=say)
    dcn.set_backend(config.dcn)
    return model, config, weights


def run_name(weights: Path) -> str:
    """Title of a report: the run's name if the weights file has one of the names that every run uses."""
    own = weights.stem in ("weights", "best", "last") and weights.resolve().parent.name
    return own or weights.stem


def sweep_and_report(options: argparse.Namespace) -> dict[str, Any]:
    """Evaluate a space-time network over scales and times: one table, one report, and a folder of pictures per setting, with the
    restored frames if requested."""
    folder = output_of(options)
    columns = [(time, *stride_and_times(time)) for time in options.times]
    for scale in options.scales:
        if not 1 <= scale <= MAX_SCALE:
            raise InputError(f"--scales {scale:g}: expected numbers between 1 and {MAX_SCALE}")
    model, config, weights = prepare(options, space_time=True)
    device = distributed.choose_device(config.device)
    distributed.start(device)
    settings = [setting_name(scale, time) for scale in options.scales for time in options.times]
    with output_folder(folder, EVALUATION, (*REPORTS, "grid.png"), settings, [weights, *inputs(options, config)]):
        layouts = checked_layouts(config, options.scales, columns)
        if note := dark_note(layouts[0], config):
            say(note)
        report = sweep_settings(model, layouts, config, weights, options, columns, device)
        finish(report, folder)
        if options.grid and distributed.is_main():
            write_grid(report, folder / "grid.png")
            print(f"grid:   {folder / 'grid.png'}")
    distributed.stop()
    return report


def checked_layouts(
    config: Config, scales: Sequence[float], columns: Sequence[tuple[float, int, list[float] | None]]
) -> list[Layout]:
    """The clips at every scale of a sweep. Raises InputError if they do not suit all settings, such as a clip too short for a stride."""
    layouts = []
    for scale in scales:
        config.eval = replace(config.eval, scale=scale)
        layouts.append(open_source(config, "val"))
        for _, stride, times in columns:
            config.eval = replace(config.eval, stride=stride, times=times)
            check_clips(layouts[-1], config)
    return layouts


def sweep_settings(
    model: Network,
    layouts: Sequence[Layout],
    config: Config,
    weights: Path,
    options: argparse.Namespace,
    columns: Sequence[tuple[float, int, list[float] | None]],
    device: torch.device,
) -> dict[str, Any]:
    """Evaluate every setting of a sweep. layouts: the clips at every scale.   columns: time, stride and times of every
    `--times` value. Returns the report."""
    sweep: dict[str, list[list[float | None]]] = {}
    report: dict[str, Any] = {}
    for scale, layout in zip(options.scales, layouts, strict=True):
        cells: dict[str, list[float | None]] = {}
        config.eval = replace(config.eval, scale=scale)
        for time, stride, times in columns:
            config.eval = replace(config.eval, stride=stride, times=times)
            place = output_of(options) / setting_name(scale, time)
            part = evaluate(model, layout, config, device=device, folder=place, weights=weights)
            say(
                f"space x{scale:g}, time {time:g}: {part['mean']['psnr_y']:.2f} dB, {part['mean']['gain_psnr_y']:+.2f} dB"
            )
            report = report or part
            for key, value in sweep_values(part).items():
                cells.setdefault(key, []).append(value)
        for key, row in cells.items():
            sweep.setdefault(key, []).append(row)
    report |= {"sweep": {"scales": options.scales, "times": options.times, **sweep}}
    report["title"] = f"{report['config']['name']}: scales and times (clips: the first setting)"
    return report


def setting_name(scale: float, time: float) -> str:
    """Folder of one setting of a sweep."""
    return f"space_x{scale:g}_time_{time:g}"


def inputs(options: argparse.Namespace, config: Config) -> list[Path]:
    """Files and folders that an evaluation reads, except the weights."""
    source = config.data.val
    given = [options.config, source.root, source.list_file, *source.simulate.stills]
    return [Path(name) for name in given if name]


def stride_and_times(time: float) -> tuple[int, list[float] | None]:
    """Frames between key frames and intermediate times for one `--times` value: 4 is four times the frame rate, 0.25 one time."""
    if time >= 2 and float(time).is_integer():
        return int(time), None
    if not 0 < time < 1:
        raise InputError(f"--times {time:g}: expected integers from 2 (times the frame rate) or times between 0 and 1")
    for stride in range(2, 65):
        if abs(time * stride - round(time * stride)) < 1e-6:
            return stride, [time]
    raise InputError(f"--times {time:g}: there is no true frame at that time: use fractions such as 0.25 or 0.375")


def sweep_values(report: dict[str, Any]) -> dict[str, float | None]:
    """The cells of one setting in the sweep's tables."""
    cells = {
        key: report["mean"].get(key) for key in ("psnr_y", "ssim_y", "bicubic_psnr_y", "bicubic_ssim_y", "gain_psnr_y")
    }
    for kind, values in report["groups"].items():
        cells |= {f"{kind}_{key}": values.get(key) for key in ("psnr_y", "bicubic_psnr_y", "gain_psnr_y")}
    return cells


def evaluate_and_report(
    options: argparse.Namespace, *, space_time: bool, defaults: Sequence[str] = ()
) -> dict[str, Any]:
    """Evaluate weights on clips, write report and frames to one folder and print the table."""
    model, config, weights = prepare(options, space_time=space_time, defaults=defaults)
    device = distributed.choose_device(config.device)
    distributed.start(device)
    folder = output_of(options)
    layout = open_source(config, "val")
    count = len(layout.pairs)
    say(f"{count} clip{'s' if count > 1 else ''} ({layout.kind}: {layout.reason})")
    folders = output_folders(config)
    with output_folder(folder, EVALUATION, REPORTS, folders, [weights, *inputs(options, config)]):
        check_clips(layout, config)
        if note := dark_note(layout, config):
            say(note)
        report = evaluate(model, layout, config, device=device, folder=folder, weights=weights)
        finish(report, folder)
    distributed.stop()
    return report


def finish(report: dict[str, Any], folder: Path) -> None:
    """Print the table of a report, then write it, on rank 0: the table is not lost with a full disk."""
    if distributed.is_main():
        print(console_table(report))
        write_report(report, folder)
        print(f"report: {folder / 'report.md'} (also .html, .csv, .json)")
