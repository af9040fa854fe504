"""Check frames and convert them to planes of 0 to 255 by a named protocol.

`standard`    prediction and ground truth are clipped and rounded to 8 bits; Y is the studio-range luma of ITU-R BT.601,
              16 to 235, as in MATLAB's `rgb2ycbcr` (the luma itself is not rounded); a border may be cropped.
`paper_mtdo`  exactly the published evaluation of MTDO: RGB times 255, neither clipped nor rounded; Y is the
              full-range luma of BT.601 with the weights of R and B exchanged (an RGB image went through a BGR
              conversion); no border is cropped.

The protocols give different numbers for the same frames, so a table must not mix them.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from errors import InputError
from formulas import LUMA, exact_type

PROTOCOLS = ("standard", "paper_mtdo")
CHANNELS = ("y", "rgb")

STUDIO_LUMA = (65.481, 128.553, 24.966)  # R, G, B in [0, 1] -> 0..219; 16 is added
EXCHANGED_LUMA = LUMA[::-1]  # full range, R and B exchanged


def default_crop(protocol: str, scale: float) -> int:
    """Border that a protocol excludes at a given scale, in pixels of the ground truth (scale 2.4: 3)."""
    check_protocol(protocol)
    return math.ceil(scale) if protocol == "standard" else 0


def check_protocol(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise InputError(f"metrics: unknown protocol '{protocol}'; choose one of: {', '.join(PROTOCOLS)}")


def planes(frames: Tensor, protocol: str = "standard", channel: str = "y") -> Tensor:
    """Frames (..., 3, H, W), RGB in [0, 1] -> planes (..., C, H, W), float64, of 0 to 255; C is 1 for y, 3 for rgb."""
    check_protocol(protocol)
    if channel not in CHANNELS:
        raise InputError(f"metrics: unknown channel '{channel}'; choose one of: {', '.join(CHANNELS)}")
    rgb = _double(frames) * 255
    if protocol == "standard":
        rgb = rgb.clamp(0, 255).round()
    if channel == "rgb":
        return rgb
    red, green, blue = rgb.unbind(-3)
    if protocol == "standard":
        r, g, b = STUDIO_LUMA
        luma = 16 + (r * red + g * green + b * blue) / 255
    else:
        r, g, b = EXCHANGED_LUMA
        luma = r * red + g * green + b * blue
    return luma.unsqueeze(-3)


def gray(frame: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] -> its luma (protocol `standard`), rounded to uint8 (H, W), for OpenCV."""
    return planes(frame)[0].round().cpu().numpy().astype(np.uint8)


def check_frames(pred: Tensor, gt: Tensor) -> None:
    """Check that both are finite float tensors (..., 3, H, W) of one shape, with the ground truth in [0, 1]."""
    for name, frames in (("prediction", pred), ("ground truth", gt)):
        if not isinstance(frames, Tensor) or not frames.is_floating_point():
            kind = frames.dtype if isinstance(frames, Tensor) else type(frames).__name__
            raise InputError(f"metrics: the {name} is {kind}; give a float tensor (..., 3, H, W) with values in [0, 1]")
    if pred.shape != gt.shape:
        raise InputError(
            f"metrics: prediction {tuple(pred.shape)} and ground truth {tuple(gt.shape)} differ in shape; "
            "compare frames of one size (was the ground truth cropped to a multiple of the scale?)"
        )
    if gt.dim() < 3 or gt.shape[-3] != 3:
        raise InputError(f"metrics: frames of shape {tuple(gt.shape)}; expected (..., 3, H, W), RGB")
    for name, frames in (("prediction", pred), ("ground truth", gt)):
        if not bool(torch.isfinite(frames).all()):
            raise InputError(
                f"metrics: the {name} has NaN or infinite values; the network diverged or a file is broken"
            )
    if gt.numel() and not -0.01 <= float(gt.amin()) <= float(gt.amax()) <= 1.01:
        low, high = float(gt.amin()), float(gt.amax())
        raise InputError(f"metrics: the ground truth runs from {low:.3g} to {high:.3g}; expected values in [0, 1]")


def check_crop(size: tuple[int, int], crop: int, protocol: str, window: tuple[int, int] = (1, 1)) -> None:
    """Check that the protocol allows the crop and that it leaves at least a window (height, width) of the frame."""
    check_protocol(protocol)
    height, width = size
    if isinstance(crop, bool) or not isinstance(crop, int) or crop < 0:
        raise InputError(f"metrics: crop is {crop!r}; expected an integer number of pixels, 0 or more")
    if crop and protocol == "paper_mtdo":
        raise InputError(f"metrics: protocol paper_mtdo crops no border, but crop is {crop}; set it to 0")
    if height - 2 * crop < 1 or width - 2 * crop < 1:
        raise InputError(f"metrics: a crop of {crop} pixels at each side leaves no pixels of a {height}x{width} frame")
    if height - 2 * crop < window[0] or width - 2 * crop < window[1]:
        raise InputError(
            f"metrics: a {height}x{width} frame with crop {crop} is smaller than the SSIM window "
            f"({window[0]}x{window[1]}, protocol {protocol}); use larger frames or a smaller crop"
        )


def cropped(frames: Tensor, crop: int) -> Tensor:
    """The frames without `crop` pixels at each side."""
    height, width = frames.shape[-2:]
    return frames[..., crop : height - crop, crop : width - crop]


def _double(frames: Tensor) -> Tensor:
    if exact_type(frames.device) != torch.float64:
        frames = frames.cpu()
    return frames.detach().double()
