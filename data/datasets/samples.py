"""Base class of the training data sets: pairs, crops, flips, and samples that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.clips import Clip
from data.layouts import Pair
from data.media import rgb, to_planes
from data.sampling import SampleKey
from errors import InputError

ATTEMPTS = 10  # number of replacements tried for a sample that cannot be read
REPLACEMENT = 3  # stream of random numbers, after sampling.BATCH and SAMPLE


class Augmentation(NamedTuple):
    """Random changes of a sample, the same for all of its frames."""

    flips: bool = True  # left-right and up-down
    rotations: bool = True  # by 90 degrees
    reversal: bool = True  # of time


FULL = Augmentation()


class Transform(NamedTuple):
    """Flips and a 90-degree rotation, applied to all LR and GT frames of a sample."""

    left_right: bool
    up_down: bool
    quarter: bool

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """(T, h, w, C) -> a view."""
        frames = frames[:, :, ::-1] if self.left_right else frames
        frames = frames[:, ::-1] if self.up_down else frames
        return frames.swapaxes(1, 2) if self.quarter else frames


def crop(clip: Clip, index: int, top: int, left: int, side: int) -> np.ndarray:
    """A square of a frame, (side, side, 3) as stored: a view where the clip has the frame in memory."""
    return rgb(clip.array(index))[top : top + side, left : left + side]


class Samples(Dataset[dict[str, Any]]):
    """Base class of both data sets: pairs, augmentation, and one data type for all clips."""

    def __init__(self, pairs: Sequence[Pair], patch: int, augmentation: Augmentation, on_error: str) -> None:
        if not pairs:
            raise InputError("the training data contain no clips: check the root and its split")
        if patch < 1:
            raise InputError(f"patch is {patch}: expected a positive number of LR pixels")
        self.pairs = list(pairs)
        self.patch, self.augmentation, self.on_error = patch, augmentation, on_error
        self.bytes_only = all(
            self._gt(i).bit_depth == 8 and pair.lr.bit_depth == 8 for i, pair in enumerate(self.pairs)
        )

    def __getitem__(self, key: SampleKey) -> dict[str, Any]:
        """The sample of `key`. If it cannot be read and `on_error` is "skip", another one (a function of the key) is
        read instead; "skipped" then gives the reason."""
        skipped: list[str] = []
        for attempt in range(ATTEMPTS):
            try:
                return self.read(key) | {"skipped": "; ".join(skipped)}
            except (InputError, OSError) as error:
                if self.on_error == "stop":
                    raise InputError(str(error)) from None
                skipped.append(str(error))
            candidates = self.candidates(key)
            number = np.random.default_rng([key.seed, REPLACEMENT, key.step, key.slot, attempt]).integers(
                len(candidates)
            )
            clip, frame = candidates[int(number)]
            key = key._replace(clip=clip, frame=frame)
        raise InputError(f"{ATTEMPTS} samples in a row cannot be read; the last: {skipped[-1]}")

    def read(self, key: SampleKey) -> dict[str, Any]:
        """The sample of `key`, as described by the subclass. Raises `InputError` or OSError if a frame cannot be read."""
        raise NotImplementedError

    def candidates(self, key: SampleKey) -> list[tuple[int, int]]:
        """(clip, frame) of all samples that may replace `key`."""
        raise NotImplementedError

    def _gt(self, clip: int) -> Clip:
        gt = self.pairs[clip].gt
        if gt is None:
            raise InputError(f"clip {self.pairs[clip].name} has no ground truth: it cannot be trained on")
        return gt

    def _draw_transform(self, random: np.random.Generator) -> tuple[Transform, bool]:
        """The transform of a sample, and whether its frames run backwards."""
        left_right, up_down, quarter, backwards = random.integers(0, 2, 4).astype(bool).tolist()
        flips, rotations, reversal = self.augmentation
        return Transform(left_right and flips, up_down and flips, quarter and rotations), backwards and reversal

    def _tensor(self, frames: np.ndarray) -> Tensor:
        """(T, h, w, 3) as stored -> (T, 3, h, w): uint8 where every clip is 8-bit, else float32."""
        planes = to_planes(frames)
        return planes if self.bytes_only or planes.dtype != torch.uint8 else planes.float().div_(255)
