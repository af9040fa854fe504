"""Start weights with a longer window and the wide path, from weights of MTDO: python experiments/widen.py IN OUT --frames 5

The new frames start without weight, so the network starts as the old one. One part cannot: with five frames the skipped
differences are I_0 - I_2 and I_2 - I_4, not I_1 - I_3. Each starts with an equal share of the sum of the old weights.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor

import cli
import models
from data.frame_writer import check_free
from engine.checkpoint import load_network, save_weights
from errors import InputError
from models.mtdo import MTDO


def spread(tensor: Tensor, old: int, new: int, axis: int) -> Tensor:
    """`old` equal blocks along `axis` in the middle of `new` blocks, the others zero."""
    block = tensor.shape[axis] // old
    result = tensor.new_zeros([block * new if n == axis else size for n, size in enumerate(tensor.shape)])
    result.narrow(axis, (new - old) // 2 * block, old * block).copy_(tensor)
    return result


def widened(source: Path, frames: int) -> MTDO:
    """The network of `source` with `frames` frames and `wide: true`."""
    old = load_network(source)
    if not isinstance(old, MTDO) or frames < old.config.frames:
        raise InputError(f"'{source}' is not MTDO of at most {frames} frames: name other weights, or a larger --frames")
    before = old.config.frames
    network = models.build(replace(old.config, frames=frames, wide=True))
    state, known = network.state_dict(), old.state_dict()
    for name, tensor in known.items():
        if tensor.shape == state[name].shape:
            state[name] = tensor
        elif name.startswith("atdm.gather"):
            state[name] = spread(tensor, before - 1, frames - 1, 1)
        elif name.startswith("stdm.gather"):
            mean = sum(tensor.chunk(before // 2, 1)) / (frames // 2)
            state[name] = torch.cat([mean] * (frames // 2), 1)
        else:
            state[name] = spread(tensor, before, frames, 0 if name.startswith("route3.gate") else 1)
    network.load_state_dict(state)
    return network


def main() -> None:
    arguments = cli.Parser(description="Start weights with a longer window and the wide path, from weights of MTDO.")
    arguments.add_argument("source", type=cli.weights, metavar="IN")
    arguments.add_argument("out", type=Path, metavar="OUT", help="the .safetensors file to write")
    arguments.add_argument("--frames", type=int, default=5, help="frames of the new window, odd (default: 5)")
    arguments.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    options = arguments.parse_args()
    check_free(options.out, "file", options.overwrite)
    save_weights(options.out, widened(options.source, options.frames), step=0)


if __name__ == "__main__":
    cli.run(main)
