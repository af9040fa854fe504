"""How MTDO's weights start. Spec of the paper's code, except that alignment starts without offsets."""

from __future__ import annotations

import torch
from torch import nn

from dcn import DCNv2Pack
from models.mtdo.attention import OverlapAttention, WindowAttention

NEAR_BICUBIC = 0.01  # scale of the last convolution with `residual: bicubic`: the output starts near the bicubic frame


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
    if network.config.residual == "bicubic":
        with torch.no_grad():
            network.reconstruction.last.weight.mul_(NEAR_BICUBIC)
    if network.config.ctdm == "as_shipped" and network.ctdm is not None:
        network.ctdm.requires_grad_(False)  # never read; kept because the published weights hold it
