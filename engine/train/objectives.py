"""Training objectives: from a batch to weighted loss terms. There is one for each kind of network; the loop does not depend on the kind.

An objective is an `nn.Module` around the network, so that DistributedDataParallel and torch.compile see one forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

import losses
from data.degrade import imresize
from data.media import to_float
from engine.config import LR_TERMS, OPERATOR_TERMS, Config, LossConfig
from errors import InputError
from models.base import Network, SpaceTimeNetwork
from models.flow import Flows, warp


class LRFrames(NamedTuple):
    """LR frames in [0, 1] that the losses in `LR_LOSSES` compare.

    keys: (B, T, 3, h, w).   intermediate: made by the network, (B, (T-1) * K, 3, h, w).   target: their truth.   flows: as in
    `SpaceTimeOutput`.
    """

    keys: Tensor
    intermediate: Tensor
    target: Tensor
    flows: Flows


class Objective(nn.Module):
    """A network and its losses. `forward` takes a batch and returns weighted loss terms, whose sum is minimised."""

    def __init__(self, network: Network, config: LossConfig) -> None:
        super().__init__()
        self.network, self.config = network, config


class SpaceObjective(Objective):
    """Window networks: a window of LR frames to the centre GT frame."""

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Terms of a batch {"lr": (B, N, 3, h, w), "gt": (B, 3, H, W)} in [0, 1]."""
        output = self.network(batch["lr"]).float()
        return {self.config.kind: pixel_loss(output, batch["gt"], self.config)}


class SpaceTimeObjective(Objective):
    """Space-time networks: LR key frames to all GT frames, and the intermediate LR frames to the downscaled GT.

    The second term gives the flows a gradient.
    """

    network: SpaceTimeNetwork

    def forward(self, batch: dict[str, Any], operator_only: bool = False) -> dict[str, Tensor]:
        """Weighted terms of {"lr": (B, T, 3, h, w), "gt": (B, T_out, 3, H, W), "times": (B, K)}, in [0, 1].

        operator_only: the terms of the interpolation operator, without propagation and query.
        """
        lr, gt, times = batch["lr"], batch["gt"], batch["times"]
        if operator_only:
            intermediate, flows = self.network.interpolate(lr, times)
            return self.operator_terms(lr, gt, intermediate.float(), flows)
        output = self.network.forward_training(lr, times=times, size=gt.shape[-2:])
        terms: dict[str, Tensor] = {self.config.kind: pixel_loss(output.frames.float(), gt, self.config)}
        if output.intermediate is None or output.flows is None:
            return terms
        return terms | self.operator_terms(lr, gt, output.intermediate.float(), output.flows)

    def operator_terms(self, lr: Tensor, gt: Tensor, intermediate: Tensor, flows: Flows) -> dict[str, Tensor]:
        """Terms of the intermediate LR frames (B, (T-1) * K, 3, h, w) and of their flows."""
        config = self.config
        weights = {name: getattr(config, name) for name in LR_TERMS if getattr(config, name)}
        terms: dict[str, Tensor] = {}
        if weights:
            true = intermediate_frames(gt, intermediate.shape[1] // (lr.shape[1] - 1)).flatten(0, 1)
            target = imresize(true, size=(lr.shape[-2], lr.shape[-1])).clamp(0, 1).view_as(intermediate)
            frames = LRFrames(lr, intermediate, target, flows)
            terms |= {name: weight * LR_LOSSES[name](frames, config) for name, weight in weights.items()}
        if config.flow_smoothness:
            images = intermediate.detach().flatten(0, 1)
            both = [losses.flow_smoothness(flow.flatten(0, 1), images) for flow in (flows.t_0, flows.t_1)]
            terms["flow_smoothness"] = config.flow_smoothness * torch.stack(both).mean()
        return terms


def pixel_loss(output: Tensor, gt: Tensor, config: LossConfig) -> Tensor:
    return losses.l1(output, gt) if config.kind == "l1" else losses.charbonnier(output, gt, config.epsilon)


def warping_loss(keys: Tensor, intermediate: Tensor, flows: Flows, epsilon: float) -> Tensor:
    """Distance of each LR key frame, warped with each of its flows, from the frame that the flow points to.

    A network can produce the intermediate frame without flows, as a blend, and training would stay at this local minimum;
    this term prevents it. The warp is bicubic, because bilinear samples are blurred, which favours flows that are too short. keys
    (B, T, 3, h, w), the true intermediate frames (B, (T-1) * K, 3, h, w), flows as in `SpaceTimeOutput`.
    """
    per_gap = intermediate.shape[1] // (keys.shape[1] - 1)
    first, second = (part.repeat_interleave(per_gap, 1).flatten(0, 1) for part in (keys[:, :-1], keys[:, 1:]))
    true = intermediate.flatten(0, 1)
    t_0, one_0, t_1, zero_1 = (flow.flatten(0, 1) for flow in flows)
    ways = ((first, t_0, true), (second, t_1, true), (first, one_0, second), (second, zero_1, first))
    terms = [losses.charbonnier(warp(image, flow, "bicubic"), wanted, epsilon) for image, flow, wanted in ways]
    return torch.stack(terms).mean()


def intermediate_frames(frames: Tensor, per_gap: int) -> Tensor:
    """(B, T + (T-1)*K, 3, H, W) without its key frames."""
    # Not indexed by a list, which would be copied to a GPU and waited for
    return frames[:, :-1].unflatten(1, (-1, per_gap + 1))[:, :, 1:].flatten(1, 2)


# Losses of LR frames by the key of their weight in LossConfig
LR_LOSSES: dict[str, Callable[[LRFrames, LossConfig], Tensor]] = {
    "lr_intermediate": lambda lr, config: losses.charbonnier(lr.intermediate, lr.target, config.epsilon),
    "lr_census": lambda lr, config: losses.census(lr.intermediate, lr.target),
    "lr_warp": lambda lr, config: warping_loss(lr.keys, lr.target, lr.flows, config.epsilon),
}


def build_objective(network: Network, config: Config) -> Objective:
    """The objective for the network's kind. Raises `InputError` for loss terms that the network does not support."""
    loss, name = config.loss, config.network.name
    has_operator = config.space_time and cast(SpaceTimeNetwork, network).has_operator
    operator_only = any(stage.operator_only for stage in config.train.stages)
    if operator_only and not has_operator:
        raise InputError(
            f"config key 'train.stages': operator_only is not for '{name}', which has no operator: remove it"
        )
    if operator_only and not any(getattr(loss, key) for key in LR_TERMS):
        raise InputError(
            "config key 'train.stages': an operator_only stage needs a loss of its frames: set loss.lr_warp and loss.lr_intermediate"
        )
    if config.space_time and not has_operator:
        for key in OPERATOR_TERMS:
            if getattr(loss, key):
                raise InputError(
                    f"config key 'loss.{key}': '{name}' makes no flows and intermediate frames: set it to 0"
                )
    patch, needed = (
        min(stage.patch or config.data.patch for stage in config.train.all_stages),
        2 * losses.CENSUS_RADIUS + 1,
    )
    if config.space_time and loss.lr_census and patch < needed:
        raise InputError(
            f"config key 'data.patch': loss.lr_census compares squares of {needed} pixels, got patches of {patch}: use larger "
            "patches or set loss.lr_census to 0"
        )
    return SpaceTimeObjective(network, loss) if config.space_time else SpaceObjective(network, loss)


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Pictures to `device`, bytes to float in [0, 1] there (a quarter of the transfer). Times (B, K) stay on the CPU."""
    return {
        key: to_float(value.to(device, non_blocking=True)) if isinstance(value, Tensor) and value.dim() > 2 else value
        for key, value in batch.items()
    }
