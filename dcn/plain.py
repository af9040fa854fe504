"""Modulated deformable convolution (DCNv2) in standard PyTorch operators.

This is the reference for the compiled kernels, needs no compiler and can be exported: no Python branch depends on data or on
the map's size, so it traces with dynamic shapes, and every step is a standard ONNX operator (GridSample from opset 16).

Zhu, Hu, Lin, Dai, "Deformable ConvNets v2: More Deformable, Better Results", CVPR 2019, equation 1.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from dcn.checks import Pair, autocast_type


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    mask: Tensor | None = None,
) -> Tensor:
    """As `dcn.deform_conv2d` (shapes there), without its checks and for non-empty maps.

    One kernel point at a time, so that without gradients only 1/(kh*kw) of the column buffer exists at once. Coordinates,
    samples and sums are float32 (float64 for float64 input); the products follow autocast.
    """
    device = input.device.type
    product = autocast_type(device) or input.dtype
    accurate = torch.promote_types(input.dtype, torch.float32)
    if accurate == torch.float64:  # autocast does not change double precision
        product = accurate
    batch, channels, height, width = input.shape
    out_channels, group_channels, kernel_height, kernel_width = weight.shape
    count = kernel_height * kernel_width
    groups = channels // group_channels
    out_size = offset.shape[-2:]
    with nullcontext() if device == "meta" else torch.autocast(device, enabled=False):
        maps, offset = input.to(accurate), offset.to(accurate)
        matrices = (
            weight.to(product).reshape(groups, -1, group_channels, count).permute(3, 0, 1, 2).contiguous().unbind(0)
        )
        total = input.new_zeros((), dtype=accurate) if bias is None else bias.to(accurate)[:, None, None]
        for point, grid in enumerate(
            _grids(offset, (height, width), (kernel_height, kernel_width), stride, padding, dilation)
        ):
            deformable = grid.shape[0] // batch
            samples = F.grid_sample(maps.reshape(batch * deformable, -1, height, width), grid, align_corners=False)
            if mask is not None:
                samples = samples * mask[:, point::count].to(accurate).reshape(-1, 1, *out_size)
            columns = samples.to(product).reshape(batch, groups, group_channels, -1)
            total = total + (matrices[point] @ columns).to(accurate).reshape(batch, out_channels, *out_size)
        return total.to(product)


def _grids(offset: Tensor, size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> list[Tensor]:
    """Grids in [-1, 1] (pixel edges), one (B*G, Ho, Wo, 2) per kernel point, row by row; G deformable groups."""
    height, width = size
    count = kernel[0] * kernel[1]
    out_height, out_width = offset.shape[-2:]
    rows = torch.arange(out_height, device=offset.device, dtype=offset.dtype)[:, None] * stride[0] - padding[0]
    cols = torch.arange(out_width, device=offset.device, dtype=offset.dtype) * stride[1] - padding[1]
    moves = offset.reshape(-1, 2 * count, out_height, out_width).unbind(1)
    grids = []
    for point in range(count):
        y = moves[2 * point] + (rows + point // kernel[1] * dilation[0])
        x = moves[2 * point + 1] + (cols + point % kernel[1] * dilation[1])
        # Distant, infinite and NaN positions become one position with all corners outside the map: zero sample, zero gradient.
        y = torch.where((y > -2) & (y < height + 1), y, -2.0)
        x = torch.where((x > -2) & (x < width + 1), x, -2.0)
        grids.append(torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1))
    return grids
