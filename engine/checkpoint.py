"""Weights as safetensors, the full training state in one file, and the published weight files.

A weights file holds the network's tensors and, in its header, the network's config: it can be opened with nothing else at hand.
A state file holds everything that an exact resume needs: network, averaged weights, optimizer moments, scaler and step.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import models
from data.files import temporary_path
from engine.config import in_repository
from errors import InputError
from settings import to_mapping

FORMAT = "mtdo-stno-1"
DEFAULT_SCALE = 4.0  # where none is asked for
RELEASED_MTDO = {2.0: "checkpoints/mtdo_s_x2.safetensors", DEFAULT_SCALE: "checkpoints/mtdo_s.safetensors"}  # of scale
RELEASED_STNO = "checkpoints/stno_s.safetensors"  # of any


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write `tensors` and a JSON header to `path`, through a temporary name in the same folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(plain, temporary, metadata={"format": FORMAT, "header": json.dumps(header)})
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # safetensors writes files that nobody else may read
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write '{path}': {error}: free some space or choose another folder") from None
    finally:
        temporary.unlink(missing_ok=True)


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a safetensors file. Raises `InputError` for a missing, truncated or foreign file."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"weights file '{path}' does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
        header = json.loads(metadata.get("header", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"'{path}' is not a readable safetensors file ({error}): copy it again") from None
    return tensors, header


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
        return _load_published(path)
    tensors, header = load_tensors(path)
    if "network" not in header:
        return models.load_official(_guess_name(tensors, path), tensors)
    network = models.build(header["network"])
    for part in ("ema.", "network."):
        if any(name.startswith(part) for name in tensors) and is_state(header):
            tensors = {name.removeprefix(part): t for name, t in tensors.items() if name.startswith(part)}
            break
    load_state(network, tensors, path)
    return network.eval()


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
    problems = [f"{name} missing" for name in own if name not in tensors]
    problems += [f"{name} unexpected" for name in tensors if name not in own]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if problems:
        shown = first_few(problems, "; ")
        raise InputError(
            f"the weights in '{source}' do not fit this network: {shown}: use the config they were trained with"
        )
    network.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in tensors.items()})
    bad = [name for name, tensor in network.state_dict().items() if not torch.isfinite(tensor).all()]
    if bad:
        raise InputError(f"the weights in '{source}' hold NaN or infinite values ({bad[0]}): take another checkpoint")
    return left


def first_few(names: Sequence[str], separator: str = ", ", count: int = 4) -> str:
    """The first names of a list that may be long, and how many more there are."""
    more = [f"and {len(names) - count} more"] if len(names) > count else []
    return separator.join([*names[:count], *more])


def _load_published(path: Path) -> nn.Module:
    if not path.is_file():
        raise InputError(f"weights file '{path}' does not exist")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError):
        raise InputError(
            f"'{path}' is damaged or holds more than tensors: expected a state dict of published weights"
        ) from None
    for key in ("state_dict", "model", "params_ema", "params", "net"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
            break
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"'{path}' holds no state dict of tensors: expected published MTDO or STNO weights")
    return models.load_official(_guess_name(state, path), state)


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
