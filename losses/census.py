"""Census loss: compares the local order of brightness, which does not depend on exposure."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from formulas import LUMA

SOFTNESS = 0.9 / 255  # brightness difference (range 1) at which the ternary value reaches 0.71
RADIUS = 3  # pixels; a descriptor compares a pixel with those of a square of 7 around it
TOLERANCE = 0.1  # squared difference of two ternary values at which the distance is one half


def ternary(frames: Tensor, radius: int = RADIUS) -> Tensor:
    """Soft ternary descriptor (N, (2r+1)^2 - 1, h - 2r, w - 2r) of frames (N, 3, h, w) in [0, 1].

    Each value is d / sqrt(d^2 + s^2) for the brightness difference d between a neighbour and the centre: a smooth value near
    -1, 0 or 1. Only pixels with all neighbours inside the frame have a descriptor.
    """
    luma = torch.tensor(LUMA, dtype=frames.dtype).to(frames.device, non_blocking=True)
    gray = (frames * luma.view(3, 1, 1)).sum(1, keepdim=True)
    height, width = gray.shape[-2:]
    side = 2 * radius + 1
    neighbours = F.unfold(gray, side).unflatten(2, (height - side + 1, width - side + 1))
    centre = side * side // 2
    difference = torch.cat([neighbours[:, :centre], neighbours[:, centre + 1 :]], dim=1) - neighbours[:, centre, None]
    return difference / (difference.square() + SOFTNESS**2).sqrt()


def census(pred: Tensor, target: Tensor, radius: int = RADIUS) -> Tensor:
    """Mean soft Hamming distance of the ternary descriptors of two clips or batches (B, ..., 3, h, w) in [0, 1].

    Returns a value in [0, 1]. After Meister et al., "UnFlow" (AAAI 2018). Needs h and w of at least 2 * radius + 1.
    """
    if pred.shape != target.shape:
        raise ValueError(f"census: shapes {tuple(pred.shape)} and {tuple(target.shape)} differ")
    distance = (ternary(pred.flatten(0, -4), radius) - ternary(target.flatten(0, -4), radius)).square()
    return (distance / (TOLERANCE + distance)).mean()
