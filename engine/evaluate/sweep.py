"""test_contin.py: evaluate a space-time network at every combination of scales and times, with one table and one report."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from data.layouts import Layout
from engine import distributed
from engine.config import MAX_SCALE, Config
from engine.distributed import say
from engine.evaluate.measure import check_clips, dark_note, evaluate
from engine.evaluate.options import output_of
from engine.evaluate.output import EVALUATION, REPORTS, output_folder
from engine.evaluate.scripts import finish, inputs, prepare
from engine.report.page.grid import write_grid
from engine.report.tables import number
from engine.sources import open_source
from errors import InputError


class TimeSetting(NamedTuple):
    """One value of `--times`: 4 is four times the frame rate, 0.25 one intermediate time."""

    value: float
    stride: int  # true frames from one key frame to the next
    times: list[float] | None  # that are measured, in (0, 1); None: of all true frames

    @classmethod
    def of(cls, value: float) -> TimeSetting:
        """Raises InputError for a value without true frames to measure."""
        if value >= 2 and float(value).is_integer():
            return cls(value, int(value), None)
        if not 0 < value < 1:
            raise InputError(
                f"--times {value:g}: expected integers from 2 (times the frame rate) or times between 0 and 1"
            )
        for stride in range(2, 65):
            if abs(value * stride - round(value * stride)) < 1e-6:
                return cls(value, stride, [value])
        raise InputError(f"--times {value:g}: there is no true frame at that time: use fractions such as 0.25 or 0.375")


def sweep_and_report(options: argparse.Namespace) -> dict[str, Any]:
    """Evaluate at `--scales` and `--times`, write the report and, for each setting, a folder with its pictures and the restored frames
    if requested; returns the report."""
    folder = output_of(options)
    times = [TimeSetting.of(value) for value in options.times]
    for scale in options.scales:
        if not 1 <= scale <= MAX_SCALE:
            raise InputError(f"--scales {scale:g}: expected numbers between 1 and {MAX_SCALE}")
    network, config, weights = prepare(options, space_time=True)
    device = distributed.choose_device(config.device)
    distributed.start(device)
    folders = [setting_name(scale, time) for scale in options.scales for time in options.times]
    with output_folder(folder, EVALUATION, (*REPORTS, "grid.png"), folders, [weights, *inputs(options, config)]):
        layouts = checked_layouts(config, options.scales, times)
        if note := dark_note(layouts[options.scales[0]], config):
            say(note)
        measure = partial(evaluate, network, device=device, weights=weights)
        report = evaluate_settings(measure, config, layouts, times, folder)
        finish(report, folder)
        if options.grid and distributed.is_main():
            write_grid(report, folder / "grid.png")
            print(f"grid:   {folder / 'grid.png'}")
    distributed.stop()
    return report


def checked_layouts(config: Config, scales: Sequence[float], times: Sequence[TimeSetting]) -> dict[float, Layout]:
    """The clips at every scale. Raises InputError if they do not suit all settings, such as a clip too short for a stride."""
    layouts: dict[float, Layout] = {}
    for scale in scales:
        config.eval = replace(config.eval, scale=scale)
        layouts[scale] = open_source(config, "val")
        for time in times:
            config.eval = replace(config.eval, stride=time.stride, times=time.times)
            check_clips(layouts[scale], config)
    return layouts


def evaluate_settings(
    measure: Callable[..., dict[str, Any]],
    config: Config,
    layouts: Mapping[float, Layout],
    times: Sequence[TimeSetting],
    folder: Path,
) -> dict[str, Any]:
    """The report of all settings, with the figures of the clips from the first one.

    measure(layout, config, folder=...): `engine.evaluate.measure.evaluate` of a network.   layouts: the clips by scale.
    """
    sweep: dict[str, list[list[float | None]]] = {}
    report: dict[str, Any] = {}
    crops: set[int] = set()
    for scale, layout in layouts.items():
        row: dict[str, list[float | None]] = {}
        for time in times:
            config.eval = replace(config.eval, scale=scale, stride=time.stride, times=time.times)
            part = measure(layout, config, folder=folder / setting_name(scale, time.value))
            gain = number(part["mean"]["gain_psnr_y"], "+.2f")
            say(f"space x{scale:g}, time {time.value:g}: {part['mean']['psnr_y']:.2f} dB, {gain} dB")
            report = report or part
            crops.add(part["crop"])
            for key, value in sweep_values(part).items():
                row.setdefault(key, []).append(value)
        for key, cells in row.items():
            sweep.setdefault(key, []).append(cells)
    if len(crops) > 1:
        report["crop"] = None
        report["settings"]["border"] = "as many pixels as the scale, rounded up, are left out"
    report["sweep"] = {"scales": list(layouts), "times": [time.value for time in times], **sweep}
    report["title"] = f"{report['config']['name']}: scales and times (clips: the first setting)"
    return report


def setting_name(scale: float, time: float) -> str:
    """Folder of one setting."""
    return f"space_x{scale:g}_time_{time:g}"


def sweep_values(report: dict[str, Any]) -> dict[str, float | None]:
    """The cells of one setting in the tables over scales and times."""
    cells = {
        key: report["mean"].get(key) for key in ("psnr_y", "ssim_y", "bicubic_psnr_y", "bicubic_ssim_y", "gain_psnr_y")
    }
    for kind, values in report["groups"].items():
        cells |= {f"{kind}_{key}": values.get(key) for key in ("psnr_y", "bicubic_psnr_y", "gain_psnr_y")}
    return cells
