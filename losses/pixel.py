"""Losses on pixel values."""

from __future__ import annotations

from torch import Tensor


def l1(pred: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of two tensors of one shape. Raises `ValueError` if their shapes differ."""
    return _difference(pred, target).abs().mean()


def charbonnier(pred: Tensor, target: Tensor, eps: float = 1e-3) -> Tensor:
    """Mean of sqrt(difference^2 + eps^2): a smooth L1 (Lai et al., CVPR 2017). Shapes as for `l1`."""
    return (_difference(pred, target).square() + eps * eps).sqrt().mean()


def _difference(pred: Tensor, target: Tensor) -> Tensor:
    if pred.shape != target.shape:  # broadcasting would compare frames of different samples
        raise ValueError(f"loss: shapes {tuple(pred.shape)} and {tuple(target.shape)} differ")
    return pred - target
