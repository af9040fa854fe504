"""The sensor: optics, noise, exposure, rounding and compression, from light to stored values."""

from __future__ import annotations

import cv2
import numpy as np

from data.media import LUMA
from data.simulate.settings import SensorSettings


def expose(
    light: np.ndarray,
    grain: int,
    sigma: float,
    colour_sigma: float,
    settings: SensorSettings,
    rng: np.random.Generator,
) -> np.ndarray:
    """The recorded frame.

    light: (H * grain, W * grain, 3) float32 in [0, 1]. The optics blur by `settings.mtf` and each pixel averages over
    its area. Flicker follows, and noise with a standard deviation of `sigma` grey levels at mid grey: part of it grows with
    the light (photon noise), part is shared by the colour channels (as after compression). The last step reduces the
    resolution of colour, as in video, and adds colour noise of `colour_sigma` grey levels.

    Returns (H, W, 3) uint8 or uint16.
    """
    height, width = (side // grain for side in light.shape[:2])
    frame = light
    if settings.mtf > 0:  # on the fine grid, which still resolves the Gaussian
        frame = _blurred(frame, settings.mtf * grain)
    frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    frame *= np.float32(1 + settings.flicker * rng.standard_normal())
    if sigma > 0:
        noise = rng.standard_normal((height, width, 4), dtype=np.float32)
        own, common = np.float32(np.sqrt(1 - settings.correlation)), np.float32(np.sqrt(settings.correlation))
        strength = np.sqrt(np.maximum(2 * settings.shot * frame + (1 - settings.shot), 0))
        frame += (sigma / 255) * strength * (own * noise[..., :3] + common * noise[..., 3:])
    if settings.colour_blur > 0 or colour_sigma > 0:
        frame = _with_video_colour(frame, colour_sigma / 255, settings.colour_blur, rng)
    white, kind = (255, np.uint8) if settings.bits == 8 else (65535, np.uint16)
    return np.clip(np.rint(frame * white), 0, white).astype(kind)


def compress(frame: np.ndarray, quality: int) -> np.ndarray:
    """A frame (H, W, 3) uint8 after JPEG compression of `quality` 1 to 100, colours at half resolution."""
    _, packed = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))[..., ::-1])


def _with_video_colour(frame: np.ndarray, sigma: float, blur: float, rng: np.random.Generator) -> np.ndarray:
    """Keep the luma of (H, W, 3), blur the colours, and add equally coarse noise to red and blue minus luma."""
    luma = (frame @ LUMA)[..., None]
    colours = frame - luma
    red_blue = rng.standard_normal((*frame.shape[:2], 2), dtype=np.float32)
    if blur > 0:
        colours, red_blue = _blurred(colours, blur), _blurred(red_blue, blur)
        red_blue /= max(float(red_blue.std()), 1e-6)
    red, blue = sigma * red_blue[..., :1], sigma * red_blue[..., 1:]
    green = -(LUMA[0] * red + LUMA[2] * blue) / LUMA[1]  # the luma stays as it is
    return luma + colours + np.concatenate([red, green, blue], -1)


def _blurred(picture: np.ndarray, deviation: float) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), deviation, borderType=cv2.BORDER_REFLECT_101), np.float32)
