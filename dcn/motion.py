"""Motion-compensated addition of frames as one compiled operator for inference on CPUs."""

from __future__ import annotations

import torch
from torch import Tensor

from dcn.choice import serves


def usable(like: Tensor) -> bool:
    """Whether `add_moved` supports tensors like this one: float32 on a CPU, compiled, without gradient or tracing."""
    return serves(like, torch.float32)


def add_moved(total: Tensor, weights: Tensor, image: Tensor, motion: Tensor, weight: Tensor) -> None:
    """In place: total += weight * image(p + motion(p)), weights += weight.

    total (3, H, W) and weights (1, H, W), contiguous; image (3, H', W'), sampled bicubically (a = -0.75, the border continues);
    motion (2, h, w), x then y in pixels of its own resolution, and weight (1, h, w) are interpolated bilinearly. All float32;
    half-pixel centres. The result does not depend on the number of threads. There is no gradient: call it only if `usable`. Raises
    RuntimeError (one line) for invalid arguments.
    """
    torch.ops.dcn.add_moved(total, weights, image, motion, weight)
