"""What data, networks, losses and reports share: BT.601 luma, Keys' cubic kernel, the exact type of a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: weights of red, green and blue, full range


def keys_cubic(distance: Any, a: float = -0.5) -> Any:
    """Keys' cubic convolution kernel (IEEE Trans. ASSP 1981) at distances >= 0: a number, an array or a tensor.

    a = -0.5: MATLAB's kernel. a = -0.75: that of PyTorch and OpenCV.
    """
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a
    if isinstance(distance, Tensor):
        return torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))
    if isinstance(distance, np.ndarray):
        return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    return near if distance <= 1 else far if distance < 2 else 0.0


def exact_type(device: torch.device | None) -> torch.dtype:
    """float64, or float32 on a device without it: Apple's GPUs, and some of Intel's."""
    return torch.float32 if device is not None and device.type in ("mps", "xpu") else torch.float64
