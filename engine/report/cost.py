"""Multiplications of a network, counted by running it once: convolutions, linear layers, attention, deformable convolution."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import dcn
from models.mtdo.attention import MultiHead
from models.mtdo.tail import FoldedTail

SIDE = 64  # LR pixels a side of the frames that are counted


def gmac_per_frame(network: nn.Module, side: int = SIDE) -> float:
    """10^9 multiply-accumulates for one output frame of `network` from LR frames of `side` x `side`.

    MTDO: one window. STNO: two key frames and one in between at four times the size, divided by three frames. Resampling, norms and
    activations are not counted, as is usual, nor are the zeros that some operators fill heads of an odd width with: the count is the
    same whichever operators run (STNO's query: within two thousandths, because cells that are multiplied
    twice are not counted for the compiled one).
    """
    device = next(network.parameters()).device
    config: Any = network.config
    frames = torch.zeros(1, getattr(config, "frames", 2), 3, side, side, device=device)
    produced = 3 if config.name == "stno" else 1
    with torch.no_grad(), _as_published(network):
        return gmac(lambda: network(frames)) / produced


def gmac(run: Callable[[], object]) -> float:
    """10^9 multiply-accumulates of whatever `run` does, backward passes too. What is filled with zeros counts in full."""
    with FlopCounterMode(display=False, custom_mapping=_formulas()) as counter:
        run()
    return counter.get_total_flops() / 2 / 1e9


@contextmanager
def _as_published(network: nn.Module) -> Iterator[None]:
    """Heads of attention at their own width (30 in the paper's MTDO, which PyTorch's attention would get as 32), nothing folded."""
    layers = [layer for layer in network.modules() if isinstance(layer, MultiHead)]
    fillings = [layer.filling for layer in layers]
    found: list[Any] = [getattr(layer, "tail", None) for layer in network.modules()]
    tails = [tail for tail in found if isinstance(tail, FoldedTail)]
    try:
        for layer in layers:
            layer.filling = 0
        for tail in tails:
            tail.fold = False
        yield
    finally:
        for tail in tails:
            tail.fold = True
        for layer, filling in zip(layers, fillings, strict=True):
            layer.filling = filling


def _formulas() -> dict[Any, Any]:
    """What PyTorch's own counter leaves out: attention on the CPU and our operators."""
    formulas: dict[Any, Any] = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
    }
    if "compiled" in dcn.backends():
        formulas[torch.ops.dcn.deform_conv2d] = _deform_flops
        formulas[torch.ops.dcn.deform_conv2d_backward] = _deform_backward_flops
        formulas[torch.ops.dcn.window_attention] = _window_attention_flops
        formulas[torch.ops.dcn.query] = _query_flops
    return formulas


def _attention_flops(query: Any, key: Any, value: Any, *_args: Any, out_shape: Any = None, **_kwargs: Any) -> int:
    batch_heads = math.prod(query[:-2])
    return 2 * batch_heads * query[-2] * key[-2] * (query[-1] + value[-1])


def _attention_backward_flops(grad: Any, query: Any, key: Any, value: Any, *_args: Any, **_kwargs: Any) -> int:
    """Twice the forward pass, as of any product. It occurs where the bias does not learn; scores made again are not counted."""
    return 2 * _attention_flops(query, key, value)


def _deform_flops(image: Any, offset: Any, weight: Any, *_args: Any, out_shape: Any = None, **_kwargs: Any) -> int:
    return 2 * image[0] * offset[-2] * offset[-1] * math.prod(weight)


def _deform_backward_flops(grad: Any, image: Any, offset: Any, weight: Any, *_args: Any, **_kwargs: Any) -> int:
    return 2 * _deform_flops(image, offset, weight)  # of the samples and of the weight


def _window_attention_flops(qkv: Any, bias: Any, *_args: Any, out_shape: Any = None, **_kwargs: Any) -> int:
    batch, height, width, channels = qkv
    return 2 * batch * height * width * bias[-1] * (channels // 3) * 2  # scores, then weighted values


def _query_flops(
    features: Any, corners: Any, _y: Any, _x: Any, colour: Any, *_args: Any, out_shape: Any = None, **_kwargs: Any
) -> int:
    cells, pixels = math.prod(features[:3]), out_shape[0] * out_shape[2] * out_shape[3]
    return 2 * (cells * math.prod(corners) + pixels * math.prod(colour))  # of the features' corners and of the colours
