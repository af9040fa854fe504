"""Initial weights of STNO. The authors did not publish their initialisation; this one is the project's own.

All flows start at zero, the mask at one half, and the merging convolution as the identity on the frame, so that the
intermediate frame is the mean of its neighbours: then the photometric losses have a meaningful gradient with respect to the
flows from the first step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.stno.interpolation import FLOW_CHANNELS, InterpolationOperator, SideBlock
from models.stno.propagation import ResidualBlock
from models.stno.query import Query

RESIDUAL_SCALE = 0.1  # of the last convolution of a residual block, so that deep chains start near the identity
SLOPE = 0.25  # initial slope of PReLU


def initialise(network: nn.Module, residual: bool) -> None:
    """Set every weight of an STNO. residual: an upscaled frame is added to the output; the output then starts near it."""
    if next(network.parameters()).is_meta:  # no values: only names and shapes are wanted
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            _fill(module)
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            _scale(module.conv2, RESIDUAL_SCALE)
        elif isinstance(module, SideBlock):
            _scale(module.conv3, RESIDUAL_SCALE)
        elif isinstance(module, InterpolationOperator):
            _start_as_blend(module)
        elif isinstance(module, Query) and residual:
            _scale(module.colour, RESIDUAL_SCALE)
            _scale(module.shortcut[-1], RESIDUAL_SCALE)


@torch.no_grad()
def _fill(module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> None:
    """Variance-preserving: with PReLU's gain for 3x3 convolutions, with gain 1 for linear layers and 1x1 convolutions."""
    weight = module.weight
    if isinstance(module, nn.ConvTranspose2d):
        fan_in, gain = weight.shape[0] * weight[0, 0].numel() // math.prod(module.stride), 1.0
    else:
        fan_in = weight[0].numel()
        gain = math.sqrt(2 / (1 + SLOPE**2)) if weight.dim() == 4 and weight.shape[-1] > 1 else 1.0
    weight.normal_(0, gain / math.sqrt(fan_in))
    if module.bias is not None:
        module.bias.zero_()


def _weight(module: nn.Module) -> Tensor:
    assert isinstance(module.weight, Tensor)
    return module.weight


@torch.no_grad()
def _scale(module: nn.Module, factor: float) -> None:
    _weight(module).mul_(factor)


@torch.no_grad()
def _start_as_blend(operator: InterpolationOperator) -> None:
    """Zero flows and mask; a merge that passes on the three frame channels and scales the residual features down."""
    for decoder, silent in ((operator.from_eighth, 0), (operator.from_quarter, 0), (operator.from_half, 1)):
        _weight(decoder.head[-1])[:, : FLOW_CHANNELS + silent].zero_()
    _scale(operator.merge[0], RESIDUAL_SCALE)
    weight = _weight(operator.merge[0])
    weight[:, :3].zero_()
    for channel in range(3):
        weight[channel, channel, 1, 1] = 1.0
