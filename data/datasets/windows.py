"""Training windows for MTDO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from data.clips import neighbours
from data.datasets.samples import FULL, Augmentation, Samples, crop
from data.layouts import Pair
from data.sampling import SampleKey, shuffled
from errors import InputError


class WindowDataset(Samples):
    """Windows of LR frames with the ground truth of the centre frame.

    Args:
        pairs: from a layout opened at integer `scale` (wrap them with `data.cache.cache_pairs` first).
        frames: odd length of the window.   patch: side of the LR crop.   padding, spacing: as in
            `data.clips.neighbours`.
        single_frame: share of the windows that repeat the centre frame, as those of a clip with one frame.
        on_error: "stop" raises for a frame that cannot be read; "skip" reads another sample and reports it in "skipped".

    Items: {"lr": (frames, 3, patch, patch), "gt": (3, scale * patch, scale * patch), "source": str}; uint8 where all
    clips are 8-bit (divide by 255 on the device: `data.media.to_float`), else float32 in [0, 1].
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        scale: int,
        frames: int = 5,
        patch: int = 64,
        padding: str = "reflect",
        spacing: int = 1,
        single_frame: float = 0.0,
        augmentation: Augmentation = FULL,
        on_error: str = "stop",
    ) -> None:
        super().__init__(pairs, patch, augmentation, on_error)
        if frames < 1 or frames % 2 == 0:
            raise InputError(f"frames is {frames}: a window has an odd number of frames, such as 5")
        self.scale, self.frames, self.padding, self.spacing = scale, frames, padding, spacing
        self.single_frame = single_frame
        neighbours(0, frames, 2, padding)  # raises for a wrong padding here, not in a worker
        for i, pair in enumerate(self.pairs):
            height, width = pair.lr.size
            if self._gt(i).size != (height * scale, width * scale):
                raise InputError(
                    f"clip {pair.name}: its low resolution is not of scale {scale}; open the layout with it"
                )
            if min(height, width) < patch:
                raise InputError(
                    f"{pair.lr.source(0)}: {width}x{height} is smaller than the patch of {patch}: lower data.patch"
                )
        self.items = [(i, n) for i, pair in enumerate(self.pairs) for n in pair.wanted()]

    def __len__(self) -> int:
        return len(self.items)

    def draw(self, seed: int, step: int, slot: int, position: int) -> SampleKey:
        """The sample in `slot` of `step`, number `position` of the run: shuffled epochs over all frames of all clips."""
        clip, frame = self.items[shuffled(position, len(self.items), seed)]
        return SampleKey(seed, step, slot, clip, frame, self.scale)

    def candidates(self, key: SampleKey) -> list[tuple[int, int]]:
        return self.items

    def read(self, key: SampleKey) -> dict[str, Any]:
        """The crop, transform and direction of time are drawn from the key."""
        pair, gt, random = self.pairs[key.clip], self._gt(key.clip), key.random()
        height, width = pair.lr.size
        top, left = int(random.integers(height - self.patch + 1)), int(random.integers(width - self.patch + 1))
        transform, backwards = self._draw_transform(random)
        numbers = neighbours(key.frame, self.frames, len(pair), self.padding, self.spacing)
        numbers = numbers[::-1] if backwards else numbers
        if self.single_frame and random.random() < self.single_frame:
            numbers = [key.frame] * self.frames
        crops = {number: crop(pair.lr, number, top, left, self.patch) for number in set(numbers)}
        low = np.stack([crops[number] for number in numbers])
        side = self.patch * self.scale
        high = crop(gt, key.frame, top * self.scale, left * self.scale, side)[None]
        return {
            "lr": self._tensor(transform(low)),
            "gt": self._tensor(transform(high))[0],
            "source": gt.source(key.frame),
        }
