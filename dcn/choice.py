"""The operator, and which implementation of it runs: compiled -> torchvision's (CUDA) -> plain PyTorch."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from dcn import plain
from dcn.checks import check, pair
from errors import InputError

NAMES = ("compiled", "torchvision", "plain")
log = logging.getLogger("dcn")
_forced: str | None = None


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """Modulated deformable convolution (DCNv2, CVPR 2019, equation 1), with the meaning of torchvision's operator.

    input (B, C, H, W), weight (O, C/groups, kh, kw), bias (O,). offset (B, G*2*kh*kw, Ho, Wo) in pixels, per deformable group and kernel
    point (row by row) dy then dx; mask (B, G*kh*kw, Ho, Wo) multiplies the samples (None: ones). groups and G follow from the shapes.
    Sampling is bilinear; each corner outside the map counts 0, so far, infinite and NaN positions give 0.
    -> (B, O, Ho, Wo). float32, float64, float16, bfloat16 (sums in float32); offset and mask may be float32 beside half types; under autocast
    the result has autocast's type. Differentiable once. Raises InputError (one line) for shapes, types or devices that do not fit.
    """
    strides, paddings, dilations = pair(stride, "stride", 1), pair(padding, "padding", 0), pair(dilation, "dilation", 1)
    check(input, offset, weight, bias, mask, strides, paddings, dilations)
    name = _chosen(_forced, input.device.type)
    if name == "compiled":
        return torch.ops.dcn.deform_conv2d(input, offset, weight, bias, mask, strides, paddings, dilations)
    if input.numel() == 0 or offset.numel() == 0:
        return _without_samples(input, offset, weight, bias, mask)
    run = _torchvision() if name == "torchvision" else None
    return (run or plain.deform_conv2d)(input, offset, weight, bias, strides, paddings, dilations, mask)


def backends() -> list[str]:
    """Names of the implementations that work here, best first: of "compiled", "torchvision", "plain". "plain" is always there."""
    return ["plain"]


def set_backend(name: str | None) -> None:
    """Force one implementation for this process; "auto" or None: the best that is there, or what DCN_BACKEND says.

    A function that torch.compile has already compiled is compiled anew. Raises InputError for an unknown name.
    """
    global _forced
    _forced = None if name is None else _known(name, "set_backend")


def _known(name: str, where: str) -> str:
    if name != "auto" and name not in NAMES:
        raise InputError(f"{where}: unknown dcn backend {name!r}; use auto, {', '.join(NAMES)}")
    return name


@torch.compiler.assume_constant_result
def _chosen(forced: str | None, device: str) -> str:
    wanted = forced or _known(os.environ.get("DCN_BACKEND", "") or "auto", "environment variable DCN_BACKEND")
    return _choose(wanted, device)


@cache
def _choose(wanted: str, device: str) -> str:
    """The implementation for a device type ("cpu", "cuda"); logs its choice once."""
    return "plain"


@cache
def _torchvision() -> Callable[..., Tensor] | None:
    return None


def _without_samples(input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    """The result for an empty batch or a map without pixels: the bias alone, still joined to every argument for backward."""
    shape = (input.shape[0], weight.shape[0], *offset.shape[-2:])
    joined = input.sum() * 0 + offset.sum() * 0 + weight.sum() * 0 + (0 if mask is None else mask.sum() * 0)
    if bias is not None:
        joined = joined + bias[:, None, None]
    device = input.device.type
    autocast = torch.is_autocast_enabled(device) and input.dtype != torch.float64
    return joined.to(torch.get_autocast_dtype(device) if autocast else input.dtype).expand(shape).clone()
