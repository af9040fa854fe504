"""How MTDO's weights start. Spec of the paper's code, except that alignment starts without offsets."""

from __future__ import annotations

import torch
from torch import nn

from dcn import DCNv2Pack
from models.mtdo.attention import OverlapAttention, WindowAttention

UPSAMPLER_START = 0.2  # factor on the upsampler's convolutions, which no activation follows, with `residual: bicubic`


def initialise(network: nn.Module) -> None:
    """Kaiming normal (fan-in) convolutions, truncated normal 0.02 linear layers and position tables, zero biases.

    LayerNorm 1 and 0 and PReLU 0.25 are PyTorch's own start; the deformable layer starts itself (offsets zero).
    """
    deformable = [module for module in network.modules() if isinstance(module, DCNv2Pack)]
    offsets = {module.conv_offset_mask for module in deformable}
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module not in offsets:
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, (WindowAttention, OverlapAttention)):
            nn.init.trunc_normal_(module.table, std=0.02)
    if network.config.wide:  # starts as the same network without `wide`
        for layer in (network.reconstruction.wide_enter, network.reconstruction.wide_leave):
            nn.init.zeros_(layer.weight)
    if network.config.residual == "bicubic":
        _start_at_bicubic(network.reconstruction)
    if network.config.ctdm == "as_shipped" and network.ctdm is not None:
        network.ctdm.requires_grad_(False)  # never read; kept because the published weights hold it


def _start_at_bicubic(reconstruction: nn.Module) -> None:
    """The output starts AT the bicubic frame, and the features before the last convolution are about as large as pixels.

    From a small start instead of zero, or from features ten times larger, the quickest way down is to make the last two
    layers vanish together, and training stays at that saddle (docs/mtdo.md).
    """
    nn.init.zeros_(reconstruction.last.weight)
    with torch.no_grad():
        for module in reconstruction.upsample.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(UPSAMPLER_START)
