"""Carry a training over to related weights: python experiments/add_difference.py OUT W BEFORE AFTER SHARE.

Adds SHARE * (AFTER - BEFORE) to W, tensor by tensor, where the three shapes agree ("task arithmetic", Ilharco et al., ICLR 2023). If W
was trained from BEFORE for another scale, it gains part of what AFTER learnt later (experiments/diary.md); the last layers keep W's values.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import cli
from data.files import sha256
from data.frame_writer import check_free
from engine.checkpoint import load_network, save_weights
from engine.release import mean_state
from errors import InputError


def main() -> None:
    arguments = argparse.ArgumentParser(description="Add the difference of two weights to others.")
    arguments.add_argument("out", type=Path, metavar="OUT", help="the .safetensors file to write")
    arguments.add_argument(
        "weights", type=Path, metavar="W", help="weights trained from BEFORE, such as for another scale"
    )
    arguments.add_argument("before", type=Path, metavar="BEFORE")
    arguments.add_argument("after", type=Path, metavar="AFTER", help="BEFORE after more training")
    arguments.add_argument("share", type=float, metavar="SHARE", help="of the difference, such as 0.5")
    arguments.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    options = arguments.parse_args()
    check_free(options.out, "file", options.overwrite)
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
    save_weights(options.out, network, mean_state([network], [1.0]))
    print(f"{options.out}: SHA-256 {sha256(options.out)}")


if __name__ == "__main__":
    cli.run(main)
