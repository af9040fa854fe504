"""Weights as safetensors, the full training state in one file, and the published weight files.

A weights file has the network's tensors and, in its header, the network's config, so it can be opened without anything else.
A state file has everything that an exact resume needs: network, averaged weights, optimizer moments, scaler and step.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import models
from engine.tensor_files import load_pth, load_tensors, save_tensors
from errors import InputError
from models.base import RESTORE_SETTINGS, SPACE_TIME_SETTINGS, Network, SpaceTimeNetwork, WindowNetwork, check_setting
from models.weights import mismatch
from settings import to_mapping

__all__ = ["load_network", "load_state", "load_tensors", "save_tensors", "save_weights"]


def save_weights(path: str | Path, network: Network, state: Mapping[str, Tensor] | None = None, **header: Any) -> None:
    """Write a network's weights (or `state` instead) with its config and `restore_settings`, so that `load_network` needs no other file."""
    save_tensors(path, state if state is not None else network.state_dict(), {**network_header(network), **header})


def network_header(network: Network) -> dict[str, Any]:
    """The part of a weights file's header that `load_network` reads."""
    return {"network": to_mapping(network.config), **network.restore_settings}


def set_setting(network: Network, key: str, value: Any, source: str | Path) -> None:
    """Change one of `models.base.RESTORE_SETTINGS` of the network in the file `source`. Raises `InputError` if it has no such setting."""
    if key not in network.restore_settings:
        option, name = key.replace("_", "-"), network.config.name.upper()
        kind = "space-time networks" if key in SPACE_TIME_SETTINGS else "window networks"
        raise InputError(f"--{option} is for {kind}, but '{source}' holds {name} weights: leave it out")
    network.set_restore_settings({key: value})


def is_state(header: Mapping[str, Any]) -> bool:
    """Whether the header is that of a training state."""
    return {"step", "scaler", "config"} <= header.keys()


def load_network(path: str | Path, *, key_networks: bool = True) -> Network:
    """The network in a weights file, in eval mode on the CPU, float32.

    `path` is one of ours (.safetensors with a header, also a training state, whose averaged weights are taken), or a published
    .pth/.pt/.ckpt file of either network (read with `weights_only=True`). Raises `InputError` if it is none of these.
    key_networks: load the networks for key frames too, which space-time weights may name.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        return _load_published(load_pth(path), path)
    tensors, header = load_tensors(path)
    if "network" not in header:
        return _load_published(tensors, path)
    if is_state(header):
        tensors = state_part(tensors, "ema.") or state_part(tensors, "network.")
    try:
        config, settings = _read_network_header(header)
    except InputError as error:
        raise InputError(f"'{path}': {error}") from None
    with torch.device("meta"):  # meta tensors use no memory: the header may claim any size
        check_fit(models.build(config).state_dict(), models.current_names(config.name, tensors), path)
    network = models.build(config).float()  # whatever PyTorch's default type is
    load_state(network, tensors, path)
    network.set_restore_settings(settings)
    if key_networks:
        load_key_networks_(network, path)
    return network.eval()


def load_key_networks_(network: Network, path: Path) -> None:
    """Load the `key_weights` of the network in the file `path`. Raises `InputError` if they are missing or of another kind."""
    if not isinstance(network, SpaceTimeNetwork):
        return
    found = []
    for name in network.key_weights:
        file = path.parent / name
        if not file.is_file():
            raise InputError(
                f"'{path}' restores key frames with '{name}', which is not in its folder: copy it there, or use none (--key-weights "
                "none, data.key_weights=[])"
            )
        key = load_network(file, key_networks=False)
        if not isinstance(key, WindowNetwork):
            raise InputError(f"'{file}' holds {key.config.name.upper()} weights: key frames need a window network")
        found.append(key)
    network.key_networks = found


def _read_network_header(header: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The network's config, and its spacing and padding. Files before version 0.2 have these within the config."""
    mapping = header["network"]
    within = {key: mapping[key] for key in RESTORE_SETTINGS if key in mapping} if isinstance(mapping, Mapping) else {}
    settings = {**within, **{key: header[key] for key in RESTORE_SETTINGS if key in header}}
    for key, value in settings.items():
        check_setting(key, value)
    if within:
        mapping = {key: value for key, value in mapping.items() if key not in RESTORE_SETTINGS}
    return models.config_from_mapping(mapping), settings


def state_part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of a training state with the name prefix `prefix`, which is removed."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def check_fit(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Raise one `InputError` that lists missing and unexpected tensors and other shapes in `tensors`."""
    if problem := mismatch(tensors, own):
        raise InputError(
            f"the weights in '{source}' do not fit this network: {problem}: use the config they were trained with"
        )


def load_state(
    network: Network, tensors: Mapping[str, Tensor], source: str | Path, *, partial: bool = False
) -> list[str]:
    """Load `tensors`, which may have names of an earlier version, into `network`; an `InputError` lists all mismatches in one line.

    partial: load the tensors that fit in name and shape, leave the rest of the network unchanged and return its names
    (otherwise none); tensors that the network does not have are ignored.
    """
    own, tensors = network.state_dict(), models.current_names(network.config.name, tensors)
    left: list[str] = []
    if partial:
        left = [name for name, tensor in own.items() if name not in tensors or tensors[name].shape != tensor.shape]
        if len(left) == len(own):
            raise InputError(f"nothing in '{source}' fits this network: start from other weights")
        kept = set(left)
        tensors = {name: tensor if name in kept else tensors[name] for name, tensor in own.items()}
    check_fit(own, tensors, source)
    check_finite(tensors, source)
    network.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in tensors.items()})
    return left


def check_finite(tensors: Mapping[str, Tensor], source: str | Path) -> None:
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise InputError(f"the weights in '{source}' contain NaN or infinite values ({bad[0]}): use another checkpoint")


def _load_published(state: Mapping[str, Tensor], path: Path) -> Network:
    name = models.recognise(state)
    if name is None:
        raise InputError(
            f"'{path}' holds neither MTDO nor STNO weights (its first tensor is '{next(iter(state), None)}')"
        )
    return models.load_official(name, state).float()
