"""Multiplications of a network, counted by running it once: convolutions, linear layers, attention, deformable convolution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import dcn
from models.base import Network

SIDE = 64  # LR pixels a side of the frames that are counted


def gmac_per_frame(network: Network, height: int = SIDE, width: int = SIDE) -> float:
    """10^9 multiply-accumulates for one output frame of `network` from LR frames of `height` x `width`.

    Window networks: one window. Space-time networks: two key frames and one intermediate frame at four times the size, divided
    by three frames. Resampling, normalisation and activations are not counted, as usual, nor is the padding of attention heads:
    the count does not depend on the operators in use (STNO's query: within 0.2 %, because cells that are multiplied twice are
    not counted for the compiled one).
    """
    frames = network.example_frames(height, width).to(next(network.parameters()).device)
    results: list[torch.Tensor] = []
    with torch.no_grad(), network.published_form():
        total = gmac(lambda: results.append(network(frames)))
    return total / (results[0].shape[1] if network.space_time else 1)


def gmac(run: Callable[[], object]) -> float:
    """10^9 multiply-accumulates of `run`, backward passes included. Products with zero padding count in full."""
    with FlopCounterMode(display=False, custom_mapping=_formulas()) as counter:
        run()
    return counter.get_total_flops() / 2 / 1e9


def _formulas() -> dict[Any, Any]:
    """Formulas that PyTorch's counter lacks: attention on the CPU and our operators."""
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
    """Twice the forward pass, as for any product. Used if the bias has no gradient; recomputed scores are not counted."""
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
