"""What is measured: plain functions of tensors (..., 3, H, W), RGB in [0, 1]. docs/metrics.md has every definition."""

from metrics.fidelity import PSNR_CEILING, fidelity, mean, psnr, similarity_map, ssim
from metrics.objects import ObjectMeter, box_region, size_of, summarise
from metrics.planes import CHANNELS, PROTOCOLS, default_crop, planes
from metrics.temporal import TemporalMeter, tof, warping_error

__all__ = [
    "CHANNELS",
    "PROTOCOLS",
    "PSNR_CEILING",
    "ObjectMeter",
    "TemporalMeter",
    "box_region",
    "default_crop",
    "fidelity",
    "mean",
    "planes",
    "psnr",
    "similarity_map",
    "size_of",
    "ssim",
    "summarise",
    "tof",
    "warping_error",
]
