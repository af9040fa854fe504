"""Seeded reference weights and outputs of the published networks.

`fixtures/*.npz` hold inputs (`in_*`) and outputs (`out_*`) of the public reference code. Each weight is drawn from a generator
seeded by its name, so only names and shapes are stored. `tolerances.json` holds the float32 noise floor of each output.
"""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FIXTURES = Path(__file__).parent / "fixtures"
SCALE = {"norm_weight": 0.1, "rpb_table": 0.02, "bias": 0.02}


def seeded_tensor(key: str, shape: list[int], kind: str, extra_scale: float = 1.0) -> Tensor:
    """One weight, drawn from a generator seeded by the CRC of its published name."""
    if kind == "prelu":
        return torch.full(shape, 0.25)
    noise = np.random.Generator(np.random.PCG64(seed=zlib.crc32(key.encode()))).standard_normal(shape)
    if kind == "weight":
        noise = noise * (1 / np.sqrt(np.prod(shape) / shape[0])) * extra_scale
    else:
        noise = noise * SCALE[kind] + (kind == "norm_weight")
    return torch.from_numpy(np.asarray(noise, dtype=np.float32))


@cache
def _names(network: str) -> list[list]:
    return json.loads((FIXTURES / f"{network}_state.json").read_text())


def seeded_state(network: str) -> dict[str, Tensor]:
    """The full state dict of "mtdo" or "stno" (without index buffers), with published names."""
    return {key: seeded_tensor(key, shape, kind, extra) for key, shape, kind, extra in _names(network)}


def fixture(name: str) -> dict[str, Tensor]:
    """Arrays of one fixture file as tensors, under their stored names (`in_x`, `out_y`, ...)."""
    with np.load(FIXTURES / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


@cache
def _floors() -> dict[str, dict[str, float]]:
    return json.loads((FIXTURES / "tolerances.json").read_text())


def tolerance(name: str, output: str, factor: float = 20.0) -> float:
    """`factor` times the float32 noise floor of output `output` (without its `out_` prefix) of fixture `name`."""
    return factor * _floors()[f"{name}/{output}"]["fp32_vs_fp64_maxabs"]


def max_difference(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape, (tuple(actual.shape), tuple(expected.shape))
    return (actual.double() - expected.double()).abs().max().item()
