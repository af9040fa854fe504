"""Initial weights of MTDO: those of the published code, except that the offsets of the alignment start at zero."""

from __future__ import annotations

import torch
from torch import nn

from dcn import DCNv2Pack
from models.layers import weight_and_bias
from models.mtdo.attention import MultiHead
from models.mtdo.hat import HAT
from models.mtdo.residual import ResidualReconstruction

UPSAMPLER_START = 0.2  # `residual: bicubic`: factor on the upsampler's convolutions, which have no activations


def initialise(network: nn.Module, residual: bool) -> None:
    """Kaiming normal (fan-in) convolutions, truncated normal 0.02 linear layers and position bias tables, zero biases.

    LayerNorm and PReLU keep PyTorch's defaults; the deformable layer initialises itself (offsets zero). residual: an upscaled
    frame is added to the output, which then starts as this frame.
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
    for module in network.modules():
        if isinstance(module, HAT) and module.wide_enter is not None and module.wide_leave is not None:
            for layer in (module.wide_enter, module.wide_leave):  # starts as the same network without `wide`
                nn.init.zeros_(layer.weight)
        if residual and isinstance(module, HAT | ResidualReconstruction):
            _start_at_bicubic(module)


def _start_at_bicubic(reconstruction: HAT | ResidualReconstruction) -> None:
    """The output starts as the bicubic frame, and the features before the last convolution have the magnitude of pixels.

    If the last convolution starts small instead of zero, or its input ten times larger, the steepest descent drives both
    last layers to zero, and training stays at that saddle point.
    """
    nn.init.zeros_(reconstruction.conv_last.weight)
    with torch.no_grad():
        for module in reconstruction.upsample.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(UPSAMPLER_START)
