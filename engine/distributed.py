"""Ranks, seeds and barriers on top of torch.distributed (started by torchrun)."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from errors import InputError, one_line

T = TypeVar("T")
# How long a rank waits for the others, which may evaluate longer clips or decode a long video. PyTorch's 10 minutes (NCCL) and 30 (Gloo)
# are too short. Nobody waits for a dead rank: its connections close, and torchrun ends the others.
PATIENCE = timedelta(days=7)


def start(device: torch.device) -> None:
    """Join the process group if torchrun started this process; otherwise do nothing."""
    if "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    return rank() == 0


def say(text: str) -> None:
    """Print a line on rank 0, with control characters of file names escaped."""
    if is_main():
        print(one_line(text), flush=True)


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def gather(value: Any) -> list[Any]:
    """The picklable `value` of every rank, in rank order, on every rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def broadcast(value: Any) -> Any:
    """The picklable `value` of rank 0, on every rank."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def on_main(work: Callable[[], T]) -> T:
    """Run `work` on rank 0 and return its result on every rank. An `InputError` is raised on all ranks, so that none waits forever."""
    result: tuple[T | None, str] = (None, "")
    if is_main():
        try:
            result = (work(), "")
        except InputError as error:
            result = (None, str(error))
    value, problem = broadcast(result)
    if problem:
        raise InputError(problem)
    return value


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is set on any rank (a signal may reach a single process)."""
    if not dist.is_initialized():
        return flag
    tensor = torch.tensor(float(flag), device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return bool(tensor.item())


def choose_device(name: str = "auto") -> torch.device:
    """The device for this rank: `auto` takes its GPU if there is one (CUDA, else Apple's), else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device '{name}' is unknown: expected auto, cpu, cuda, mps or xpu") from None
    missing = {"mps": not torch.backends.mps.is_available(), "xpu": not torch.xpu.is_available()}
    if missing.get(device.type, device.type not in ("cpu", "cuda")):
        raise InputError(f"device '{name}' is not available: use cpu or auto")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError(f"device '{name}': no CUDA device is available: use cpu or auto")
        index = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
        if index >= torch.cuda.device_count():
            raise InputError(f"device '{name}': only {torch.cuda.device_count()} CUDA devices are available")
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
    return device
