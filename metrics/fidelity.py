"""PSNR and SSIM per frame under the protocols of `metrics.planes`.

SSIM, protocol `standard`: Wang et al., "Image quality assessment: from error visibility to structural similarity",
IEEE TIP 2004: Gaussian window 11x11, sigma 1.5, K1 = 0.01, K2 = 0.03, range 255, mean over the positions where the
window is inside the frame (the authors' MATLAB code; scikit-image with gaussian_weights, sigma 1.5,
use_sample_covariance=False).

SSIM, protocol `paper_mtdo`: scikit-image's defaults with `channel_axis=0` on a two-dimensional image, as the published
evaluation calls it: every ROW is a separate image, with a uniform window of 7 pixels, sample covariance, and a data range
of max - min of the ground truth's plane. For a constant ground truth, where the published code gives NaN, the range is 255.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from errors import InputError
from metrics.planes import CHANNELS, check_crop, check_frames, check_protocol, cropped, planes

Measure = Callable[[Tensor, Tensor, str], Tensor]

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first
MS_SSIM_SIDE = 161  # pixels; in smaller frames the window does not fit into the coarsest scale
PSNR_CEILING = 100.0  # dB; value of identical frames in averages and files


class SsimWindow(NamedTuple):
    """Separable SSIM window: weights along each axis (one weight: no filter along that axis)."""

    rows: tuple[float, ...]
    columns: tuple[float, ...]
    covariance: float  # factor on variances: n / (n - 1) for sample covariance, else 1

    @property
    def size(self) -> tuple[int, int]:
        return len(self.rows), len(self.columns)


def _gaussian(size: int, sigma: float) -> tuple[float, ...]:
    weights = [math.exp(-((i - size // 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    return tuple(weight / sum(weights) for weight in weights)


WINDOWS = {
    "standard": SsimWindow(_gaussian(11, 1.5), _gaussian(11, 1.5), 1.0),
    "paper_mtdo": SsimWindow((1.0,), (1 / 7,) * 7, 7 / 6),
}


def psnr(pred: Tensor, gt: Tensor, protocol: str = "standard", crop: int = 0, channel: str = "y") -> Tensor:
    """Peak signal-to-noise ratio in dB of each frame: 20 log10(255 / rmse); inf where the frames are identical.

    pred, gt: (..., 3, H, W), RGB in [0, 1]. protocol: `standard` or `paper_mtdo`. crop: border left out, pixels.
    channel: `y` (luma) or `rgb` (one mean square over the three planes). Returns (...), float64.
    Raises InputError for different shapes, NaN, an unknown protocol, or a crop that leaves no pixels.
    Average with `metrics.mean`, which handles infinite values.
    """
    return _measured({"psnr": _psnr}, pred, gt, protocol, crop, channel)["psnr"]


def ssim(pred: Tensor, gt: Tensor, protocol: str = "standard", crop: int = 0, channel: str = "y") -> Tensor:
    """Structural similarity of each frame, 1 for identical frames; arguments and errors as for `psnr`.

    channel `rgb`: mean of the three planes' values. Frames smaller than the window (11x11; 1x7 for paper_mtdo) raise
    InputError.
    """
    return _measured({"ssim": _ssim}, pred, gt, protocol, crop, channel)["ssim"]


def fidelity(pred: Tensor, gt: Tensor, protocol: str = "standard", crop: int = 0) -> dict[str, Tensor]:
    """`psnr_y`, `ssim_y`, `psnr_rgb` and `ssim_rgb` of each frame; arguments and errors as for `ssim`."""
    both = {"psnr": _psnr, "ssim": _ssim}
    return {
        f"{name}_{channel}": values
        for channel in CHANNELS
        for name, values in _measured(both, pred, gt, protocol, crop, channel).items()
    }


def mean(values: Iterable[float | None], ceiling: float = PSNR_CEILING) -> float | None:
    """Arithmetic mean for reports; None if there are no values.

    Values above `ceiling` count as it; the default is for PSNR in dB (identical frames: inf). NaN and None are ignored.
    """
    kept = [min(float(value), ceiling) for value in values if value is not None and not math.isnan(value)]
    return math.fsum(kept) / len(kept) if kept else None


def gain(ours: float, baseline: float) -> float:
    """Difference of two PSNRs in dB. Identical frames (inf) count as 100 dB, as in `mean`."""
    return min(ours, PSNR_CEILING) - min(baseline, PSNR_CEILING)


def ms_ssim(pred: Tensor, gt: Tensor, crop: int = 0, channel: str = "y") -> Tensor:
    """Multi-scale SSIM of each frame (Wang et al., Asilomar 2003), protocol `standard`; 1 for identical frames.

    Five scales, each half as large as the one before (mean of 2x2 pixels, an odd last row or column repeated), with the
    authors' weights; contrast and structure at the first four, full SSIM at the last. Negative means count as 0.
    pred, gt: (..., 3, H, W), RGB in [0, 1], at least `MS_SSIM_SIDE` pixels a side after the crop. channel: `y`, or
    `rgb` for the mean of the three planes. Returns (...), float64. Raises InputError as `ssim` does.
    """
    check_frames(pred, gt)
    check_crop((gt.shape[-2], gt.shape[-1]), crop, "standard")
    if min(gt.shape[-2:]) - 2 * crop < MS_SSIM_SIDE:
        raise InputError(
            f"metrics: MS-SSIM needs {MS_SSIM_SIDE} pixels a side, got {gt.shape[-2]}x{gt.shape[-1]} with crop {crop}; "
            "use larger frames or plain SSIM"
        )
    values = [
        _ms_ssim(*(planes(cropped(frame, crop), "standard", channel) for frame in frames))
        for frames in zip(pred.reshape(-1, *gt.shape[-3:]), gt.reshape(-1, *gt.shape[-3:]), strict=True)
    ]
    return torch.stack(values).reshape(gt.shape[:-3]) if values else torch.empty(gt.shape[:-3], dtype=torch.float64)


def similarity_map(pred: Tensor, gt: Tensor, protocol: str = "standard") -> Tensor:
    """SSIM at every position where the window fits: planes (C, H, W) -> (C, H - rows + 1, W - columns + 1).

    `metrics.planes.planes` makes the planes; the window's size is `WINDOWS[protocol].size`.
    """
    luminance, structure = _similarity_terms(pred, gt, protocol)
    return luminance * structure


def _similarity_terms(pred: Tensor, gt: Tensor, protocol: str) -> tuple[Tensor, Tensor]:
    """The two factors of SSIM: luminance, and contrast with structure."""
    window = WINDOWS[protocol]
    spread = _data_range(gt, protocol)
    c1, c2 = (0.01 * spread) ** 2, (0.03 * spread) ** 2
    # Only the sum of the two variances is needed, so one call filters four planes instead of five.
    together = torch.stack((pred, gt, pred.square() + gt.square(), pred * gt))
    mean_pred, mean_gt, mean_squares, mean_product = _filter(together, window)
    means_product = mean_pred * mean_gt
    means_square = mean_pred.square() + mean_gt.square()
    variances = window.covariance * (mean_squares - means_square)
    covariance = window.covariance * (mean_product - means_product)
    return (2 * means_product + c1) / (means_square + c1), (2 * covariance + c2) / (variances + c2)


def _ms_ssim(pred: Tensor, gt: Tensor) -> Tensor:
    """Planes (C, H, W) of 0 to 255 -> the mean over planes."""
    factors = []
    for level in range(len(MS_SSIM_WEIGHTS)):
        if level:
            pred, gt = _halved(pred), _halved(gt)
        luminance, structure = _similarity_terms(pred, gt, "standard")
        factor = luminance * structure if level == len(MS_SSIM_WEIGHTS) - 1 else structure
        factors.append(factor.mean(dim=(-2, -1)).clamp(min=0))
    weights = torch.tensor(MS_SSIM_WEIGHTS, dtype=gt.dtype, device=gt.device)
    return (torch.stack(factors) ** weights[:, None]).prod(dim=0).mean()


def _halved(plane: Tensor) -> Tensor:
    height, width = plane.shape[-2:]
    padded = F.pad(plane[None], (0, width % 2, 0, height % 2), mode="replicate")
    return F.avg_pool2d(padded, 2)[0]


def _psnr(pred: Tensor, gt: Tensor, protocol: str) -> Tensor:
    return 20 * torch.log10(255 / (pred - gt).square().mean().sqrt())


def _ssim(pred: Tensor, gt: Tensor, protocol: str) -> Tensor:
    return similarity_map(pred, gt, protocol).mean()


def _measured(
    measures: Mapping[str, Measure], pred: Tensor, gt: Tensor, protocol: str, crop: int, channel: str
) -> dict[str, Tensor]:
    """Process one frame at a time: this limits memory to one frame, and a frame's values do not depend on its batch."""
    check_frames(pred, gt)
    check_protocol(protocol)
    window = WINDOWS[protocol].size if "ssim" in measures else (1, 1)
    check_crop((gt.shape[-2], gt.shape[-1]), crop, protocol, window)
    leading, frame = gt.shape[:-3], gt.shape[-3:]
    values: dict[str, list[Tensor]] = {name: [] for name in measures}
    for p, g in zip(pred.reshape(-1, *frame), gt.reshape(-1, *frame), strict=True):
        shown, truth = (planes(cropped(frames, crop), protocol, channel) for frames in (p, g))
        for name, measure in measures.items():
            values[name].append(measure(shown, truth, protocol))
    empty = torch.empty(leading, dtype=torch.float64)
    return {name: torch.stack(of).reshape(leading) if of else empty for name, of in values.items()}


def _data_range(gt: Tensor, protocol: str) -> Tensor | float:
    if protocol == "standard":
        return 255.0
    spread = gt.amax(dim=(-2, -1), keepdim=True) - gt.amin(dim=(-2, -1), keepdim=True)
    return torch.where(spread > 0, spread, 255.0)


def _filter(plane: Tensor, window: SsimWindow) -> Tensor:
    """Separable filter without border: sums of shifted slices, several times faster than conv2d in float64 on a CPU."""
    return _filter_axis(_filter_axis(plane, window.rows, -2), window.columns, -1)


def _filter_axis(plane: Tensor, weights: Sequence[float], axis: int) -> Tensor:
    if len(weights) == 1:
        return plane
    length = plane.shape[axis] - len(weights) + 1
    total = plane.narrow(axis, 0, length) * weights[0]
    for start, weight in enumerate(weights[1:], start=1):
        total.add_(plane.narrow(axis, start, length), alpha=weight)
    return total
