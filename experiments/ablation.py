"""Gain and cost of the parts and sizes of MTDO.

    python experiments/ablation.py [--what sizes] [--config FILE] [--seeds 3] [--only atdm_off,tsa_off] [key.sub=value ...]

Trains a config (default: the demo, whose data come with the repository) once per variant and seed. parts: the config's network,
then with one part switched off at a time. sizes: the network of configs/mtdo_s.yaml, then wider, narrower and deeper ones. All
variants of a seed see the same patches in the same order for the same number of steps. Prints parameters, seconds a frame
(160x160 LR, fp32, medians of alternating rounds), the gain over bicubic on the config's validation clips, and its difference
from the first variant with the same seed: mean and standard deviation over the seeds. Finished runs are kept in --out;
the same command continues. Writes ablation.md, and with `sizes` ablation.png (gain over seconds), into --out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

import cli
import dcn
import models
from benchmarks.figure import needed, plot
from data.clips import ArrayClip
from engine.config import Config, config_from_mapping, read_yaml
from engine.report.files import write_report
from engine.report.tables import number
from engine.restore import Options, restore
from engine.train.loop import train
from engine.train.states import STATE
from engine.train.stops import Interrupted
from errors import InputError

CONFIGS = Path(__file__).parents[1] / "configs"
EXAMPLE = """  python experiments/ablation.py                                  every part off once, three seeds
  python experiments/ablation.py --what sizes --seeds 1
  python experiments/ablation.py --only atdm_off,tsa_off train.steps=2000"""
PARTS = {
    "full": "",
    "ctdm_as_published": "ctdm=as_shipped",  # dead: docs/mtdo.md
    "ctdm_off": "ctdm=off",
    "atdm_off": "atdm=false",
    "stdm_off": "stdm=false",
    "mtdm_off": "atdm=false stdm=false ctdm=off",
    "routes_1_and_2_off": "route1=false route2=false",
    "route_3_off": "route3=false",
    "tsa_off": "tsa=false",
    "macu_off": "macu=false",
    "residual_blocks_for_hat": "reconstruction=residual",
    "three_frames": "frames=3",
    "seven_frames": "frames=7",
}
SIZES = {
    "mtdo_s": "",
    "channels_8": "channels=8",
    "channels_32": "channels=32",
    "embed_32": "hat.embed=32 hat.heads=1",
    "embed_96": "hat.embed=96 hat.heads=3",
    "one_block": "hat.depths=[1]",
    "four_blocks": "hat.depths=[4]",
    "five_frames": "frames=5",
}
WHAT = {"parts": PARTS, "sizes": SIZES}


def chosen(variants: dict[str, str], only: str | None) -> list[str]:
    """The first variant, which is the reference, and the requested ones."""
    names = only.split(",") if only else list(variants)
    for name in names:
        if name not in variants:
            raise InputError(f"--only: there is no variant '{name}': expected some of {', '.join(variants)}")
    return [name for index, name in enumerate(variants) if index == 0 or name in names]


def outcome(config: Config, folder: Path) -> dict[str, Any]:
    """The report of one run: read where it is finished, else trained (on)."""
    report, state, before = folder / "report.json", folder / STATE, folder / "config.yaml"
    if before.is_file() and config_from_mapping(read_yaml(before)) != config:
        raise InputError(f"'{folder}' contains a run with other settings: choose another --out")
    if not report.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_report(train(config, folder, state if state.is_file() else None), folder)
    return dict(json.loads(report.read_text("utf-8")))


def seconds_a_frame(configs: dict[str, Config], rounds: int = 5) -> dict[str, float]:
    """Median seconds of one more frame of a clip, with features shared between windows; random weights."""
    clip = ArrayClip("noise", np.random.default_rng(0).integers(0, 255, (rounds + 6, 160, 160, 3), dtype=np.uint8))
    streams = {
        name: restore(models.build(config.network).eval(), clip, options=Options(precision="fp32"))
        for name, config in configs.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in configs}
    for turn in range(rounds + 1):
        for name, frames in streams.items():
            start = time.perf_counter()
            next(frames)
            if turn:  # the first frame fills the window
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def spread(values: list[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{number(statistics.mean(values), '+.3f')}{deviation}"


def table(gains: dict[str, dict[int, float]], parameters: dict[str, int], seconds: dict[str, float]) -> str:
    first = next(iter(gains))
    lines = [
        f"| variant | parameters | s a frame | seeds | gain, dB | against {first}, dB |",
        "|---|---|---|---|---|---|",
    ]
    for name, by_seed in gains.items():
        against = [gain - gains[first][seed] for seed, gain in by_seed.items()]
        cells = [name, f"{parameters[name]:,}", f"{seconds[name]:.3f}" if seconds else "", str(len(by_seed))]
        lines.append(
            f"| {' | '.join(cells)} | {spread(list(by_seed.values()))} | {'' if name == first else spread(against)} |"
        )
    return "\n".join(lines)


def parsed() -> argparse.Namespace:
    """The options of the command line."""
    arguments = cli.parser("Train MTDO with one part switched off at a time, or in other sizes.", EXAMPLE)
    arguments.add_argument(
        "--what", choices=list(WHAT), default="parts", help="variants: parts or sizes (default: parts)"
    )
    arguments.add_argument(
        "--config", default=str(CONFIGS / "mtdo_demo.yaml"), help="data and training (default: the demo)"
    )
    arguments.add_argument("--seeds", type=int, default=3, help="how many")
    arguments.add_argument(
        "--only", help="variants to run in addition to the first, separated by commas (default: all)"
    )
    arguments.add_argument("--out", type=Path, help="folder of the runs (default: runs/ablation_WHAT)")
    options = cli.parse(arguments)
    if options.seeds < 1:
        raise InputError(f"--seeds: expected 1 or more, got {options.seeds}")
    return options


def main() -> int:
    options = parsed()
    names = chosen(WHAT[options.what], options.only)
    needed()
    out = options.out or Path(f"runs/ablation_{options.what}")
    dcn.ensure_built(log=print)

    def config(name: str, seed: int) -> Config:
        mapping = read_yaml(options.config)
        if options.what == "sizes":
            mapping["network"] = read_yaml(CONFIGS / "mtdo_s.yaml")["network"]
        network = [f"network.{setting}" for setting in WHAT[options.what][name].split()]
        return config_from_mapping(mapping, [*options.overrides, *network, f"seed={seed}", f"name={name}-{seed}"])

    gains: dict[str, dict[int, float]] = {}
    parameters: dict[str, int] = {}
    try:
        for seed in range(1, options.seeds + 1):
            for name in names:
                report = outcome(config(name, seed), out / f"{name}-{seed}")
                gains.setdefault(name, {})[seed] = report["mean"]["gain_psnr_y"]
                parameters[name] = report["network"]["parameters"]
                print(f"seed {seed}, {name}: {number(gains[name][seed], '+.3f')} dB", flush=True)
    except Interrupted as stop:
        print(table(gains, parameters, {}) if gains else "", stop, sep="\n")
        return stop.code
    with torch.inference_mode():
        seconds = seconds_a_frame({name: config(name, 1) for name in names})
    text = table(gains, parameters, seconds)
    if not options.only:
        (out / "ablation.md").write_text(text + "\n", "utf-8")
    print(text)
    if options.what == "sizes":
        points = {name: [(seconds[name], statistics.mean(gains[name].values()))] for name in names}
        title = "Sizes of MTDO after equal steps"
        plot(out / "ablation.png", title, ("seconds a frame, 160x160", "gain over bicubic, dB"), points)
    return 0


if __name__ == "__main__":
    cli.run(main)
