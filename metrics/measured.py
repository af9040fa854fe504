"""Measures of real and invented detail on measured data, with and without ground truth.

Without ground truth: a result must agree with its input. `consistency` compares the result, reduced to low resolution, with
the input, band by band; `ndvi_change` does so for the vegetation index.
With ground truth: `detail_shares` computes the shares of the detail missing in bicubic that were restored, omitted or invented
(after improvement, omission and hallucination in opensr-test, Aybar et al., IEEE GRSL 2024, with our own definitions, given
below).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from errors import InputError
from metrics.planes import check_frames, planes

DETAIL = 4.0  # grey levels of 255: smaller differences do not count as detail

Array = np.ndarray[Any, np.dtype[Any]]


def consistency(degraded: Tensor, low: Tensor) -> dict[str, Tensor]:
    """Compare the result at low resolution with its input, both (C, h, w) in any unit.

    Returns per band, (C,) float64: `bias` (mean of degraded - low) and `rmse`; and `map`, (C, h, w), the differences.
    """
    if degraded.shape != low.shape:
        raise InputError(f"metrics: result {tuple(degraded.shape)} and input {tuple(low.shape)} differ in shape")
    difference = degraded.double() - low.double()
    return {
        "map": difference,
        "bias": difference.mean(dim=(-2, -1)),
        "rmse": difference.square().mean(dim=(-2, -1)).sqrt(),
    }


def ndvi(frame: Array | Tensor, nir: int, red: int) -> Tensor:
    """(near infrared - red) / (near infrared + red) of (C, h, w) in reflectance or counts; 0 where both are 0."""
    values = torch.as_tensor(frame).double()
    total = values[nir] + values[red]
    return torch.where(total.abs() > 1e-12, (values[nir] - values[red]) / total, 0.0)


def ndvi_change(degraded: Tensor, low: Tensor, nir: int, red: int) -> dict[str, float]:
    """NDVI of the result at low resolution minus that of the input: `ndvi_bias` (mean) and `ndvi_error` (mean absolute)."""
    change = ndvi(degraded, nir, red) - ndvi(low, nir, red)
    return {"ndvi_bias": float(change.mean()), "ndvi_error": float(change.abs().mean())}


def detail_shares(pred: Tensor, bicubic: Tensor, gt: Tensor, crop: int = 0) -> dict[str, float | None]:
    """Shares of restored, omitted and invented detail; frames (3, H, W) in [0, 1], luma of protocol `standard`.

    Where |gt - bicubic| >= DETAIL there is detail to restore; with r = (pred - bicubic) / (gt - bicubic):
    `restored`  1/2 <= r <= 3/2: nearer to the truth than to bicubic, and not far beyond it;
    `omitted`   -1/2 < r < 1/2: bicubic's value was kept;
    `invented`  elsewhere: neither the truth nor bicubic. The three are shares of those pixels and sum up to 1.
    `invented_elsewhere`: the share of the other pixels where |pred - gt| >= DETAIL. None where there are no such pixels.
    """
    check_frames(pred, gt)
    check_frames(bicubic, gt)
    inner = slice(crop, -crop or None)
    shown, base, truth = (planes(frame)[0][inner, inner] for frame in (pred, bicubic, gt))
    missing = truth - base
    detail = missing.abs() >= DETAIL
    ratio = (shown - base)[detail] / missing[detail]
    restored, omitted = (ratio >= 0.5) & (ratio <= 1.5), (ratio > -0.5) & (ratio < 0.5)
    shares = {"restored": restored, "omitted": omitted, "invented": ~(restored | omitted)}
    shares["invented_elsewhere"] = ((shown - truth).abs() >= DETAIL)[~detail]
    return {name: float(pixels.double().mean()) if pixels.numel() else None for name, pixels in shares.items()}


def doubt(versions: Tensor) -> Tensor:
    """Standard deviation per pixel and band over `versions` (N, C, H, W) of one frame -> (C, H, W)."""
    return versions.std(dim=0, unbiased=False)
