"""Initial weights of MTDO: those of the published code, except that the offsets of the alignment start at zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from dcn import DCNv2Pack
from models.layers import weight_and_bias
from models.mtdo.attention import MultiHead
from models.mtdo.hat import HAT

if TYPE_CHECKING:
    from models.mtdo.network import MTDO, ResidualReconstruction

UPSAMPLER_START = 0.2  # `residual: bicubic`: factor on the upsampler's convolutions, which have no activations


def initialise(network: MTDO) -> None:
    """Kaiming normal (fan-in) convolutions, truncated normal 0.02 linear layers and position bias tables, zero biases.

    LayerNorm and PReLU keep PyTorch's defaults; the deformable layer initialises itself (offsets zero).
    """
    if next(network.parameters()).is_meta:  # no values: only names and shapes are wanted
        return
    deformable = [module for module in network.modules() if isinstance(module, DCNv2Pack)]
    offsets = {module.conv_offset_mask for module in deformable}
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module not in offsets:
            weight, bias = weight_and_bias(module)
            nn.init.kaiming_normal_(weight)
            nn.init.zeros_(bias)
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, MultiHead):
            nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)
    if isinstance(network.reconstruction, HAT):
        for layer in (network.reconstruction.wide_enter, network.reconstruction.wide_leave):
            if layer is not None:  # `wide` starts as the same network without it
                nn.init.zeros_(layer.weight)
    if network.config.residual == "bicubic":
        _start_at_bicubic(network.reconstruction)
    if network.config.ctdm == "as_shipped" and network.ctdm is not None:
        network.ctdm.requires_grad_(False)  # not used; kept because the published weights contain it


def _start_at_bicubic(reconstruction: HAT | ResidualReconstruction) -> None:
    """The output starts as the bicubic frame, and the features before the last convolution have the magnitude of pixels.

    If the last convolution starts small instead of zero, or its input ten times larger, the steepest descent drives both
    last layers to zero, and training stays at that saddle point (docs/mtdo.md).
    """
    nn.init.zeros_(reconstruction.conv_last.weight)
    with torch.no_grad():
        for module in reconstruction.upsample.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(UPSAMPLER_START)
