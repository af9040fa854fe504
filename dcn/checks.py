"""Checks of deformable-convolution arguments: one clear line instead of a failure deep inside a kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from errors import InputError

Pair = tuple[int, int]
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def autocast_type(device: str) -> torch.dtype | None:
    """The type that autocast asks for on this device type; None: it is off."""
    if device == "meta" or not torch.is_autocast_enabled(device):  # "meta" is unknown to autocast
        return None
    return torch.get_autocast_dtype(device)


def pair(value: int | tuple[int, int] | list[int], name: str, least: int) -> Pair:
    """A number or a pair as a pair of ints, each at least `least`."""
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2 or not all(isinstance(v, int) for v in both):
        raise InputError(f"deform_conv2d: {name} must be an int or two ints, got {value!r}")
    if both[0] < least or both[1] < least:
        raise InputError(f"deform_conv2d: {name} must be at least {least}, got {both}")
    return both[0], both[1]


def output_size(size: torch.Size, kernel: torch.Size, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """Height and width of the output, as F.conv2d's."""
    height = (size[0] + 2 * padding[0] - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    width = (size[1] + 2 * padding[1] - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    return height, width


def check(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> None:
    """Raise InputError unless shapes, types and devices fit together."""
    _check_weight(input, weight, bias)
    out = output_size(input.shape[2:], weight.shape[2:], stride, padding, dilation)
    batch, channels = input.shape[:2]
    count = weight.shape[2] * weight.shape[3]
    if out[0] < 0 or out[1] < 0:
        raise InputError(
            f"deform_conv2d: a {weight.shape[2]}x{weight.shape[3]} kernel does not fit on a {input.shape[2]}x{input.shape[3]} map: "
            "the output size would be negative; pad more or dilate less"
        )
    if offset.dim() != 4 or offset.shape[1] == 0 or offset.shape[1] % (2 * count):
        raise InputError(
            f"deform_conv2d: offset must be (B, 2*G*{count}, Ho, Wo) with G deformable groups, got {tuple(offset.shape)}"
        )
    groups = offset.shape[1] // (2 * count)
    if channels % groups:
        raise InputError(f"deform_conv2d: {channels} input channels cannot be split into {groups} deformable groups")
    _check_map("offset", offset, (batch, 2 * groups * count, *out))
    if mask is not None:
        _check_map("mask", mask, (batch, groups * count, *out))
    _check_kinds(input, offset, weight, bias, mask)


def _check_weight(input: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if input.dim() != 4:
        raise InputError(f"deform_conv2d: input must be (B, C, H, W), got {tuple(input.shape)}")
    if weight.dim() != 4 or weight.numel() == 0:
        raise InputError(
            f"deform_conv2d: weight must be (O, C/groups, kh, kw), none of them 0, got {tuple(weight.shape)}"
        )
    channels, per_group = input.shape[1], weight.shape[1]
    if channels == 0 or channels % per_group or weight.shape[0] % (channels // per_group):
        raise InputError(
            f"deform_conv2d: weight {tuple(weight.shape)} does not fit input with {channels} channels "
            "(expected (O, C/groups, kh, kw), O divisible by groups)"
        )
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise InputError(f"deform_conv2d: bias must have shape ({weight.shape[0]},), got {tuple(bias.shape)}")


def _check_map(name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != expected:
        raise InputError(f"deform_conv2d: {name} must have shape {expected}, got {tuple(tensor.shape)}")


def _check_kinds(input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None) -> None:
    """One device; one floating type for input, weight and bias; that type or float32 for offset and mask; any under autocast."""
    device = input.device
    autocast = autocast_type(device.type) is not None
    named = {"input": input, "offset": offset, "weight": weight, "bias": bias, "mask": mask}
    for name, tensor in named.items():
        if tensor is None:
            continue
        if tensor.device != device:
            raise InputError(f"deform_conv2d: {name} is on {tensor.device} but input is on {device}")
        if tensor.dtype not in FLOATS:
            raise InputError(f"deform_conv2d: {name} must be a floating-point tensor, got {tensor.dtype}")
        wider = name in ("offset", "mask") and tensor.dtype == torch.float32 and input.dtype != torch.float64
        if tensor.dtype != input.dtype and not autocast and not wider:
            raise InputError(
                f"deform_conv2d: {name} is {tensor.dtype} but input is {input.dtype}; they must be the same"
            )
