"""Scale the residual of MTDO weights: python experiments/soften.py OUT W FACTOR.

The network adds a residual to bicubic interpolation. Weights that sharpen noise too much in static scenes gain when the
residual is made smaller; a factor slightly below 1 costs nothing where the scene moves (experiments/diary.md).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import cli
from data.files import sha256
from data.frame_writer import check_free
from engine.checkpoint import load_network, save_weights
from engine.release import mean_state
from errors import InputError
from models.mtdo import MTDO


def main() -> None:
    arguments = argparse.ArgumentParser(description="Scale the residual of MTDO weights.")
    arguments.add_argument("out", type=Path, metavar="OUT", help="the .safetensors file to write")
    arguments.add_argument("weights", type=Path, metavar="W", help="MTDO weights with residual: bicubic")
    arguments.add_argument("factor", type=float, metavar="FACTOR", help="of the residual, such as 0.95")
    arguments.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    options = arguments.parse_args()
    check_free(options.out, "file", options.overwrite)
    network = load_network(options.weights)
    if not isinstance(network, MTDO) or network.config.residual != "bicubic":
        raise InputError(f"'{options.weights}' is not MTDO with residual: bicubic: nothing to scale")
    layers = [network.reconstruction.conv_last, getattr(network.reconstruction, "wide_leave", None)]
    with torch.no_grad():
        for layer in filter(None, layers):
            layer.weight.mul_(options.factor)
            layer.bias.mul_(options.factor)
    save_weights(options.out, network, mean_state([network], [1.0]))
    print(f"{options.out}: SHA-256 {sha256(options.out)}")


if __name__ == "__main__":
    cli.run(main)
