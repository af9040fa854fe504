"""Load the library of compiled operators, and register tracing and gradients of the deformable convolution.

`torch.ops.dcn.deform_conv2d` runs on CPUs and CUDA; the other operators (dcn.attention, dcn.query, dcn.motion) run inference on
CPUs only, so they need no registrations.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from dcn import build

log = logging.getLogger("dcn")
_loading = threading.Lock()
_tried = False
_loaded = False
_why_not = ""
_registered: list[torch.library.Library] = []  # keeps the registrations alive


def available(device: str) -> bool:
    """Whether the compiled deformable convolution (on CPUs: every operator) supports tensors of this device type.

    Loads the library at the first call, never builds it.
    """
    global _tried
    if not _tried:
        with _loading:  # a second thread waits until the first has loaded it
            if not _tried:
                _load()
                _tried = True
    key = {"cpu": "CPU", "cuda": "CUDA"}.get(device)
    return _loaded and key is not None and torch._C._dispatch_has_kernel_for_dispatch_key("dcn::deform_conv2d", key)


def why_not() -> str:
    """The reason why there are no compiled operators, or none for this device."""
    if _why_not:
        return _why_not
    record = build.Record.of(build.library_path())
    return f"it was built {record.note}" if record else "it was not built for this device"


def ensure_built(log: Callable[[str], object] = print) -> bool:
    """Build the kernels if necessary, and load them. True: the compiled operators are available.

    Takes milliseconds if they are built, and a minute or two once if a compiler is found; otherwise it logs one line with the reason, and
    the other implementations are used. A library that is damaged or does not load is rebuilt once, with a log line. Safe to call from
    several processes at once. Does nothing if DCN_BACKEND selects another implementation.
    """
    if os.environ.get("DCN_BACKEND", "") not in ("", "auto", "compiled"):
        return False
    if _loaded:
        return True
    try:
        library = build.build(log)
        if not _load_again():
            log(f"dcn: {_why_not}: building it again")
            library.unlink(missing_ok=True)
            build.build(log)
            _load_again()
    except build.BuildError as error:
        log(f"dcn: no compiled operators: {error}; continuing without them")
        return False
    if not _loaded:
        log(f"dcn: no compiled operators: {_why_not}; continuing without them")
    return available("cpu")


def _load_again() -> bool:
    global _tried
    _tried = False
    return available("cpu")


def _load() -> None:
    global _loaded, _why_not
    path = build.library_path()
    if not build.intact(path):
        state = "is damaged" if path.exists() else "is not built"
        _why_not = f"{path.name} {state} (run: bash setup_dcn.sh)"
        return
    try:
        torch.ops.load_library(str(path))
    except (OSError, RuntimeError) as error:
        _why_not = f"{path.name} does not load ({str(error).splitlines()[0]})"
        return
    _register()
    _loaded, _why_not = True, ""


def _register() -> None:
    torch.library.register_fake("dcn::deform_conv2d", _shape)
    torch.library.register_fake("dcn::deform_conv2d_backward", _backward_shapes)
    torch.library.register_autograd("dcn::deform_conv2d", _backward, setup_context=_setup)
    torch.library.register_autograd("dcn::deform_conv2d_backward", _twice)
    library = torch.library.Library("dcn", "IMPL")
    for device in ("cpu", "cuda"):
        library.impl("deform_conv2d", _autocast(device), "Autocast" + device.upper())
    _registered.append(library)


def _shape(input, offset, weight, bias, mask, stride, padding, dilation):
    out = input.new_empty((input.shape[0], weight.shape[0], offset.shape[2], offset.shape[3]))
    channels_last = input.device.type == "cpu" and not input.is_contiguous()
    if channels_last and input.is_contiguous(memory_format=torch.channels_last):
        return out.to(memory_format=torch.channels_last)
    return out


def _backward_shapes(grad, input, offset, weight, mask, stride, padding, dilation, wanted):
    tensors = (input, offset, weight, mask)
    return tuple(
        input.new_empty(0) if tensor is None or not want else tensor.new_empty(tensor.shape)
        for tensor, want in zip(tensors, wanted, strict=True)
    )


def _setup(ctx, inputs, output) -> None:
    input, offset, weight, _, mask, ctx.stride, ctx.padding, ctx.dilation = inputs
    ctx.save_for_backward(input, offset, weight, mask)


def _backward(ctx, grad: Tensor):
    input, offset, weight, mask = ctx.saved_tensors
    needs_input, needs_offset, needs_weight, needs_bias, needs_mask = ctx.needs_input_grad[:5]
    wanted = [needs_input, needs_offset, needs_weight, needs_mask]
    grads: list[Tensor | None] = [None] * 4
    if any(wanted):
        found = torch.ops.dcn.deform_conv2d_backward(
            grad, input, offset, weight, mask, ctx.stride, ctx.padding, ctx.dilation, wanted
        )
        grads = [value if want else None for value, want in zip(found, wanted, strict=True)]
    bias = grad.sum((0, 2, 3)) if needs_bias else None
    return grads[0], grads[1], grads[2], bias, grads[3], None, None, None


def _twice(ctx, *grads):
    raise RuntimeError("deform_conv2d cannot be differentiated twice (its backward has no gradient)")


def _autocast(device: str):
    """Cast input, weight and bias to autocast's type (float64 stays); offsets and masks stay float32, because they need its precision."""

    def run(input, offset, weight, bias, mask, stride, padding, dilation):
        kind = torch.float64 if input.dtype == torch.float64 else torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):

            def place(tensor):
                if tensor is None or (tensor.dtype == torch.float32 and kind != torch.float64):
                    return tensor
                return tensor.to(kind)

            bias = None if bias is None else bias.to(kind)
            return torch.ops.dcn.deform_conv2d(
                input.to(kind), place(offset), weight.to(kind), bias, place(mask), stride, padding, dilation
            )

    return run
