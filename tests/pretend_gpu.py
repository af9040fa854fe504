"""A GPU that is none: tensors that say they are on it hold numbers of the CPU, so that all code for GPUs runs with real results.

Every operation checks that its tensors are on one device, as on a GPU. Waiting for the GPU is recorded in `waits`: numbers read
back, blocking copies. Gradients are not supported. PyTorch's own code needs `device_guard.cpp` for devices that its build lacks.
"""

from __future__ import annotations

import ctypes
import subprocess
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ROOT = Path(__file__).parents[1]
GUARD = """#include <c10/core/impl/DeviceGuardImplInterface.h>
using namespace c10;
impl::DeviceGuardImplRegistrar cuda(DeviceType::CUDA, new impl::NoOpDeviceGuardImpl<DeviceType::CUDA>());
impl::DeviceGuardImplRegistrar mps(DeviceType::MPS, new impl::NoOpDeviceGuardImpl<DeviceType::MPS>());
"""
aten = torch.ops.aten
COPIES = (aten.copy_.default, aten._to_copy.default)
READS = (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default)


class OnGpu(Tensor):
    """A tensor whose device is the pretended one; `numbers` is the same tensor on the CPU."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor, device: torch.device) -> OnGpu:
        shape = {"strides": numbers.stride(), "storage_offset": numbers.storage_offset(), "dtype": numbers.dtype}
        made = Tensor._make_wrapper_subclass(cls, numbers.size(), device=device, **shape)
        made.numbers = numbers
        return made

    def __repr__(self, **_: Any) -> str:
        return f"OnGpu({tuple(self.shape)}, {self.device})"

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        raise AssertionError(f"{operation} outside `PretendGpu`")


class PretendGpu(TorchDispatchMode):
    """Runs operations on tensors of the pretended GPU; raises RuntimeError for tensors of several devices."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
        here = [tensor for tensor in tensors if not isinstance(tensor, OnGpu)]
        if there and operation not in COPIES and (len({t.device for t in there}) > 1 or any(t.dim() for t in here)):
            raise RuntimeError(f"{operation} at {place()}: tensors on {[str(tensor.device) for tensor in tensors]}")
        target = kwargs.get("device") or (args[0] if operation is COPIES[0] else (there or here or [torch.empty(0)])[0])
        device = target.device if isinstance(target, Tensor) else torch.device(target)
        self._note(operation, bool(there), bool(here), device, args, kwargs)
        if kwargs.get("device"):
            kwargs["device"] = "cpu"
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        known = {id(tensor.numbers): tensor for tensor in there}
        args, kwargs = tree_map(lambda leaf: leaf.numbers if isinstance(leaf, OnGpu) else leaf, (args, kwargs))
        return tree_map(lambda leaf: placed(leaf, device, known, operation), operation(*args, **kwargs))

    def _note(self, operation: Any, there: bool, here: bool, device: torch.device, args: Any, kwargs: Any) -> None:
        crossing = there == (device.type == "cpu") or (there and here)
        blocking = not (kwargs.get("non_blocking") or (operation is COPIES[0] and len(args) > 2 and args[2]))
        if (operation in READS and there) or (operation in COPIES and crossing and blocking):
            self.waits.append(f"{operation} at {place()}")


def placed(result: Any, device: torch.device, known: dict[int, OnGpu], operation: Any) -> Any:
    """The result of an operation on the CPU as one on `device`; of an operation in place: the argument itself."""
    if not isinstance(result, Tensor) or device.type == "cpu":
        return result
    if device.type == "mps" and result.dtype == torch.float64:
        raise TypeError(f"{operation} at {place()}: Cannot convert a MPS Tensor to float64 dtype")
    if id(result) in known:
        return known[id(result)]
    return OnGpu(result, torch.device(device.type, device.index or 0))


def place() -> str:
    """File and line of the repository's code that runs."""
    inside = [
        frame for frame in traceback.extract_stack() if str(ROOT) in frame.filename and __file__ != frame.filename
    ]
    return f"{Path(inside[-1].filename).name}:{inside[-1].lineno}" if inside else ""


def moved(network: nn.Module, device: str) -> nn.Module:
    """The network with its parameters and buffers on the pretended GPU, in place."""
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                on_gpu = OnGpu(parameter.detach(), torch.device(device, 0))
                module._parameters[name] = nn.Parameter(on_gpu, requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = OnGpu(buffer, torch.device(device, 0))
    return network


def build_guard(folder: Path) -> None:
    """Tell this process's PyTorch that CUDA and MPS exist, as far as its own bookkeeping is concerned."""
    source, library = folder / "device_guard.cpp", folder / "device_guard.so"
    source.write_text(GUARD)
    torch_folder = Path(torch.__file__).parent
    command = ["g++", "-std=c++20", "-shared", "-fPIC", "-isystem", str(torch_folder / "include"), str(source)]
    command += ["-o", str(library), f"-L{torch_folder / 'lib'}", "-lc10"]
    subprocess.run(command, check=True, capture_output=True)
    ctypes.CDLL(str(library))


class Stream:
    """Streams and events of a device that does everything at once."""

    def __init__(self, device: Any = None) -> None:
        self.device = device

    def done(self, *_: Any) -> bool:
        return True

    wait_stream = synchronize = record = query = done


@contextmanager
def nothing(*_: Any, **__: Any):
    yield


def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the parts of torch.cuda that the engine uses, and those of tensors that need a real GPU."""
    card = SimpleNamespace(name="pretended", major=9, minor=0, total_memory=2**36)
    answers: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "_lazy_init": lambda: None,
        "Stream": Stream,
        "Event": Stream,
        "stream": nothing,
        "current_stream": Stream,
        "synchronize": lambda device=None: None,
        "mem_get_info": lambda device=None: (2**35, 2**36),
        "memory_reserved": lambda device=None: 0,
        "memory_allocated": lambda device=None: 0,
        "get_device_properties": lambda device=None: card,
        "get_device_capability": lambda device=None: (card.major, card.minor),
        "is_bf16_supported": lambda including_emulation=True: True,
        "is_current_stream_capturing": lambda: False,
        "empty_cache": lambda: None,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    monkeypatch.setattr(Tensor, "pin_memory", lambda self, *_: self)
    monkeypatch.setattr(Tensor, "record_stream", lambda self, stream: None)
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)  # wrapped tensors have no inference mode
    monkeypatch.setattr(nn.Module, "to", lambda self, *_, **__: self)
