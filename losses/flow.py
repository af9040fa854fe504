"""Losses on optical flow."""

from __future__ import annotations

import torch
from torch import Tensor


def flow_smoothness(flow: Tensor, image: Tensor, edge: float = 10.0) -> Tensor:
    """First-order smoothness of flow (..., 2, h, w) in pixels, relaxed at the edges of image (..., 3, h, w) in [0, 1].

    Sum over both directions of the mean of |difference of the flow| * exp(-edge * mean over colours of |difference of
    the image|).
    """
    if flow.shape[:-3] != image.shape[:-3] or flow.shape[-2:] != image.shape[-2:]:
        raise ValueError(f"flow_smoothness: flow {tuple(flow.shape)} and image {tuple(image.shape)} do not match")
    terms = []
    for axis in (-1, -2):
        weight = torch.exp(-edge * image.diff(dim=axis).abs().mean(dim=-3, keepdim=True))
        terms.append((weight * flow.diff(dim=axis).abs()).mean())
    return terms[0] + terms[1]
