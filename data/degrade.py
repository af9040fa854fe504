"""Degrade ground truth to low resolution: MATLAB's bicubic `imresize`, blur-down, sensor MTF, noise, JPEG.

Each resampling method (bicubic, blur-down, mtf) is one sparse matrix per axis: output pixel i is a weighted sum of the
input pixels around its centre. Borders are mirrored (the edge pixel is repeated for bicubic and mtf, as MATLAB does).
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from errors import InputError
from formulas import keys_cubic
from settings import Between, convert_fields

Taps = tuple[np.ndarray, np.ndarray]  # indices (out, taps) into the input axis, weights (out, taps)
ROWS = 128  # output rows per matrix product; keeps the matrices small for large images


# --- resampling -------------------------------------------------------------------------------------------------------


def imresize(x: Tensor, scale: float | None = None, size: tuple[int, int] | None = None) -> Tensor:
    """Bicubic resize equal to MATLAB's `imresize` (a = -0.5, antialiased when shrinking, symmetric border).

    Args:
        x: (..., H, W). float32 and float64 are computed in their own type, half types in float32, and not clamped.
            uint8 is computed in float32, then rounded and clamped once.
        scale: one factor for both axes; the output is ceil(scale * H) x ceil(scale * W), the kernel uses this factor.
        size: (H', W'); each axis uses its own ratio. Give exactly one of the two.

    Returns: (..., H', W') in the type of `x`.
    """
    if (scale is None) == (size is None):
        raise InputError("imresize: give exactly one of scale and size")
    height, width = x.shape[-2:]
    if scale is not None:
        if not scale > 0 or not math.isfinite(scale):
            raise InputError(f"imresize: scale must be a positive number, got {scale}")
        size = (_ceil(height * scale), _ceil(width * scale))
    assert size is not None
    if min(size) < 1 or min(height, width) < 1:
        raise InputError(f"imresize: cannot go from {height}x{width} to {size[0]}x{size[1]}")
    rows = _bicubic_taps(height, size[0], scale or size[0] / height)
    columns = _bicubic_taps(width, size[1], scale or size[1] / width)
    return _resample(x, rows, columns)


def _ceil(value: float) -> int:
    return math.ceil(value - 1e-9 * value)  # 0.1 * 30 is 3.0000000000000004 in floating point


@lru_cache(maxsize=64)
def _bicubic_taps(length: int, out: int, scale: float) -> Taps:
    shrink = min(scale, 1.0)  # below 1 the kernel is widened to the area of one output pixel (antialiasing)
    centres = (np.arange(out) + 0.5) / scale - 0.5
    return _kernel_taps(centres, length, 2.0 / shrink, lambda distance: keys_cubic(np.abs(distance) * shrink))


def _kernel_taps(centres: np.ndarray, length: int, radius: float, kernel: Callable[[np.ndarray], np.ndarray]) -> Taps:
    """Normalised kernel weights around `centres` (in input pixels), the border mirrored with the edge pixel twice."""
    first = np.floor(centres - radius).astype(np.int64)
    indices = first[:, None] + np.arange(math.ceil(2 * radius) + 2)
    weights = kernel(centres[:, None] - indices)
    weights /= weights.sum(axis=1, keepdims=True)
    folded = np.mod(indices, 2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded), weights


def _resample(x: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """Apply one set of taps along H and one along W, first along the axis that shrinks most, which saves work."""
    if x.dtype == torch.uint8:
        value = _resample(x.float(), rows, columns)
        return value.add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)  # MATLAB's round: halves away from zero
    if x.dtype in (torch.float16, torch.bfloat16):
        return _resample(x.float(), rows, columns).to(x.dtype)
    with _exact_products(x.device):
        if len(rows[0]) * x.shape[-1] <= x.shape[-2] * len(columns[0]):
            return _along_width(_along_height(x, rows), columns)
        return _along_height(_along_width(x, columns), rows)


@contextmanager
def _exact_products(device: torch.device) -> Iterator[None]:
    """Disable autocast and TensorFloat-32: both keep only about three digits."""
    previous = torch.get_float32_matmul_precision()
    with torch.autocast(device.type, enabled=False):
        if device.type != "cuda" or previous == "highest":
            yield
            return
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(previous)


def _along_height(x: Tensor, taps: Taps) -> Tensor:
    blocks = [matrix @ x[..., low:high, :] for low, high, matrix in _blocks(taps, x)]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-2)


def _along_width(x: Tensor, taps: Taps) -> Tensor:
    blocks = [x[..., low:high] @ matrix.mT for low, high, matrix in _blocks(taps, x)]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-1)


def _blocks(taps: Taps, like: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """The sparse matrix in bands of ROWS output rows: (first input, last input + 1, dense band)."""
    indices, weights = taps
    for start in range(0, len(indices), ROWS):
        index, weight = indices[start : start + ROWS], weights[start : start + ROWS]
        used = index[weight != 0]
        low, high = int(used.min()), int(used.max()) + 1
        band = np.zeros((len(index), high - low))
        np.add.at(band, (np.arange(len(index))[:, None], np.clip(index - low, 0, high - low - 1)), weight)
        yield low, high, torch.from_numpy(band).to(like.dtype).to(like.device, non_blocking=True)


@lru_cache(maxsize=64)
def _blur_down_taps(length: int, scale: int, sigma: float, width: int = 13) -> Taps:
    """Gaussian of `width` taps, subsampled to every `scale`-th pixel from the first; reflection without the edge pixel."""
    offsets = np.arange(width) - width // 2
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    indices = np.arange(0, length, scale)[:, None] + offsets
    period = max(2 * (length - 1), 1)
    folded = np.mod(indices, period)
    reflected = np.minimum(folded, period - folded) if length > 1 else np.zeros_like(indices)
    return reflected, np.tile(weights / weights.sum(), (len(indices), 1))


@lru_cache(maxsize=64)
def _mtf_taps(length: int, out: int, mtf: float) -> Taps:
    """Gaussian optics whose transfer at the Nyquist frequency of the low-resolution grid is `mtf`.

    A Gaussian of deviation sigma passes exp(-2 (pi f sigma)^2); f = out / (2 length) cycles per input pixel.
    """
    ratio = length / out
    sigma = ratio * math.sqrt(-2 * math.log(mtf)) / math.pi
    centres = (np.arange(out) + 0.5) * ratio - 0.5
    return _kernel_taps(centres, length, 4 * sigma, lambda distance: np.exp(-(distance**2) / (2 * sigma**2)))


# --- degradation ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Degradation:
    """Settings of the degradation from ground truth to low resolution. The fields are the keys of `data.*.degradation` in a config.

    kind: "bicubic" is MATLAB's imresize, "blur-down" a Gaussian and then every s-th pixel (integer scales), "mtf" a sensor.
    Noise depends only on (seed, clip name, frame index), not on the reading order or the number of workers.
    """

    kind: Literal["bicubic", "blur-down", "mtf"] = "bicubic"  # docs/data.md
    sigma: Annotated[float, Between(0.001, 100)] = 1.6  # blur-down: standard deviation of the blur, in GT pixels
    mtf: Annotated[float, Between(0.001, 0.999)] = 0.2  # mtf: transfer at the LR Nyquist frequency
    noise: Annotated[float, Between(0, 255)] = 0.0  # standard deviation of white Gaussian noise, in 8-bit grey levels
    jpeg: Annotated[int, Between(1, 100)] | None = None  # quality; null: no JPEG
    bits: Literal[0, 8, 16] | None = None  # depth to round to; 0: no rounding; null: of the ground truth (tensors: 8)
    seed: Annotated[int, Between(0, 2**32 - 1)] = 0

    def __post_init__(self) -> None:
        convert_fields(self, "degradation.")
        if self.jpeg is not None and self.bits not in (None, 8):
            raise InputError(f"degradation.bits is {self.bits}: expected 8, because degradation.jpeg is set")

    def for_depth(self, bits: int) -> Degradation:
        """`bits: None` replaced by the depth of a ground truth of `bits` per value (JPEG is always 8-bit)."""
        if self.bits is not None:
            return self
        return replace(self, bits=8 if bits == 8 or self.jpeg is not None else 0 if bits == 32 else 16)

    def size(self, height: int, width: int, scale: float) -> tuple[int, int]:
        """LR size of a GT frame: exact for integer scales (GT is cropped to a multiple first), rounded for others."""
        return max(round(height / scale), 1), max(round(width / scale), 1)

    def __call__(
        self, frame: Tensor, scale: float, *, name: str = "", index: int = 0, size: tuple[int, int] | None = None
    ) -> Tensor:
        """Degrade one frame.

        Args:
            frame: (C, H, W), uint8 or float in [0, 1]; for integer scales without `size`, H and W are multiples of it.
            scale: GT pixels per LR pixel.   name, index: clip and frame, which seed the noise.   size: exact LR size.

        Returns: (C, h, w); uint8 where `frame` is uint8 and `bits` is 8, else float in [0, 1] (rounded to `bits`).
        """
        height, width = frame.shape[-2:]
        size = size or self.size(height, width, scale)
        bits = 8 if self.bits is None else self.bits
        if frame.dtype == torch.uint8 and bits == 8 and self.noise == 0 and self.jpeg is None:
            return self._shrink(frame, scale, size)
        value = self._shrink(frame.float() / 255 if frame.dtype == torch.uint8 else frame, scale, size)
        if self.noise:
            value = value + self._noise(value.shape, name, index).to(value) / 255
        value = _rounded(value, bits)
        if self.jpeg is not None:
            value = _jpeg(value, self.jpeg)
        if frame.dtype == torch.uint8 and bits == 8:
            return value.mul(255).round().to(torch.uint8)
        return value

    def array(self, frame: np.ndarray, scale: float, **which: Any) -> np.ndarray:
        """The same for (H, W, C) arrays of uint8, uint16 or float32; the result has the type of `bits` (not None)."""
        planes = torch.from_numpy(np.ascontiguousarray(np.moveaxis(frame, -1, 0)))
        if planes.dtype == torch.uint16:
            planes = planes.float() / 65535
        low = self(planes, scale, **which).movedim(0, -1)
        if low.dtype != torch.uint8 and self.bits:
            low = (low * (2**self.bits - 1)).round().to(torch.uint8 if self.bits == 8 else torch.uint16)
        return low.contiguous().numpy()

    def _shrink(self, frame: Tensor, scale: float, size: tuple[int, int]) -> Tensor:
        height, width = frame.shape[-2:]
        if self.kind == "bicubic":
            return imresize(frame, size=size)
        if self.kind == "mtf":
            return _resample(frame, _mtf_taps(height, size[0], self.mtf), _mtf_taps(width, size[1], self.mtf))
        step = round(scale)
        if step != scale or size != (math.ceil(height / step), math.ceil(width / step)):
            raise InputError(f"degradation blur-down takes every s-th pixel: the scale must be an integer, not {scale}")
        return _resample(frame, _blur_down_taps(height, step, self.sigma), _blur_down_taps(width, step, self.sigma))

    def _noise(self, shape: torch.Size, name: str, index: int) -> Tensor:
        generator = np.random.default_rng([self.seed, zlib.crc32(name.encode()), index])
        return torch.from_numpy(generator.standard_normal(tuple(shape)) * self.noise)


def _rounded(value: Tensor, bits: int) -> Tensor:
    if bits == 0:
        return value
    levels = 2**bits - 1
    return value.mul(levels).add(0.5).floor().clamp(0, levels).div(levels)


def _jpeg(frame: Tensor, quality: int) -> Tensor:
    """One pass through JPEG (4:2:0 for colour, as cameras and encoders do) of a (1 or 3, H, W) frame in [0, 1]."""
    pixels = frame.mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(file, "JPEG", quality=quality)
    decoded = np.asarray(Image.open(file)).reshape(pixels.shape)
    return torch.from_numpy(decoded.copy()).permute(2, 0, 1).to(frame) / 255
