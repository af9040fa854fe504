"""Optimizer, learning-rate schedule and averaged weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.config import TrainConfig
from engine.train.muon import Muon
from errors import InputError


def build_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam, AdamW or Muon; offset convolutions get `offset_lr` times the learning rate (alignment training diverges first there)."""
    named = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    offsets = [parameter for name, parameter in named if is_offset(name)]
    others = [parameter for name, parameter in named if not is_offset(name)]
    groups: list[dict[str, Any]] = [{"params": others, "factor": 1.0}]
    if offsets:
        groups.append({"params": offsets, "factor": config.offset_lr})
    if config.optimizer == "muon":
        groups[0]["orthogonal"] = True
        return Muon(groups, lr=config.lr, betas=config.betas, eps=1e-8, weight_decay=config.weight_decay)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    fused = True if all(parameter.is_cuda for _, parameter in named) else None  # one kernel for all parameters
    return kind(groups, lr=config.lr, betas=config.betas, eps=1e-8, weight_decay=config.weight_decay, fused=fused)


def is_offset(name: str) -> bool:
    return any(part.startswith(("conv_offset", "offset_conv")) for part in name.split("."))


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of step `step` (from 0): a pure function, so that a resumed run needs no scheduler state."""
    schedule, steps = config.schedule, config.steps
    if schedule.per_stage:
        stage, step = config.stage(step)
        steps = stage.steps
    if step < schedule.warmup:
        return config.lr * (step + 1) / schedule.warmup
    if schedule.kind == "step" and schedule.every > 0:
        return max(config.lr * schedule.gamma ** (step // schedule.every), schedule.min_lr)
    if schedule.kind == "cosine":
        period = schedule.period or max(steps - schedule.warmup, 1)
        phase = ((step - schedule.warmup) % period) / period
        return schedule.min_lr + 0.5 * (config.lr - schedule.min_lr) * (1 + math.cos(math.pi * phase))
    return config.lr


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


class EMA:
    """Exponential moving average of a network's weights. The decay rises from a small value, to drop the initial weights early."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        self._lists: tuple[dict[str, Tensor], nn.Module, list[Tensor], list[Tensor]] | None = None

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Average the weights of `network` after step `step` (from 0) into `state`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        # A resume replaces `state`, so the lists must be rebuilt.
        if self._lists is None or self._lists[0] is not self.state or self._lists[1] is not network:
            own = network.state_dict()  # listed once: for small networks, listing takes longer than averaging
            floats = [name for name, tensor in own.items() if tensor.is_floating_point()]
            self._lists = self.state, network, [self.state[name] for name in floats], [own[name] for name in floats]
        torch._foreach_lerp_(self._lists[2], self._lists[3], 1 - decay)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's moments as flat, named tensors: "optimizer.PARAMETER.KEY"."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{key}": value for i, entry in state.items() for key, value in entry.items()}


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], source: str | Path) -> None:
    """Give the optimizer the moments "PARAMETER.KEY". Raises `InputError` if they are those of other parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        fits = index.isdecimal() and int(index) < len(parameters)
        if not fits or (tensor.dim() and tensor.shape != parameters[int(index)].shape):
            raise InputError(
                f"the optimizer's moments in '{source}' do not fit this network ({name}): use its own config"
            )
        state.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
