"""What each part of MTDO gives: python benchmarks/ablation.py [--config FILE] [--seeds 3] [--only atdm_off,tsa_off] [key.sub=value ...].

Trains a config (default: the demo, whose data come with the repository) once per variant and seed: the whole network, and
the network with one thing switched off. All variants of a seed see the same patches in the same order and take the same
number of steps. Prints parameters and the gain over bicubic on the config's validation clips, and how that differs from
the whole network with the same seed: mean and standard deviation over the seeds. All variants take their turn before the
next seed begins; finished runs are kept in --out and an interrupted one goes on where it was, so call it again to continue.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import dcn
from engine import cli
from engine.config import load_config
from engine.report import write_report
from engine.train import STATE, Interrupted, train
from errors import InputError

VARIANTS: dict[str, list[str]] = {
    "whole": [],
    "ctdm_as_published": ["network.ctdm=as_shipped"],  # dead: docs/mtdo.md
    "ctdm_off": ["network.ctdm=off"],
    "atdm_off": ["network.atdm=false"],
    "stdm_off": ["network.stdm=false"],
    "mtdm_off": ["network.atdm=false", "network.stdm=false", "network.ctdm=off"],
    "routes_1_and_2_off": ["network.route1=false", "network.route2=false"],
    "route_3_off": ["network.route3=false"],
    "tsa_off": ["network.tsa=false"],
    "macu_off": ["network.macu=false"],
    "residual_blocks_for_hat": ["network.reconstruction=residual"],
    "three_frames": ["network.frames=3"],
    "seven_frames": ["network.frames=7"],
}


def chosen(only: str | None) -> list[str]:
    names = only.split(",") if only else list(VARIANTS)
    for name in names:
        if name not in VARIANTS:
            raise InputError(f"--only: there is no variant '{name}': take some of {', '.join(VARIANTS)}")
    return ["whole", *(name for name in VARIANTS if name in names and name != "whole")]


def outcome(config_file: str, overrides: list[str], folder: Path) -> dict[str, Any]:
    """The report of one run: read where it is finished, else trained (on)."""
    report = folder / "report.json"
    if not report.is_file():
        config = load_config(config_file, overrides)
        state = folder / STATE
        folder.mkdir(parents=True, exist_ok=True)
        write_report(train(config, folder, state if state.is_file() else None), folder)
    return dict(json.loads(report.read_text("utf-8")))


def spread(values: list[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):+.3f}{deviation}"


def table(gains: dict[str, dict[int, float]], parameters: dict[str, int]) -> str:
    lines = ["| variant | parameters | seeds | gain, dB | against the whole, dB |", "|---|---|---|---|---|"]
    for name, by_seed in gains.items():
        against = [gain - gains["whole"][seed] for seed, gain in by_seed.items()]
        lines.append(
            f"| {name} | {parameters[name]:,} | {len(by_seed)} | {spread(list(by_seed.values()))} "
            f"| {'' if name == 'whole' else spread(against)} |"
        )
    return "\n".join(lines)


def main() -> int:
    arguments = cli.parser("Train MTDO with one part switched off at a time.", __doc__ or "")
    arguments.add_argument("--config", default="configs/mtdo_demo.yaml")
    arguments.add_argument("--seeds", type=int, default=3, help="how many")
    arguments.add_argument(
        "--only", help="variants to run beside the whole network, with commas between (default: all)"
    )
    arguments.add_argument("--out", type=Path, default=Path("runs/ablation"))
    options = cli.parse(arguments)
    dcn.ensure_built(log=print)
    names = chosen(options.only)
    gains: dict[str, dict[int, float]] = {name: {} for name in names}
    parameters: dict[str, int] = {}
    try:
        for seed in range(1, options.seeds + 1):
            for name in names:
                given = [*options.overrides, *VARIANTS[name], f"seed={seed}", f"name={name}-{seed}"]
                report = outcome(options.config, given, options.out / f"{name}-{seed}")
                gains[name][seed] = report["mean"]["gain_psnr_y"]
                parameters[name] = report["network"]["parameters"]
                print(f"seed {seed}, {name}: {gains[name][seed]:+.3f} dB", flush=True)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return stop.code
    finally:
        print(table({name: by_seed for name, by_seed in gains.items() if by_seed}, parameters))
    return 0


if __name__ == "__main__":
    cli.run(main)
