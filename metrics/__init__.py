"""Metrics: functions of tensors (..., 3, H, W), RGB in [0, 1]. docs/metrics.md defines each of them."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from metrics.detection import DetectionCount, detect, detection_count
from metrics.fidelity import MS_SSIM_SIDE, PSNR_CEILING, fidelity, gain, mean, ms_ssim, psnr, similarity_map, ssim
from metrics.measured import consistency, detail_shares, doubt, ndvi, ndvi_change
from metrics.objects import ObjectMeter, box_region, size_of, summarise
from metrics.perceptual import PERCEPTUAL, Perceptual, PerceptualFlicker
from metrics.planes import CHANNELS, PROTOCOLS, default_crop, planes
from metrics.temporal import MotionMeter, TemporalMeter, tof, warping_error

# Further metrics of one frame by name: pred and gt (3, H, W) in [0, 1] and the crop -> a scalar
FRAME_METRICS: Mapping[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "ms_ssim_y": ms_ssim,
    "ms_ssim_rgb": partial(ms_ssim, channel="rgb"),
}

__all__ = [
    "CHANNELS",
    "FRAME_METRICS",
    "MS_SSIM_SIDE",
    "PERCEPTUAL",
    "PROTOCOLS",
    "PSNR_CEILING",
    "DetectionCount",
    "MotionMeter",
    "ObjectMeter",
    "Perceptual",
    "PerceptualFlicker",
    "TemporalMeter",
    "box_region",
    "consistency",
    "default_crop",
    "detail_shares",
    "detect",
    "detection_count",
    "doubt",
    "fidelity",
    "gain",
    "mean",
    "ms_ssim",
    "ndvi",
    "ndvi_change",
    "planes",
    "psnr",
    "similarity_map",
    "size_of",
    "ssim",
    "summarise",
    "tof",
    "warping_error",
]
