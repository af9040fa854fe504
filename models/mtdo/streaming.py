"""MTDO sliding over a clip: what does not depend on the centre frame is computed once, not N times.

    stream = MTDOStream(network)
    for indices in windows:  # as [0, 0, 0, 1, 2], [0, 0, 1, 2, 3], ...: the caller decides about the ends of the clip
        frame = stream.restore(indices, load)  # load(index) -> (B, 3, h, w), asked once while in view

The result equals `network(frames)` to rounding. Kept between windows are each frame's features E_k, the neighbour half
of MSD's first convolution and the encoded differences of ATDM and STDM; only from the first to the last frame of the latest
window, so memory does not grow with the clip. A frame that stands in a window twice (padding) is aligned once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from errors import InputError
from models.layers import pad_to_multiple
from models.mtdo.difference import FrameDifference
from models.mtdo.network import MTDO, Window


class _Frame(NamedTuple):
    original: Tensor  # (B, 3, h, w)
    padded: Tensor
    features: Tensor  # (B, C, h, w) of the padded size; so is the next
    neighbour_half: Tensor


_Pairs = dict[tuple[int, int], Tensor]  # (earlier, later frame) -> encoded difference (B, C, h/2, w/2)


class MTDOStream:
    """Restores one window after the other; frames are known by the index that the caller gives them in the clip.

    One stream serves one clip (or one tile of it) in one precision; `clear` before another. It leaves the network's
    training mode alone and computes without gradients.
    """

    def __init__(self, network: MTDO) -> None:
        self.network = network
        self.clear()

    def clear(self) -> None:
        """Forget every frame."""
        self._frames: dict[int, _Frame] = {}
        self._adjacent: _Pairs = {}
        self._skipped: _Pairs = {}

    @torch.no_grad()
    def restore(self, indices: Sequence[int], load: Callable[[int], Tensor]) -> Tensor:
        """The N frame indices of a window -> its centre frame restored, (B, 3, scale*h, scale*w)."""
        network, indices = self.network, list(indices)
        if len(indices) != network.config.frames:
            raise InputError(f"a window of this network has {network.config.frames} frames, got {len(indices)}")
        self._forget_beyond(min(indices), max(indices))
        for index in indices:
            if index not in self._frames:
                self._frames[index] = self._described(load(index))
        centre = self._frames[indices[len(indices) // 2]]
        window = Window(
            centre.padded,
            self._aligned(indices, centre),
            self._differences(network.atdm, self._adjacent, list(pairwise(indices))),
            self._differences(network.stdm, self._skipped, list(zip(indices[:-2:2], indices[2::2], strict=True))),
        )
        return network.finish(network.reconstruct(window), centre.original)

    def _described(self, frame: Tensor) -> _Frame:
        padded = pad_to_multiple(frame, self.network.config.multiple)
        return _Frame(frame, padded, *self.network.encode(padded))

    def _aligned(self, indices: list[int], centre: _Frame) -> Tensor:
        distinct = sorted(set(indices))
        features = _stack([self._frames[index].features for index in distinct])
        halves = _stack([self._frames[index].neighbour_half for index in distinct])
        aligned = self.network.msd(features, halves, centre.features)
        if distinct == indices:
            return aligned
        return aligned[:, [distinct.index(index) for index in indices]]

    def _differences(
        self, branch: FrameDifference | None, known: _Pairs, pairs: list[tuple[int, int]]
    ) -> Tensor | None:
        if branch is None:
            return None
        for earlier, later in pairs:
            if (earlier, later) not in known:
                difference = self._frames[earlier].padded - self._frames[later].padded
                encoded = self.network.encode_differences(branch, difference[:, None])
                known[earlier, later] = encoded[:, 0]
        return torch.stack([known[pair] for pair in pairs], 1)

    def _forget_beyond(self, first: int, last: int) -> None:
        """Windows whose frames lie apart see frames again that the latest one has skipped."""
        self._frames = {index: frame for index, frame in self._frames.items() if first <= index <= last}
        for pairs in (self._adjacent, self._skipped):
            for pair in [pair for pair in pairs if min(pair) < first or max(pair) > last]:
                del pairs[pair]


def _stack(frames: list[Tensor]) -> Tensor:
    """K times (B, C, h, w) -> (B, K, C, h, w), each frame a channels-last picture in memory as before."""
    return torch.stack(frames).transpose(0, 1)
