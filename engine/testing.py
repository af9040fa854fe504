"""The evaluation scripts' common part: weights and options in, report out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dcn
from engine import cli, distributed
from engine.checkpoint import load_network
from engine.config import Config, config_from_mapping, read_yaml
from engine.evaluate import evaluate
from engine.report import console_table, write_report
from engine.sources import open_source
from errors import InputError
from settings import to_mapping

WEIGHTS = {"mtdo": Path("checkpoints/mtdo_s.safetensors"), "stno": Path("checkpoints/stno_s.safetensors")}
# options of the scripts and the config keys they stand for
KEYS = {
    "datapath": "data.val.root",
    "kind": "data.val.kind",
    "split": "data.val.split",
    "list": "data.val.list_file",
    "protocol": "eval.protocol",
    "frames": "eval.frames",
    "device": "device",
}


def parser(description: str, example: str, out: str) -> argparse.ArgumentParser:
    """The options that all evaluation scripts have."""
    result = cli.parser(description, example)
    result.add_argument(
        "--weight", help="weights: .safetensors of a run, or a published .pth (default: the small released ones)"
    )
    result.add_argument("--config", help="experiment whose data and eval settings are taken (default: none needed)")
    result.add_argument("--datapath", help="folder of test clips in any known layout (default: simulated clips)")
    result.add_argument("--outputpath", default=out, help=f"where reports and frames go (default: {out})")
    result.add_argument("--kind", help="layout of the folder (default: found out)")
    result.add_argument("--split", help="split of a layout that has several, such as test")
    result.add_argument("--list", help="list file of CLIP or CLIP/FRAME lines")
    result.add_argument(
        "--protocol", choices=["standard", "paper_mtdo"], help="how PSNR and SSIM are taken (docs/metrics.md)"
    )
    result.add_argument("--frames", help="only the first so many frames of each clip")
    result.add_argument("--device", help="auto, cpu, cuda")
    result.add_argument("--save-frames", action="store_true", help="write the restored frames as PNG")
    return result


def weights_path(options: argparse.Namespace, network: str) -> Path:
    """The weights asked for, or the small released ones."""
    if options.weight:
        return Path(options.weight)
    default = WEIGHTS[network]
    if not default.is_file():
        raise InputError(
            f"no weights: '{default}' is not there: name a file with --weight, such as runs/NAME/weights.safetensors"
        )
    return default


def prepare(options: argparse.Namespace, network: str, defaults: Sequence[str] = ()) -> tuple[Any, Config, Path]:
    """The network, the config made of weights, --config and options, and the weights' path."""
    weights = weights_path(options, network)
    model = load_network(weights)
    name = model.config.name
    if name != network:
        raise InputError(
            f"'{weights}' holds {name.upper()} weights: this script tests {network.upper()}: take other weights"
        )
    mapping = read_yaml(options.config) if options.config else {"name": weights.stem, "data": {"val": {"kind": "auto"}}}
    mapping["network"] = to_mapping(model.config)
    given = [
        f"{key}={getattr(options, option)}" for option, key in KEYS.items() if getattr(options, option) is not None
    ]
    save = ["eval.save_frames=true"] if options.save_frames else []
    config = config_from_mapping(mapping, [*defaults, *given, *save, *options.overrides])
    if not config.data.val.root and config.data.val.kind == "auto":
        config.data.val = replace(config.data.val, kind="simulated")
    dcn.ensure_built(log=say)
    dcn.set_backend(config.dcn)
    return model, config, weights


def evaluate_and_report(options: argparse.Namespace, network: str, defaults: Sequence[str] = ()) -> dict[str, Any]:
    """Evaluate weights on clips, write the report beside the frames and print its table."""
    model, config, weights = prepare(options, network, defaults)
    device = distributed.choose_device(config.device)
    distributed.start(device)
    folder = Path(options.outputpath)
    layout = open_source(config, "val")
    say(f"{len(layout.pairs)} clips ({layout.kind}: {layout.reason})")
    report = evaluate(model, layout, config, device=device, folder=folder, weights=weights)
    finish(report, folder)
    return report


def finish(report: dict[str, Any], folder: Path) -> None:
    if distributed.is_main():
        write_report(report, folder)
        print(console_table(report))
        print(f"report: {folder / 'report.md'} (also .html, .csv, .json)")
    distributed.stop()


def say(text: str) -> None:
    if distributed.is_main():
        print(text, flush=True)
