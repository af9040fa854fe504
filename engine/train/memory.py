"""Refuse a run that cannot fit into memory, before anything is allocated."""

from __future__ import annotations

import psutil
import torch

import models
from engine import distributed
from engine.config import Config
from errors import InputError

FLOAT = 4  # bytes
GIB = 2**30


def check_memory(config: Config, device: torch.device) -> None:
    """Raise `InputError` if the weights or a batch exceed the memory of the device.

    Only what every run holds is counted, not the feature maps of the forward pass: the estimate is a lower bound.
    """
    memory = total_memory(device)
    count = parameters(config)
    needed = FLOAT * count * copies(config)
    if needed > memory:
        raise InputError(
            f"the network has {count:,} parameters and training holds {copies(config)} copies of them, {needed / GIB:,.0f} GiB, "
            f"but {device} has {memory / GIB:,.0f} GiB: lower the sizes in 'network'"
        )
    patch = max(stage.patch or config.data.patch for stage in config.train.all_stages)
    needed = FLOAT * values_per_pixel(config) * patch**2 * config.train.batch_size // distributed.world()
    if needed > total_memory(torch.device("cpu")):
        raise InputError(
            f"a batch of {config.train.batch_size} samples with data.patch={patch} needs at least {needed / GIB:,.0f} GiB of memory: "
            "lower train.batch_size or data.patch"
        )


def parameters(config: Config) -> int:
    """Number of parameters, counted without allocating them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in models.build(config.network).parameters())


def copies(config: Config) -> int:
    """Copies of the parameters that training holds: weights, gradient, two moments, EMA, and two states to undo updates."""
    averages = 1 if config.train.ema else 0
    state = 1 + 2 + averages  # weights, moments, EMA
    return state + 1 + 2 * state


def values_per_pixel(config: Config) -> int:
    """Numbers in a sample for each LR pixel: its LR frames and the ground truth at the smallest scale."""
    if not config.space_time:
        return 3 * (config.window_network.frames + config.window_network.scale**2)
    scale = min(min(stage.scales or config.data.scales) for stage in config.train.all_stages)
    return int(3 * config.data.key_frames * (1 + scale**2))


def total_memory(device: torch.device) -> float:
    """Bytes of memory of a device."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return float(psutil.virtual_memory().total)
