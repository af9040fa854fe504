"""Shared by the scripts that make weights from other weights: the options of the output and its file."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import cli
from data.files import sha256
from data.frame_writer import check_free
from engine.checkpoint import save_weights
from engine.release import mean_state
from models.base import Network


def parser(description: str) -> cli.Parser:
    """A parser with OUT, the first argument, and --overwrite."""
    result = cli.Parser(description=description)
    result.add_argument("out", type=Path, metavar="OUT", help="the .safetensors file to write")
    result.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    return result


def parse(arguments: cli.Parser) -> Namespace:
    """The options. Raises InputError if OUT exists and may not be replaced."""
    options = arguments.parse_args()
    check_free(options.out, "file", options.overwrite)
    return options


def write(path: Path, network: Network) -> None:
    """Write the network in float16 and print the file's SHA-256."""
    save_weights(path, network, mean_state([network], [1.0]))
    print(f"{path}: SHA-256 {sha256(path)}")
