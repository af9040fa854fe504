"""MTDO over a clip with sliding windows: everything that does not depend on the centre frame is computed once, not N times.

    stream = network.stream()
    for indices in windows:  # such as [0, 0, 0, 1, 2], [0, 0, 1, 2, 3]; the caller decides about the ends of the clip
        frame = stream.restore(indices, load)  # load(index) -> (B, 3, h, w), called once while the frame is in view

The result equals `network(frames)` to rounding. Kept from one window to the next are each frame's features E_k, the
neighbour half of MSD's first convolution and the encoded differences of ATDM and STDM. A frame that a window holds twice
(padding at the ends of a clip) is aligned once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from models.base import WindowStream, joined
from models.layers import pad_to_multiple
from models.mtdo.difference import FrameDifference
from models.mtdo.window import WindowFeatures


class KnownFrame(NamedTuple):
    """Features kept for a frame."""

    original: Tensor  # (B, 3, h, w)
    padded: Tensor
    features: Tensor  # (B, C, h, w) of the padded size, as the next
    neighbour_half: Tensor


EncodedPairs = dict[tuple[int, int], Tensor]  # (first, second frame) -> encoded difference (B, C, h/2, w/2)


class MTDOStream(WindowStream):
    """`models.base.WindowStream` that keeps features. Computes without gradients; does not change the training mode."""

    def clear(self) -> None:
        super().clear()
        self._adjacent: EncodedPairs = {}
        self._skipped: EncodedPairs = {}

    def prepare(self, frame: Tensor) -> KnownFrame:
        padded = pad_to_multiple(frame, self.network.multiple)
        return KnownFrame(frame, padded, *self.network.encode(padded))

    def main_part(self, *features: Tensor | None) -> Tensor:
        return self.network.reconstruct(WindowFeatures(*features))  # type: ignore[arg-type]

    def restore_known(self, windows: list[list[int]]) -> Tensor:
        each = [self._window(indices) for indices in windows]
        features = (None if parts[0] is None else joined(parts) for parts in zip(*each, strict=True))
        centres = joined([self._frames[indices[len(indices) // 2]].original for indices in windows])
        return self.network.finish(self.run(*features), centres)

    def _window(self, indices: list[int]) -> WindowFeatures:
        network, centre = self.network, self._frames[indices[len(indices) // 2]]
        return WindowFeatures(
            centre.padded,
            self._aligned(indices, centre),
            self._differences(network.atdm, self._adjacent, indices),
            self._differences(network.stdm, self._skipped, indices),
        )

    def _aligned(self, indices: list[int], centre: KnownFrame) -> Tensor:
        distinct = sorted(set(indices))
        features = _stack([self._frames[index].features for index in distinct])
        halves = _stack([self._frames[index].neighbour_half for index in distinct])
        aligned = self.network.msd(features, halves, centre.features)
        if distinct == indices:
            return aligned
        # Not indexed by a list, which would be copied to a GPU and waited for
        return torch.stack([aligned[:, distinct.index(index)] for index in indices], 1)

    def _differences(self, branch: FrameDifference | None, known: EncodedPairs, indices: list[int]) -> Tensor | None:
        if branch is None:
            return None
        pairs = [(indices[first], indices[second]) for first, second in branch.pairs]
        for first, second in pairs:
            if (first, second) not in known:
                known[first, second] = branch.encode(self._frames[first].padded, self._frames[second].padded)
        return torch.stack([known[pair] for pair in pairs], 1)

    def forget_outside(self, first: int, last: int) -> None:
        super().forget_outside(first, last)
        for pairs in (self._adjacent, self._skipped):
            for pair in [pair for pair in pairs if min(pair) < first or max(pair) > last]:
                del pairs[pair]


def _stack(frames: list[Tensor]) -> Tensor:
    """K times (B, C, h, w) -> (B, K, C, h, w); in memory each frame is still a channels-last image."""
    return torch.stack(frames).transpose(0, 1)
