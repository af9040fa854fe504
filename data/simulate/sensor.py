"""From the light that reaches the sensor to the numbers in the file: optics, noise, exposure, rounding."""

from __future__ import annotations

import cv2
import numpy as np

from data.simulate.settings import SensorSettings


def expose(
    light: np.ndarray, grain: int, sigma: float, settings: SensorSettings, rng: np.random.Generator
) -> np.ndarray:
    """A frame as the camera gives it.

    light: (H * grain, W * grain, 3) float32 in [0, 1]. Each pixel averages over its own area (the detector), the
    optics blur by `settings.mtf`; then come flicker and noise of deviation `sigma` grey levels at mid grey, part of it
    growing with the light (photons), part shared by the colour channels (as the downlink's compression leaves it).
    Returns (H, W, 3) uint8 or uint16.
    """
    height, width = (side // grain for side in light.shape[:2])
    frame = light
    if settings.mtf > 0:  # on the fine grid, where the sampled kernel still is a Gaussian
        frame = cv2.GaussianBlur(frame, (0, 0), settings.mtf * grain, borderType=cv2.BORDER_REFLECT_101)
    frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    frame *= np.float32(1 + settings.flicker * rng.standard_normal())
    if sigma > 0:
        noise = rng.standard_normal((height, width, 4), dtype=np.float32)
        own, common = np.float32(np.sqrt(1 - settings.correlation)), np.float32(np.sqrt(settings.correlation))
        strength = np.sqrt(np.maximum(2 * settings.shot * frame + (1 - settings.shot), 0))
        frame += (sigma / 255) * strength * (own * noise[..., :3] + common * noise[..., 3:])
    white, kind = (255, np.uint8) if settings.bits == 8 else (65535, np.uint16)
    return np.clip(np.rint(frame * white), 0, white).astype(kind)
