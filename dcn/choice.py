"""Select the implementation of the operator: compiled -> torchvision's (CUDA) -> plain PyTorch.

On a CUDA card the compiled operator is chosen only after it agreed with plain PyTorch there (dcn.verify).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from dcn import compiled, plain, verify
from dcn.checks import autocast_type, check, pair
from errors import InputError

NAMES = ("compiled", "torchvision", "plain")
log = logging.getLogger("dcn")
_forced: str | None = None
_logged: set[tuple[str, str]] = set()


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
    """Modulated deformable convolution (DCNv2, CVPR 2019, equation 1), equivalent to torchvision's operator.

    input (B, C, H, W), weight (O, C/groups, kh, kw), bias (O,). offset (B, G*2*kh*kw, Ho, Wo) in pixels, per deformable group and kernel
    point (row by row) dy then dx; mask (B, G*kh*kw, Ho, Wo) multiplies the samples (None: ones). groups and G follow from the shapes.
    Sampling is bilinear; each corner outside the map counts as 0, so distant, infinite and NaN positions give 0.
    -> (B, O, Ho, Wo). float32, float64, float16, bfloat16 (sums in float32); offset and mask may be float32 with half types; under
    autocast the result has autocast's type. Differentiable once. Raises InputError (one line) for invalid shapes, types or devices.
    """
    strides, paddings, dilations = pair(stride, "stride", 1), pair(padding, "padding", 0), pair(dilation, "dilation", 1)
    check(input, offset, weight, bias, mask, strides, paddings, dilations)
    name = _chosen(_forced, input.device.type, input.device.index)
    if name == "compiled":
        return torch.ops.dcn.deform_conv2d(input, offset, weight, bias, mask, strides, paddings, dilations)
    if input.numel() == 0 or offset.numel() == 0:
        return _without_samples(input, offset, weight, bias, mask)
    run = _run_torchvision if name == "torchvision" else plain.deform_conv2d
    return run(input, offset, weight, bias, strides, paddings, dilations, mask)


def backends() -> list[str]:
    """Available implementations among "compiled", "torchvision" and "plain", best first. "plain" is always available."""
    there = ["compiled"] if compiled.available("cpu") else []
    middle = ["torchvision"] if _torchvision() else []
    return [*there, *middle, "plain"]


def set_backend(name: str | None) -> None:
    """Force one implementation for this process; "auto" or None selects the one of DCN_BACKEND, else the best available.

    Functions that torch.compile has already compiled are compiled again. Raises InputError for an unknown name.
    """
    global _forced
    _forced = None if name is None else _known(name, "set_backend")


def _known(name: str, where: str) -> str:
    if name != "auto" and name not in NAMES:
        raise InputError(f"{where}: unknown dcn backend {name!r}; use auto, {', '.join(NAMES)}")
    return name


def implementation(device: str) -> str:
    """The implementation for tensors of a device type (CUDA: on the current card): "compiled", "torchvision" or "plain"."""
    return _chosen(_forced, device, None)


def serves(like: Tensor, *types: torch.dtype) -> bool:
    """Whether the compiled operators for inference on CPUs support tensors like this one, with one of these types.

    Raises InputError if the compiled operators are forced but not available.
    """
    if like.device.type != "cpu" or like.dtype not in types or torch.is_grad_enabled():
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return implementation("cpu") == "compiled"


@torch.compiler.assume_constant_result
def _chosen(forced: str | None, device: str, index: int | None) -> str:
    """The implementation for tensors of a device type ("cpu", "cuda") and card. Raises InputError if the forced one is missing."""
    environment = _known(os.environ.get("DCN_BACKEND", "") or "auto", "environment variable DCN_BACKEND")
    wanted = environment if forced in (None, "auto") else forced
    if wanted == "compiled":
        if compiled.available(device):
            return _say("compiled", device, "requested")
        raise InputError(f"dcn backend compiled is not available for {device}: {compiled.why_not()}; or use auto")
    why_not = ""
    if wanted == "auto":
        why_not = _why_not_compiled(device, index)
        if not why_not:
            return _say("compiled", device, "")
    # On the CPU torchvision's operator is several times slower than the plain path, so it is used only on request.
    if wanted == "torchvision" or (wanted == "auto" and device == "cuda"):
        if _torchvision():
            return _say("torchvision", device, why_not)
        if wanted == "torchvision":
            raise InputError("dcn backend torchvision is not available: torchvision does not import; use auto")
        why_not += "; torchvision, which would also be faster, does not import"
    return _say("plain", device, why_not)


def _why_not_compiled(device: str, index: int | None) -> str:
    if not compiled.available(device):
        return f"compiled would be faster: {compiled.why_not()}"
    return verify.why_not(index) if device == "cuda" else ""


def _say(name: str, device: str, reason: str) -> str:
    """Log the choice once per process; on a GPU a slower choice is logged as a warning."""
    if (name, device) not in _logged:
        _logged.add((name, device))
        slower = device == "cuda" and reason and reason != "requested"
        level = logging.WARNING if slower else logging.INFO
        log.log(level, "dcn: operators on %s: %s%s", device, name, f" ({reason})" if reason else "")
    return name


@cache
def _torchvision() -> Callable[..., Tensor] | None:
    """torchvision's operator, or None if torchvision does not import (with another build of PyTorch it raises any exception)."""
    try:
        from torchvision.ops import deform_conv2d as operator
    except Exception as error:
        log.debug("torchvision does not import: %s", error)
        return None
    # torchvision's Python part may be present without the compiled one (metrics/perceptual.py imports it with CPU builds).
    return operator if hasattr(torch.ops.torchvision, "deform_conv2d") else None


def _run_torchvision(input, offset, weight, bias, stride, padding, dilation, mask) -> Tensor:
    """Convert the arguments to one type for torchvision's operator, and on the CPU not to a half type."""
    operator = _torchvision()
    assert operator is not None
    kind = torch.promote_types(input.dtype, torch.float32) if input.device.type == "cpu" else input.dtype
    offset, weight = offset.to(kind), weight.to(kind)
    bias, mask = (None if tensor is None else tensor.to(kind) for tensor in (bias, mask))
    return operator(input.to(kind), offset, weight, bias, stride, padding, dilation, mask).to(input.dtype)


def _without_samples(input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    """The result for an empty batch or a map without pixels: the bias, connected to every argument for backward."""
    shape = (input.shape[0], weight.shape[0], *offset.shape[-2:])
    joined = input.sum() * 0 + offset.sum() * 0 + weight.sum() * 0 + (0 if mask is None else mask.sum() * 0)
    if bias is not None:
        joined = joined + bias[:, None, None]
    kind = None if input.dtype == torch.float64 else autocast_type(input.device.type)
    return joined.to(kind or input.dtype).expand(shape).clone()
