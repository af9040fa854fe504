"""Scale the residual of MTDO weights: python experiments/soften.py OUT W FACTOR.

The network adds a residual to bicubic interpolation. Weights that sharpen noise too much in static scenes gain when the
residual is made smaller; a factor slightly below 1 costs nothing where the scene moves (experiments/diary.md).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import cli
from engine.checkpoint import load_network
from errors import InputError
from experiments import new_weights
from models.mtdo import MTDO


def main() -> None:
    arguments = new_weights.parser("Scale the residual of MTDO weights.")
    arguments.add_argument("weights", type=cli.weights, metavar="W", help="MTDO weights with residual: bicubic")
    arguments.add_argument("factor", type=float, metavar="FACTOR", help="of the residual, such as 0.95")
    options = new_weights.parse(arguments)
    network = load_network(options.weights)
    if not isinstance(network, MTDO) or network.config.residual != "bicubic":
        raise InputError(f"'{options.weights}' is not MTDO with residual: bicubic: nothing to scale")
    layers = [network.reconstruction.conv_last, getattr(network.reconstruction, "wide_leave", None)]
    with torch.no_grad():
        for layer in filter(None, layers):
            layer.weight.mul_(options.factor)
            layer.bias.mul_(options.factor)
    new_weights.write(options.out, network)


if __name__ == "__main__":
    cli.run(main)
