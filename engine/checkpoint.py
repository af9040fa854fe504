"""Weights as safetensors, the full training state in one file, and the published weight files.

A weights file holds the network's tensors and, in its header, the network's config: it can be opened with nothing else at hand.
A state file holds everything that an exact resume needs: network, averaged weights, optimizer moments, scaler and step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import models
from engine.config import in_repository
from engine.tensor_files import load_pth, load_tensors, save_tensors
from errors import InputError
from settings import to_mapping

__all__ = ["load_network", "load_state", "load_tensors", "released", "save_tensors", "save_weights"]

DEFAULT_SCALE = 4.0  # where none is asked for
RELEASED_MTDO = {2.0: "checkpoints/mtdo_s_x2.safetensors", DEFAULT_SCALE: "checkpoints/mtdo_s.safetensors"}  # of scale
RELEASED_STNO = "checkpoints/stno_s.safetensors"  # of any


def save_weights(path: str | Path, network: nn.Module, state: Mapping[str, Tensor] | None = None, **facts: Any) -> None:
    """Write a network's weights (or `state` in their place) with its config, so that `load_network` needs the file alone."""
    config: Any = network.config
    header = {"network": to_mapping(config), **facts}
    save_tensors(path, state if state is not None else network.state_dict(), header)


def released(network: str, scale: float | None = None) -> Path:
    """The small released weights of "mtdo" (of one scale) or "stno" (of any). Raises `InputError` if there are none."""
    scale = DEFAULT_SCALE if scale is None else scale
    if network == "mtdo" and scale not in RELEASED_MTDO:
        known = " and ".join(f"{known:g}" for known in RELEASED_MTDO)
        raise InputError(f"no MTDO weights of scale {scale:g} come with the repository, only of {known}: take STNO's")
    path = in_repository(RELEASED_MTDO[scale] if network == "mtdo" else RELEASED_STNO)
    if not path.is_file():
        raise InputError(
            f"no weights: '{path}' is not there: name a file with --weight, such as runs/NAME/weights.safetensors"
        )
    return path


def is_state(header: Mapping[str, Any]) -> bool:
    """Whether a file with this header is a training state."""
    return {"step", "scaler", "config"} <= header.keys()


def load_network(path: str | Path) -> nn.Module:
    """The network in a weights file, in eval mode on the CPU, float32.

    `path` is one of ours (.safetensors with a header, also a training state, whose averaged weights are taken), or a published
    .pth/.pt/.ckpt file of either network (read with `weights_only=True`). Raises `InputError` if it is none of these.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        state = load_pth(path)
        return models.load_official(_guess_name(state, path), state)
    tensors, header = load_tensors(path)
    if "network" not in header:
        return models.load_official(_guess_name(tensors, path), tensors)
    if is_state(header):
        tensors = state_part(tensors, "ema.") or state_part(tensors, "network.")
    try:
        config = models.config_from_mapping(header["network"])
    except InputError as error:
        raise InputError(f"'{path}': {error}") from None
    with torch.device("meta"):  # shapes without memory: the header may claim any size
        check_fit(models.build(config).state_dict(), tensors, path)
    network = models.build(config)
    load_state(network, tensors, path)
    return network.eval()


def state_part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of a training state whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def check_fit(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Raise one `InputError` that lists what is missing, unexpected or of another shape in `tensors`."""
    problems = [f"{name} missing" for name in own if name not in tensors]
    problems += [f"{name} unexpected" for name in tensors if name not in own]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if problems:
        raise InputError(
            f"the weights in '{source}' do not fit this network: {first_few(problems, '; ')}: use the config they were trained with"
        )


def load_state(
    network: nn.Module, tensors: Mapping[str, Tensor], source: str | Path, *, partial: bool = False
) -> list[str]:
    """Load `tensors` into `network`; a misfit is one line that lists what does not fit.

    partial: take what fits in name and shape, leave the rest of the network as it is and return its names (else none);
    tensors that the network does not have are left aside without a word.
    """
    own = network.state_dict()
    left: list[str] = []
    if partial:
        left = [name for name, tensor in own.items() if name not in tensors or tensors[name].shape != tensor.shape]
        if len(left) == len(own):
            raise InputError(f"nothing in '{source}' fits this network: start from other weights")
        kept = set(left)
        tensors = {name: tensor if name in kept else tensors[name] for name, tensor in own.items()}
    check_fit(own, tensors, source)
    network.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in tensors.items()})
    bad = [name for name, tensor in network.state_dict().items() if not torch.isfinite(tensor).all()]
    if bad:
        raise InputError(f"the weights in '{source}' hold NaN or infinite values ({bad[0]}): take another checkpoint")
    return left


def first_few(names: Sequence[str], separator: str = ", ", count: int = 4) -> str:
    """The first names of a list that may be long, and how many more there are."""
    more = [f"and {len(names) - count} more"] if len(names) > count else []
    return separator.join([*names[:count], *more])


def _guess_name(state: Mapping[str, Tensor], path: Path) -> str:
    """Which network a published state dict belongs to, by names that only one of them has."""
    names = {name.removeprefix("module.").split(".")[0] for name in state}
    for name, marks in {
        "mtdo": {"hat", "msd", "A_tdm"},
        "stno": {"flownet", "forward_branch", "backward_branch"},
    }.items():
        if names & marks:
            return name
    raise InputError(f"'{path}' holds neither MTDO nor STNO weights (its first tensor is '{next(iter(state), None)}')")
