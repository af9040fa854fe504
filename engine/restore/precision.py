"""Number formats of inference, and which one to take.

bf16 and fp16 are used where they do no harm: flows, sampling positions and the bicubic residual stay in fp32 (the
networks see to that).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import log10
from pathlib import Path

import torch
from torch import Tensor

from errors import InputError
from models.base import Network

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LARGEST_LOSS = 0.02  # dB of PSNR against the truth that `auto` gives away for speed
TYPICAL_PSNR = 36.0  # dB; a network this near to the truth feels an error of its own numbers more than a worse one
SAMPLE = 64  # LR pixels a side of the sample that `auto` measures on


def check(name: str, device: torch.device) -> None:
    """Raises InputError for an unknown precision and for one that the device does not have."""
    if name not in (*TYPES, "auto"):
        raise InputError(f"precision '{name}' is unknown: expected auto, {', '.join(TYPES)}")
    if name == "fp16" and device.type == "cpu":
        raise InputError("precision fp16 is for GPUs: on a CPU say bf16, fp32 or auto")


def prepare(network: Network, name: str) -> Network:
    """The network for inference in `name`: itself, or a copy with weights of that type if it does not use autocast."""
    return network if name == "fp32" else network.for_inference(TYPES[name])


@contextmanager
def numbers(name: str, device: torch.device, network: Network) -> Iterator[None]:
    """Inference in the given precision, without gradients, with a network that went through `prepare`."""
    autocast = name != "fp32" and network.uses_autocast
    with torch.inference_mode(), torch.autocast(device.type, TYPES[name], enabled=autocast):
        yield


def largest_error(loss: float = LARGEST_LOSS, psnr: float = TYPICAL_PSNR) -> float:
    """Mean squared difference that costs `loss` dB at `psnr` dB, if it is independent of the network's own error."""
    return 10 ** (-psnr / 10) * (10 ** (loss / 10) - 1)


def choose(restore_sample: Callable[[str], Tensor], device: torch.device) -> tuple[str, str]:
    """The fastest precision that loses at most `LARGEST_LOSS` dB, and a line that says why.

    `restore_sample(name)` restores a small part of the clip itself, with the weights in use: both time and loss are
    measured on the work at hand, in this process.
    """
    names = ["fp32", "bf16"] + (["fp16"] if device.type == "cuda" else [])
    results = {name: _timed(restore_sample, name, device) for name in names}
    truth = results["fp32"][0]
    seconds, facts = {}, []
    for name, (frames, duration) in results.items():
        error = (frames - truth).double().square().mean().item()
        if error <= largest_error():
            seconds[name] = duration
        if name != "fp32":
            decibels = -10 * log10(max(error, 1e-12))
            facts.append(f"{name} {results['fp32'][1] / duration:.1f} times as fast as fp32, {decibels:.0f} dB from it")
    best = min(seconds, key=lambda name: seconds[name])
    return best, f"precision {best} ({'; '.join(facts)})"


def _timed(restore_sample: Callable[[str], Tensor], name: str, device: torch.device) -> tuple[Tensor, float]:
    restore_sample(name)  # warm: memory, kernels chosen
    durations = []
    for _ in range(2):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        frames = restore_sample(name)
        durations.append(time.perf_counter() - start)
    return frames, min(durations)


def compile_parts_(network: Network) -> None:
    """Compile the parts of the network that take most of the time, in place. The user's cache folder keeps compiled code."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "mtdo-stno" / "inductor"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    for part in network.parts_to_compile():
        part.compile(dynamic=False)
