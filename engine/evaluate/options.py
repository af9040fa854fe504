"""The command-line options of the evaluation scripts. It imports no PyTorch, so that --help and wrong options are answered at once."""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

import cli
from errors import InputError

# options of the scripts and their config keys
KEYS = {
    "datapath": "data.val.root",
    "kind": "data.val.kind",
    "split": "data.val.split",
    "list": "data.val.list_file",
    "protocol": "eval.protocol",
    "frames": "eval.frames",
    "device": "device",
}


def evaluation_parser(
    description: str, example: str, out: str | None, *, always_saves: bool = False
) -> argparse.ArgumentParser:
    """Add the options shared by all evaluation scripts. out: folder of the results; None: they are only printed.
    always_saves: frames are written without an option."""
    result = cli.parser(description, example)
    result.add_argument(
        "--weight",
        type=cli.weights,
        metavar="FILE",
        help="weights: .safetensors of a run, a published .pth, or a released name such as mtdo_s_x2 (default: mtdo_s or stno_s)",
    )
    result.add_argument("--config", type=cli.filled, help="experiment file for the data and eval settings (optional)")
    result.add_argument(
        "--datapath",
        type=cli.filled,
        help="folder of test clips in any known layout (default: the samples of the repository)",
    )
    if out:
        result.add_argument("--outputpath", type=cli.filled, help=f"folder for reports and frames (default: {out})")
    result.add_argument("--kind", type=cli.filled, help="layout of the folder (default: detected)")
    result.add_argument("--split", type=cli.filled, help="split of a layout that has several, such as test")
    result.add_argument("--list", type=cli.filled, help="list file of CLIP or CLIP/FRAME lines")
    result.add_argument(
        "--protocol", choices=["standard", "paper_mtdo"], help="definition of PSNR and SSIM (docs/metrics.md)"
    )
    result.add_argument("--frames", type=int, help="number of frames of each clip (default: all)")
    result.add_argument("--device", help="auto, cpu, cuda")
    result.set_defaults(default_output=out)
    if always_saves or not out:
        result.set_defaults(save_frames=always_saves)
    else:
        result.add_argument(
            "--save-frames",
            action="store_true",
            help="write the restored frames: PNG, or TIFF where the ground truth is georeferenced, stretched or float",
        )
    return result


def override(key: str, value: str | int) -> str:
    """An option's value as an override. Text is quoted, because a folder may have a name such as 2024 or `clips: new`."""
    text = yaml.safe_dump(value, default_style='"') if isinstance(value, str) else str(value)
    return f"{key}={text}"


def number(text: str) -> float | str:
    """Parse a number of an option with several; an override that follows them stays text."""
    return text if "=" in text else float(text)


def move_overrides_(options: argparse.Namespace, *names: str) -> None:
    """Move overrides to their place, in place: argparse gives an option with several values all words that follow it."""
    for name in names:
        words = getattr(options, name)
        numbers = dict.fromkeys(word for word in words if not isinstance(word, str))  # each one measured once
        setattr(options, name, list(numbers))
        options.overrides = [*options.overrides, *(word for word in words if isinstance(word, str))]
        if not getattr(options, name):
            raise InputError(f"--{name}: expected numbers")


def output_of(options: argparse.Namespace) -> Path:
    """The folder of `--outputpath`."""
    return Path(options.outputpath or options.default_output)
