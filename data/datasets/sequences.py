"""Training sequences for STNO."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from data.datasets.samples import FULL, Augmentation, Samples, crop
from data.degrade import Degradation
from data.layouts import Pair
from data.sampling import BATCH, SampleKey, shuffled
from errors import InputError


class SequenceDataset(Samples):
    """Key frames at low resolution, all frames (key and intermediate) at high resolution, and the times.

    Args:
        pairs: from a layout; a fixed integer scale uses its LR (files or made), else LR is made from each GT crop.
        scale: one number, or (low, high): drawn from U(low, high) per batch, the same for every slot and rank.
        frames: key frames T.   strides: distance of key frames, drawn per batch.
        intermediate: intermediate frames per gap, drawn per batch from the true ones; None: all.
        patch: side of the LR crop at every scale.   cuts: scene cuts per clip (`data.scenes`), never crossed.
        degradation: computes LR from GT crops.
        pan: half of the samples move their crop by up to this many LR pixels (integers) a frame on each axis, like a panning
            camera. This adds motion to footage that has little.
        augmentation, on_error: as in `WindowDataset`.

    Items: {"lr": (T, 3, patch, patch), "gt": (T + (T - 1) * n, 3, P, P), "times": (n,) in (0, 1), "source": str} with
    P = round(scale * patch); types as in `WindowDataset`.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        scale: float | tuple[float, float] = 4,
        frames: int = 3,
        strides: Sequence[int] = (2,),
        intermediate: int | None = 1,
        patch: int = 32,
        cuts: Sequence[Sequence[int]] | None = None,
        degradation: Degradation | None = None,
        pan: int = 0,
        augmentation: Augmentation = FULL,
        on_error: str = "stop",
    ) -> None:
        super().__init__(pairs, patch, augmentation, on_error)
        self.pan = pan
        self.low, self.high = scale if isinstance(scale, tuple) else (scale, scale)
        self.frames, self.strides, self.intermediate = frames, tuple(strides), intermediate
        self.degradation = degradation or Degradation()
        self._check_settings()
        self.from_files = self.low == self.high and float(self.low).is_integer()
        self.starts = {stride: self._find_starts(stride, cuts) for stride in self.strides}
        for i, pair in enumerate(self.pairs):
            self._check_pair(i, pair)

    def _check_settings(self) -> None:
        if not 1 <= self.low <= self.high:
            raise InputError(f"scale is {self.low:g} to {self.high:g}: expected 1 or more, the smaller first")
        if self.frames < 2:
            raise InputError(f"frames is {self.frames}: a sequence needs at least 2 key frames")
        if not self.strides or min(self.strides) < 1 or (self.intermediate is not None and self.intermediate < 0):
            raise InputError(
                f"strides {list(self.strides)}, intermediate {self.intermediate}: expected positive numbers of frames"
            )
        if self.intermediate and self.intermediate > min(self.strides) - 1:
            raise InputError(
                f"intermediate is {self.intermediate}: a stride of {min(self.strides)} has fewer intermediate frames"
            )

    def _find_starts(self, stride: int, cuts: Sequence[Sequence[int]] | None) -> list[tuple[int, int]]:
        """(clip, first frame) of every sequence inside one scene."""
        span = (self.frames - 1) * stride
        starts = []
        for clip, pair in enumerate(self.pairs):
            edges = [0, *(cuts[clip] if cuts else ()), len(pair)]
            for begin, end in pairwise(edges):
                starts += [(clip, first) for first in range(begin, end - span)]
        if not starts:
            raise InputError(
                f"no clip has {span + 1} frames without a scene cut, as {self.frames} key frames {stride} apart need; "
                "lower frames or strides"
            )
        return starts

    def _check_pair(self, clip: int, pair: Pair) -> None:
        gt = self._gt(clip)
        need = (self.frames - 1) * min(self.strides) + 1
        if len(gt) < need:
            raise InputError(
                f"clip {pair.name}: {len(gt)} frames, {need} are needed; lower frames or strides, or remove it"
            )
        height, width = pair.lr.size if self.from_files else gt.size
        side = self.patch if self.from_files else round(self.patch * self.high)
        if min(height, width) < side:
            raise InputError(f"{gt.source(0)}: {width}x{height} is smaller than a crop of {side}; lower patch or scale")
        if self.from_files and gt.size != (round(height * self.low), round(width * self.low)):
            raise InputError(
                f"clip {pair.name}: its low resolution is not of scale {self.low:g}; open the layout with it"
            )

    def __len__(self) -> int:
        return len(self.starts[min(self.strides)])

    def draw(self, seed: int, step: int, slot: int, position: int) -> SampleKey:
        """Draw scale, stride and times from (seed, step), clip and frame from the sample's position in the run."""
        random = np.random.default_rng([seed, BATCH, step])
        scale = float(random.uniform(self.low, self.high)) if self.low < self.high else float(self.low)
        stride = self.strides[int(random.integers(len(self.strides)))]
        count = stride - 1 if self.intermediate is None else self.intermediate
        intermediate = tuple(sorted((random.permutation(stride - 1)[:count] + 1).tolist()))
        starts = self.starts[stride]
        clip, frame = starts[shuffled(position, len(starts), seed)]
        return SampleKey(seed, step, slot, clip, frame, scale, stride, intermediate)

    def candidates(self, key: SampleKey) -> list[tuple[int, int]]:
        return self.starts[key.stride]

    def read(self, key: SampleKey) -> dict[str, Any]:
        """The crop and its motion, the transform and the direction of time are drawn from the key."""
        gt, random = self._gt(key.clip), key.random()
        span = (self.frames - 1) * key.stride
        offsets = [
            n * key.stride + k for n in range(self.frames) for k in (0, *key.intermediate) if n * key.stride + k <= span
        ]
        keys = [position for position, offset in enumerate(offsets) if offset % key.stride == 0]
        corner = random.random(2)
        transform, backwards = self._draw_transform(random)
        velocity = (
            random.integers(-self.pan, self.pan + 1, 2) * int(random.integers(2)) if self.pan else np.zeros(2, int)
        )
        numbers = [key.frame + (span - offset if backwards else offset) for offset in offsets]
        if self.from_files:
            corners = _path(corner, self.pairs[key.clip].lr.size, self.patch, velocity, offsets)
            low, high = self._from_files(key, numbers, keys, corners)
        else:
            side, speed = round(self.patch * key.scale), velocity * round(key.scale)
            low, high = self._from_crops(key, numbers, keys, _path(corner, gt.size, side, speed, offsets), side)
        return {
            "lr": self._tensor(transform(low)),
            "gt": self._tensor(transform(high)),
            "times": torch.tensor([offset / key.stride for offset in key.intermediate], dtype=torch.float32),
            "source": f"{gt.source(numbers[0])} and {len(numbers) - 1} more",
        }

    def _from_files(
        self, key: SampleKey, numbers: list[int], keys: list[int], corners: list[tuple[int, int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        lr, gt, scale = self.pairs[key.clip].lr, self._gt(key.clip), int(key.scale)
        low = [crop(lr, numbers[position], *corners[position], self.patch) for position in keys]
        side = self.patch * scale
        high = [
            crop(gt, number, top * scale, left * scale, side)
            for number, (top, left) in zip(numbers, corners, strict=True)
        ]
        return np.stack(low), np.stack(high)

    def _from_crops(
        self, key: SampleKey, numbers: list[int], keys: list[int], corners: list[tuple[int, int]], side: int
    ) -> tuple[np.ndarray, np.ndarray]:
        gt = self._gt(key.clip)
        high = np.stack([crop(gt, number, *corner, side) for number, corner in zip(numbers, corners, strict=True)])
        degradation = self.degradation.for_depth(gt.bit_depth)
        size, name = (self.patch, self.patch), gt.name
        low = [
            degradation.array(high[position], key.scale, name=name, index=numbers[position], size=size)
            for position in keys
        ]
        return np.stack(low), high


def _path(
    unit: np.ndarray, size: tuple[int, int], side: int, velocity: np.ndarray, offsets: list[int]
) -> list[tuple[int, int]]:
    """Upper left corners of a crop of `side` that moves by `velocity` pixels a frame and stays inside the frame.

    unit: two numbers in [0, 1) that set its position. On an axis too short for the motion the crop does not move.
    """
    axes = []
    for place, length, speed in zip(unit, size, velocity, strict=True):
        travel = int(speed) * max(offsets)
        if abs(travel) > length - side:
            speed = travel = 0
        start = int(place * (length - side - abs(travel) + 1)) + max(-travel, 0)
        axes.append([start + int(speed) * offset for offset in offsets])
    return list(zip(*axes, strict=True))
