"""Attention inside windows as one compiled operator, for inference on CPUs: nothing but the result is written to memory."""

from __future__ import annotations

import torch
from torch import Tensor

from dcn.choice import serves


def usable(like: Tensor) -> bool:
    """Whether `window_attention` is there for tensors like this one: on a CPU, compiled, no gradient or trace wanted."""
    return serves(like, torch.float32, torch.bfloat16)


def window_attention(
    qkv: Tensor, bias: Tensor, heads: int, window: int, scale: float, *, margin: int = 0, shift: int = 0
) -> Tensor:
    """softmax(scale * q k + bias) v of every head, in windows of `window` x `window` tokens.

    qkv (B, H, W, 3 * heads * width): query, key and value of each token, all heads of one behind the other; H and W are
    multiples of the window. bias (heads, window**2, (window + 2 * margin)**2), of any float type: it is rounded to qkv's.
    -> (B, H, W, heads * width). margin: the keys reach so many tokens beyond the window; those beyond the map are zero and
    take part (HAT's overlapping cross-attention). shift, 0 <= shift < window: the windows are those of the map rolled by
    -shift, and tokens that only the roll made neighbours get -100 added to their score (Swin); the result is rolled back.
    Margin or shift, not both. float32, or bfloat16 with scores, softmax and sums in float32; NaN comes out where PyTorch's
    softmax gives it. There is no gradient: call it only where `usable`. Raises RuntimeError (one line) for what does not fit.
    """
    return torch.ops.dcn.window_attention(qkv, bias.to(qkv.dtype), heads, window, margin, shift, scale)
