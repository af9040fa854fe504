"""Losses on pixel values."""

from __future__ import annotations

from torch import Tensor


def l1(pred: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of two tensors of one shape."""
    return (pred - target).abs().mean()


def charbonnier(pred: Tensor, target: Tensor, eps: float = 1e-3) -> Tensor:
    """Mean of sqrt(difference^2 + eps^2): a smooth L1 (Lai et al., CVPR 2017)."""
    return ((pred - target).square() + eps * eps).sqrt().mean()
