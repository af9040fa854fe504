"""Precision of inference, and the choice of `auto` for inference and training.

The networks keep flows, sampling positions and the bicubic residual in fp32.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from math import log10
from pathlib import Path

import torch
from torch import Tensor

from errors import InputError
from models.base import Network, SpaceTimeNetwork
from settings import Precision

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LARGEST_LOSS = 0.02  # dB: largest loss of PSNR that `auto` accepts
TYPICAL_PSNR = 36.0  # dB of the network's output; the higher it is, the more a rounding error costs
SAMPLE = 64  # side in LR pixels of the sample that `auto` measures


def check(name: str, device: torch.device) -> None:
    """Raises `InputError` for an unknown precision and for one that the device does not support."""
    if name not in (*DTYPES, "auto"):
        raise InputError(f"precision '{name}' is unknown: expected auto, {', '.join(DTYPES)}")
    if name == "fp16" and device.type == "cpu":
        raise InputError("precision fp16 is for GPUs: on a CPU use bf16, fp32 or auto")


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself. Without such instructions bf16 is many times slower than fp32."""
    if device.type == "cpu":  # avx512_bf16 and amx_bf16, on ARM bf16 and sve_bf16
        return any(present for name, present in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
    if device.type != "cuda":
        return True
    # torch.cuda.is_bf16_supported answers for the current card only
    return bool(torch.version.hip) or torch.cuda.get_device_capability(device)[0] >= 8


def slow(name: str, device: torch.device) -> str:
    """A line about a precision that the device only emulates, else ""."""
    if name != "bf16" or has_bf16(device):
        return ""
    return f"precision bf16: this {_kind(device)} has no bf16 instructions: fp32 is many times faster"


def for_training(name: Precision, device: torch.device) -> tuple[Precision, str]:
    """The precision to train in, which `auto` chooses, and a line about it if it is not what was expected, else ""."""
    if name != "auto":
        return name, slow(name, device)
    if has_bf16(device):
        return "bf16", ""
    return "fp32", f"precision fp32: this {_kind(device)} has no bf16 instructions"


def _kind(device: torch.device) -> str:
    return "CPU" if device.type == "cpu" else "GPU"


def prepare(network: Network, name: str) -> Network:
    """The network for inference in `name`: itself, or a copy with weights of that type if it does not use autocast."""
    return network if name == "fp32" else network.for_inference(DTYPES[name])


@contextmanager
def inference(name: str, device: torch.device, network: Network) -> Iterator[None]:
    """Inference in the given precision without gradients, for a network returned by `prepare`. On GPUs, too, fp32 is exact."""
    autocast = name != "fp32" and network.uses_autocast
    products = precision_of_products("fp32", device) if name == "fp32" else nullcontext()
    with torch.inference_mode(), torch.autocast(device.type, DTYPES[name], enabled=autocast), products:
        yield


@contextmanager
def precision_of_products(precision: str, device: torch.device) -> Iterator[None]:
    """On GPUs: use TensorFloat-32 for products in float32, except for `fp32`, which is exact."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    exact = precision == "fp32"
    torch.set_float32_matmul_precision("highest" if exact else "high")
    torch.backends.cudnn.allow_tf32 = not exact
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def largest_error(loss: float = LARGEST_LOSS, psnr: float = TYPICAL_PSNR) -> float:
    """Mean squared difference that costs `loss` dB at `psnr` dB, if it is independent of the network's own error."""
    return 10 ** (-psnr / 10) * (10 ** (loss / 10) - 1)


def choose(restore_sample: Callable[[str], Tensor], device: torch.device) -> tuple[str, str]:
    """The fastest precision that loses at most `LARGEST_LOSS` dB, and a line with the reason.

    restore_sample(name): restores a small part of the clip in precision `name`, to measure time and loss.
    """
    names = ["fp32"] + ["bf16"] * has_bf16(device) + ["fp16"] * (device.type == "cuda")
    if names == ["fp32"]:
        return "fp32", "precision fp32 (this CPU has no bf16 instructions)"
    results = {name: _timed(restore_sample, name, device) for name in names}
    truth = results["fp32"][0]
    seconds, ratios = {}, []
    for name, (frames, duration) in results.items():
        error = (frames - truth).double().square().mean().item()
        if name == "fp32" or error <= largest_error():  # fp32 too if its own result is not finite
            seconds[name] = duration
        if name != "fp32":
            decibels = -10 * log10(max(error, 1e-12))
            ratios.append(
                f"{name} {results['fp32'][1] / duration:.1f} times as fast as fp32, PSNR to fp32 {decibels:.0f} dB"
            )
    best = min(seconds, key=lambda name: seconds[name])
    return best, f"precision {best} ({'; '.join(ratios)})"


def _timed(restore_sample: Callable[[str], Tensor], name: str, device: torch.device) -> tuple[Tensor, float]:
    restore_sample(name)  # warm-up: memory is allocated, kernels are selected
    durations = []
    for _ in range(2):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        frames = restore_sample(name)
        durations.append(time.perf_counter() - start)
    return frames, min(durations)


def compile_parts_(network: Network) -> None:
    """Compile the slowest parts of the network in place. PyTorch stores compiled code in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "mtdo-stno" / "inductor"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    for each in (network, *(network.key_networks if isinstance(network, SpaceTimeNetwork) else ())):
        for part in each.parts_to_compile():
            part.compile(dynamic=False)
