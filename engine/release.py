"""Write weights for distribution: python -m engine.release OUT W[:SHARE] [W:SHARE ...] [--spacing auto] [--overwrite].

Writes the weighted mean of several weights of one network (for example from two steps of a run) as float16 safetensors
with the network's configuration: half the size of the files of a run. The shares must add up to 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import cli
from data.files import sha256
from data.frame_writer import check_free
from engine.checkpoint import load_network, save_weights, set_setting
from errors import InputError
from models.base import Network
from settings import TEMPORAL_FILTERS


def release(
    out: Path,
    parts: list[tuple[Path, float]],
    *,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> str:
    """Write the mean of `parts` (file, share) to `out` and return its SHA-256.

    settings: spacing, temporal filter and key weights to store with the weights; those that are missing: as in `parts`.

    Raises InputError if the files do not fit each other, or if `out` exists and `overwrite` is not set.
    """
    total = sum(share for _, share in parts)
    if not abs(total - 1) <= 1e-6:
        raise InputError(f"the shares add up to {total:g}, expected 1: for the mean of two files write W1:0.5 W2:0.5")
    check_free(out, "file", overwrite)
    networks = [load_network(path, key_networks=False) for path, _ in parts]
    for key, value in (settings or {}).items():
        for (path, _), network in zip(parts, networks, strict=True):
            set_setting(network, key, value, path)
    for (path, _), network in zip(parts, networks, strict=True):
        if network.config != networks[0].config:
            raise InputError(
                f"'{path}' and '{parts[0][0]}' hold networks of different sizes: average weights of one config"
            )
        if network.restore_settings != networks[0].restore_settings:
            raise InputError(
                f"'{path}' and '{parts[0][0]}' differ in spacing, padding, temporal filter or key weights: choose with --spacing, "
                "--temporal-filter or --key-weights"
            )
    save_weights(out, networks[0], mean_state(networks, [share for _, share in parts]))
    return sha256(out)


def mean_state(networks: Sequence[Network], shares: Sequence[float]) -> dict[str, Tensor]:
    """The weighted mean of the networks' weights, in float16. Raises InputError if it cannot be stored in float16."""
    states = [network.state_dict() for network in networks]
    mean: dict[str, Tensor] = {}
    for name, first in states[0].items():
        if not first.is_floating_point():
            mean[name] = first
            continue
        terms = [share * state[name].double() for state, share in zip(states, shares, strict=True)]
        mean[name] = torch.stack(terms).sum(0).half()
        if not mean[name].isfinite().all():
            raise InputError(
                f"'{name}' does not fit into float16 or is not finite: these weights cannot be stored in half precision"
            )
    return mean


def part(text: str) -> tuple[Path, float]:
    """Parse FILE:SHARE, where FILE may be a released name; the default share is 1."""
    path, colon, share = text.rpartition(":")
    try:
        return (cli.weights(path), float(share)) if colon else (cli.weights(text), 1.0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}': expected FILE or FILE:SHARE, such as W1:0.5") from None


def main() -> None:
    arguments = cli.Parser(
        description="Write weights for distribution: the weighted mean of weights of one network, in half precision.",
    )
    arguments.add_argument("out", type=Path, metavar="OUT", help="the .safetensors file to write")
    arguments.add_argument(
        "parts", type=part, nargs="+", metavar="W[:SHARE]",
        help="weights and their share of the mean (default: 1); shares add up to 1",
    )  # fmt: skip
    arguments.add_argument("--spacing", type=cli.spacing, metavar="N", help="MTDO: data.spacing of OUT, such as auto")
    arguments.add_argument("--temporal-filter", choices=TEMPORAL_FILTERS, help="data.temporal_filter of OUT")
    arguments.add_argument(
        "--key-weights", type=cli.file_names, metavar="FILES",
        help="STNO: data.key_weights of OUT, separated by commas: weights of MTDO that restore the key frames; or none",
    )  # fmt: skip
    arguments.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    options = arguments.parse_args()
    requested = {
        "spacing": options.spacing,
        "temporal_filter": options.temporal_filter,
        "key_weights": options.key_weights,
    }
    settings = {key: value for key, value in requested.items() if value is not None}
    print(
        f"{options.out}: SHA-256 {release(options.out, options.parts, settings=settings, overwrite=options.overwrite)}"
    )


if __name__ == "__main__":
    cli.run(main)
