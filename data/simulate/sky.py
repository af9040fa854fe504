"""Drifting clouds and their shadows."""

from __future__ import annotations

import cv2
import numpy as np

from data.simulate.motion import Platform, draw
from data.simulate.settings import SkySettings
from data.simulate.world import fractal

SIZE = 120.0  # approximate size of the largest clouds and gaps, ground-truth pixels
TEXEL = 2  # ground-truth pixels per pixel of the cloud picture, which repeats after 256
FALL = np.array([23.0, -17.0])  # from a cloud to its shadow, ground-truth pixels


class Sky:
    """The clouds of one clip. `cover` 0: no clouds."""

    def __init__(self, settings: SkySettings, rng: np.random.Generator) -> None:
        self.settings = settings
        self.cover = draw(settings.cover, rng)
        angle = rng.uniform(0, 2 * np.pi)
        self.wind = draw(settings.wind, rng) * np.array([np.cos(angle), np.sin(angle)])
        thickness = fractal((256, 256), 1.8, rng, largest=SIZE / TEXEL)
        edge = np.quantile(thickness, 1 - self.cover)
        self.density = np.clip((thickness - edge) * 1.8 + 0.5, 0, 1) if self.cover > 0 else np.zeros_like(thickness)

    def layers(
        self, size: tuple[int, int], grain: int, time: float, platform: Platform
    ) -> tuple[np.ndarray, np.ndarray]:
        """(opacity of the clouds, light that reaches the ground), each (H * grain, W * grain, 1) float32 in [0, 1]."""
        height, width = size
        x, y = np.arange(-0.5, width + TEXEL, TEXEL)[None], np.arange(-0.5, height + TEXEL, TEXEL)[:, None]
        shift_x, shift_y = platform.displacement(x, y, time)
        cloud = np.stack([x - shift_x, y - shift_y], axis=-1) - self.wind * time
        opacity = self._look_up(cloud, size, grain) * self.settings.opacity
        light = 1 - self._look_up(cloud - FALL, size, grain) * self.settings.shadow
        return opacity, light

    def _look_up(self, points: np.ndarray, size: tuple[int, int], grain: int) -> np.ndarray:
        texels = np.mod(points / TEXEL, 256).astype(np.float32)
        tiled = np.pad(self.density, ((0, 1), (0, 1)), mode="wrap")
        coarse = cv2.remap(tiled, texels[..., 0], texels[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        # Coarse sample k is at pixel -0.5 + TEXEL k; the enlargement keeps these positions.
        step = 1 / (TEXEL * grain)
        matrix = np.array([[step, 0, 0.5 * step], [0, step, 0.5 * step]])
        out = (size[1] * grain, size[0] * grain)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(coarse, matrix, out, flags=flags, borderMode=cv2.BORDER_REPLICATE)[..., None]
