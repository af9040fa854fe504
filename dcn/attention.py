"""Window attention as one compiled operator for inference on CPUs, which writes only the result to memory."""

from __future__ import annotations

import torch
from torch import Tensor

from dcn.choice import serves


def usable(like: Tensor) -> bool:
    """Whether `window_attention` supports tensors like this one: on a CPU, compiled, without gradient or tracing."""
    return serves(like, torch.float32, torch.bfloat16)


def window_attention(
    qkv: Tensor, bias: Tensor, heads: int, window: int, scale: float, *, margin: int = 0, shift: int = 0
) -> Tensor:
    """softmax(scale * q k + bias) v of every head, in windows of `window` x `window` tokens.

    qkv (B, H, W, 3 * heads * width): the queries of all heads, then the keys, then the values of each token; H and W are
    multiples of the window. bias (heads, window**2, (window + 2 * margin)**2), of any float type, is rounded to the type of
    qkv. -> (B, H, W, heads * width). margin: the keys extend this many tokens beyond the window; keys beyond the map are zero
    and take part (HAT's overlapping cross-attention). shift, 0 <= shift < window: the windows are those of the map rolled by
    -shift; tokens that are neighbours only because of the roll get -100 added to their score (Swin); the result is rolled back.
    Margin and shift exclude each other. Types: float32, or bfloat16 with scores, softmax and sums in float32; NaN propagates
    as in PyTorch's softmax. There is no gradient: call it only if `usable`. Raises RuntimeError (one line) for invalid arguments.
    """
    return torch.ops.dcn.window_attention(qkv, bias.to(qkv.dtype), heads, window, margin, shift, scale)
