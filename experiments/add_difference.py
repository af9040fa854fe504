"""Carry a training over to related weights: python experiments/add_difference.py OUT W BEFORE AFTER SHARE.

Adds SHARE * (AFTER - BEFORE) to W, tensor by tensor, where the three shapes agree ("task arithmetic", Ilharco et al., ICLR 2023). If W
was trained from BEFORE for another scale, it gains part of what AFTER learnt later (experiments/diary.md); the last layers keep W's values.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import cli
from engine.checkpoint import load_network
from errors import InputError
from experiments import new_weights


def main() -> None:
    arguments = new_weights.parser("Add the difference of two weights to others.")
    arguments.add_argument(
        "weights", type=cli.weights, metavar="W", help="weights trained from BEFORE, such as for another scale"
    )
    arguments.add_argument("before", type=cli.weights, metavar="BEFORE")
    arguments.add_argument("after", type=cli.weights, metavar="AFTER", help="BEFORE after more training")
    arguments.add_argument("share", type=float, metavar="SHARE", help="of the difference, such as 0.5")
    options = new_weights.parse(arguments)
    network = load_network(options.weights)
    before, after = (load_network(path).state_dict() for path in (options.before, options.after))
    changed = 0
    for name, tensor in network.state_dict().items():
        found = [each[name].shape for each in (before, after) if name in each]
        if tensor.is_floating_point() and found == [tensor.shape] * 2:
            tensor.add_(options.share * (after[name] - before[name]))
            changed += 1
    if not changed:
        raise InputError(f"'{options.before}' and '{options.weights}' have no tensors in common: name related weights")
    new_weights.write(options.out, network)


if __name__ == "__main__":
    cli.run(main)
