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
from errors import InputError
from models.stno.interpolation import Flows, warp


class Objective(nn.Module):
    """A network and how it is judged; `forward` takes a batch and returns weighted loss terms, whose sum is minimised."""

    def __init__(self, network: Any, config: LossConfig) -> None:
        super().__init__()
        self.network, self.config = network, config


class SpaceObjective(Objective):
    """MTDO: a window of LR frames to the centre GT frame."""

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Terms of a batch {"lr": (B, N, 3, h, w), "gt": (B, 3, H, W)} in [0, 1]."""
        output = self.network(batch["lr"]).float()
        return {self.config.kind: pixel_loss(output, batch["gt"], self.config)}


class SpaceTimeObjective(Objective):
    """STNO: LR key frames to all GT frames, and the in-between LR frames to the downscaled truth, which gives the flows a signal."""

    def forward(self, batch: dict[str, Any], operator_only: bool = False) -> dict[str, Tensor]:
        """Weighted terms of {"lr": (B, T, 3, h, w), "gt": (B, T_out, 3, H, W), "times": (B, K)}, in [0, 1].

        operator_only: the terms of the interpolation operator, without propagation and query.
        """
        lr, gt, times = batch["lr"], batch["gt"], batch["times"]
        if operator_only:
            between, flows = self.network.interpolate(lr, times)
            return self.operator_terms(lr, gt, between.float(), flows)
        output = self.network.forward_training(lr, times=times, size=gt.shape[-2:])
        terms = {self.config.kind: pixel_loss(output.frames.float(), gt, self.config)}
        return terms | self.operator_terms(lr, gt, output.between.float(), output.flows)

    def operator_terms(self, lr: Tensor, gt: Tensor, between: Tensor, flows: Flows) -> dict[str, Tensor]:
        """Terms of the LR in-between frames (B, (T-1) * K, 3, h, w) and of the flows that they come from."""
        config = self.config
        terms: dict[str, Tensor] = {}
        if config.lr_between or config.lr_census or config.lr_warp:
            true = in_between(gt, between.shape[1] // (lr.shape[1] - 1)).flatten(0, 1)
            target = imresize(true, size=(lr.shape[-2], lr.shape[-1])).clamp(0, 1).view_as(between)
            if config.lr_between:
                terms["lr_between"] = config.lr_between * losses.charbonnier(between, target, config.epsilon)
            if config.lr_census:
                terms["lr_census"] = config.lr_census * losses.census(between, target)
            if config.lr_warp:
                terms["lr_warp"] = config.lr_warp * warping_loss(lr, target, flows, config.epsilon)
        if config.flow_smoothness:
            images = between.detach().flatten(0, 1)
            both = [losses.flow_smoothness(flow.flatten(0, 1), images) for flow in (flows.t_0, flows.t_1)]
            terms["flow_smoothness"] = config.flow_smoothness * torch.stack(both).mean()
        return terms


def pixel_loss(output: Tensor, gt: Tensor, config: LossConfig) -> Tensor:
    return losses.l1(output, gt) if config.kind == "l1" else losses.charbonnier(output, gt, config.epsilon)


def warping_loss(keys: Tensor, between: Tensor, flows: Flows, epsilon: float) -> Tensor:
    """How far each LR key frame, warped by each of its flows alone, is from the frame that the flow leads to.

    The in-between frame can be had without flows, as a blend, and training stays there; this cannot. The warp is bicubic:
    bilinear samples between pixels are blurred, which favours flows that are too short. keys (B, T, 3, h, w), the true
    in-between frames (B, (T-1) * K, 3, h, w), flows as `STNOOutput` has them.
    """
    per_gap = between.shape[1] // (keys.shape[1] - 1)
    first, second = (part.repeat_interleave(per_gap, 1).flatten(0, 1) for part in (keys[:, :-1], keys[:, 1:]))
    true = between.flatten(0, 1)
    t_0, one_0, t_1, zero_1 = (flow.flatten(0, 1) for flow in flows)
    ways = ((first, t_0, true), (second, t_1, true), (first, one_0, second), (second, zero_1, first))
    terms = [losses.charbonnier(warp(image, flow, "bicubic"), wanted, epsilon) for image, flow, wanted in ways]
    return torch.stack(terms).mean()


def in_between(frames: Tensor, per_gap: int) -> Tensor:
    """(B, T + (T-1)*K, 3, H, W) without its key frames."""
    keep = [i for i in range(frames.shape[1]) if i % (per_gap + 1)]
    return frames[:, keep]


def build_objective(network: nn.Module, config: Config) -> Objective:
    loss = config.loss
    if any(stage.operator_only for stage in config.train.stages):
        if not config.space_time:
            raise InputError("config key 'train.stages': operator_only is for stno networks: remove it")
        if not (loss.lr_between or loss.lr_census or loss.lr_warp):
            raise InputError(
                "config key 'train.stages': an operator_only stage needs a loss of its frames: set loss.lr_warp and loss.lr_between"
            )
    return SpaceTimeObjective(network, config.loss) if config.space_time else SpaceObjective(network, config.loss)


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Tensors to `device`; uint8 pictures to float in [0, 1] there (a quarter of the transfer)."""
    return {
        key: _to_float(value.to(device, non_blocking=True)) if isinstance(value, Tensor) else value
        for key, value in batch.items()
    }


def _to_float(tensor: Tensor) -> Tensor:
    return tensor.float().div_(255) if tensor.dtype == torch.uint8 else tensor
