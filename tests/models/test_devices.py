"""Device placement without a GPU: both networks run on PyTorch's `meta` device, which computes shapes only.

Tensors left on the CPU, blocking copies and numbers read back raise an error or are recorded. On a GPU each of these would
synchronise. The tests check that a training step and a restored frame need none.
"""

from __future__ import annotations

import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import models
from engine.config import Config, load_config
from engine.train.objectives import build_objective

ROOT = Path(__file__).parents[2]
SMALL_HAT = ["network.hat.depths=[2]", "network.hat.embed=36", "network.hat.heads=2", "network.hat.window=8"]
CONFIGS = {
    "mtdo_jilin": SMALL_HAT,
    "mtdo_s": [],
    "stno_vimeo": ["network.blocks=2", "loss.lr_intermediate=0.1", "loss.lr_census=0.1", "loss.lr_warp=0.1"],
    "stno_s": ["loss.flow_smoothness=0.1"],
}


class Mixed(TorchDispatchMode):
    """Record operations that mix CPU tensors with tensors of the other device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        if {tensor.device.type for tensor in tensors} == {"cpu", "meta"}:
            inside = [frame for frame in traceback.extract_stack() if str(ROOT) in frame.filename]
            where = f"{Path(inside[-2].filename).name}:{inside[-2].lineno}" if len(inside) > 1 else ""
            if not (args and kwargs and kwargs.get("non_blocking")) and not _asynchronous(operation, args):
                self.found.append(f"{operation} at {where}")
        return result


def _asynchronous(operation: Any, args: tuple[Any, ...]) -> bool:
    """Whether the operation is copy_(target, source, non_blocking=True)."""
    return "copy_" in str(operation) and len(args) > 2 and args[2] is True


@pytest.fixture(params=CONFIGS)
def config(request) -> Config:
    return load_config(ROOT / "configs" / f"{request.param}.yaml", CONFIGS[request.param])


@pytest.fixture(autouse=True)
def _autocast_knows_meta(monkeypatch):
    """Disable torch.autocast for `meta`, which it does not support."""
    autocast = torch.autocast

    def of(device: str, *args, **kwargs):
        return nullcontext() if device == "meta" else autocast(device, *args, **kwargs)

    monkeypatch.setattr(torch, "autocast", of)


def batch_of(config: Config) -> dict[str, Any]:
    """A batch on the device; `times` stay on the CPU."""
    if config.space_time:
        keys, times = config.data.key_frames, torch.tensor([[0.5], [0.25]])
        gt = torch.zeros(2, 2 * keys - 1, 3, 66, 79, device="meta")
        return {"lr": torch.zeros(2, keys, 3, 20, 24, device="meta"), "gt": gt, "times": times}
    scale = config.network.scale
    gt = torch.zeros(2, 3, 20 * scale, 24 * scale, device="meta")
    return {"lr": torch.zeros(2, config.network.frames, 3, 20, 24, device="meta"), "gt": gt}


def test_training_step_stays_on_its_device(config):
    network = models.build(config.network).to("meta")
    objective, batch = build_objective(network, config), batch_of(config)
    with Mixed() as mixed:
        sum(objective(batch).values()).backward()
    assert mixed.found == []
    grads = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert all(grad is None or grad.device.type == "meta" for grad in grads.values())
    assert sum(grad is not None for grad in grads.values()) > 0.9 * len(grads)


def test_inference_stays_on_its_device(config):
    network = models.build(config.network).to("meta").eval()
    frames = batch_of(config)["lr"]
    with torch.inference_mode(), Mixed() as mixed:
        network(frames)
        if config.space_time:
            network(frames, times=[0.25, 0.75], size=(50, 61), times_mode="exact")
    assert mixed.found == []
