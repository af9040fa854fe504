"""What is learned: from a batch to the weighted loss terms. One module per kind of network, so that the loop knows neither.

A task is an `nn.Module` around the network, so that DistributedDataParallel and torch.compile see one forward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import losses
from data.degrade import imresize
from engine.config import Config, LossConfig


class Task(nn.Module):
    """A network and how it is judged; `forward` takes a batch and returns weighted loss terms, whose sum is minimised."""

    def __init__(self, network: Any, config: LossConfig) -> None:
        super().__init__()
        self.network, self.config = network, config


class SpaceTask(Task):
    """MTDO: a window of LR frames to the centre GT frame."""

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Terms of a batch {"lr": (B, N, 3, h, w), "gt": (B, 3, H, W)} in [0, 1]."""
        output = self.network(batch["lr"]).float()
        return {self.config.kind: pixel_loss(output, batch["gt"], self.config)}


class SpaceTimeTask(Task):
    """STNO: LR key frames to all GT frames, and the in-between LR frames to the downscaled truth, which gives the flows a signal."""

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Weighted terms of {"lr": (B, T, 3, h, w), "gt": (B, T_out, 3, H, W), "times": (B, K)}, in [0, 1]."""
        lr, gt = batch["lr"], batch["gt"]
        times = batch["times"]
        output = self.network.forward_training(lr, times=times, size=gt.shape[-2:])
        config = self.config
        terms: dict[str, Tensor] = {config.kind: pixel_loss(output.frames.float(), gt, config)}
        if config.lr_between or config.lr_census:
            between = output.between.float()
            target = (
                imresize(in_between(gt, times.shape[1]).flatten(0, 1), size=lr.shape[-2:]).clamp(0, 1).view_as(between)
            )
            if config.lr_between:
                terms["lr_between"] = config.lr_between * losses.charbonnier(between, target, config.epsilon)
            if config.lr_census:
                terms["lr_census"] = config.lr_census * losses.census(between, target)
        if config.flow_smoothness:
            images = output.between.detach().flatten(0, 1)
            both = [losses.flow_smoothness(flow.flatten(0, 1), images) for flow in (output.flows.t_0, output.flows.t_1)]
            terms["flow_smoothness"] = config.flow_smoothness * torch.stack(both).mean()
        return terms


def pixel_loss(output: Tensor, gt: Tensor, config: LossConfig) -> Tensor:
    return losses.l1(output, gt) if config.kind == "l1" else losses.charbonnier(output, gt, config.epsilon)


def in_between(frames: Tensor, per_gap: int) -> Tensor:
    """(B, T + (T-1)*K, 3, H, W) without its key frames."""
    keep = [i for i in range(frames.shape[1]) if i % (per_gap + 1)]
    return frames[:, keep]


def build_task(network: nn.Module, config: Config) -> Task:
    return SpaceTimeTask(network, config.loss) if config.space_time else SpaceTask(network, config.loss)


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Tensors to `device`; uint8 pictures to float in [0, 1] there (a quarter of the transfer)."""
    return {
        key: _to_float(value.to(device, non_blocking=True)) if isinstance(value, Tensor) else value
        for key, value in batch.items()
    }


def _to_float(tensor: Tensor) -> Tensor:
    return tensor.float().div_(255) if tensor.dtype == torch.uint8 else tensor
