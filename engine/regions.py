"""What a network does with one region of the frames, one turn of them, from job to job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.tiles import Region


class Window(NamedTuple):
    """MTDO's job: the numbers of the window's frames in order (repeated at the ends of a clip), and those frames (3,
    h, w).
    """

    numbers: list[int]
    frames: dict[int, Tensor]


class Chunk(NamedTuple):
    """STNO's job: key frames (T, 3, h, w), between which of them (both included) the outputs are wanted, how many of
    those are known already."""

    keys: Tensor
    keep: tuple[int, int]
    skip: int


def turned(x: Tensor, turn: int) -> Tensor:
    """(..., h, w) in one of the eight positions: turned by `turn` % 4 quarters, mirrored first from 4 on."""
    return torch.rot90(x.flip(-1) if turn >= 4 else x, turn % 4, (-2, -1))


def turned_back(x: Tensor, turn: int) -> Tensor:
    """The inverse of `turned`."""
    x = torch.rot90(x, -(turn % 4), (-2, -1))
    return x.flip(-1) if turn >= 4 else x


class SpaceWork:
    """MTDO on one region."""

    def __init__(self, network: Any, device: torch.device, region: Region, turn: int) -> None:
        self.network, self.device, self.region, self.turn = network, device, region, turn
        self.held: dict[int, Tensor] = {}

    def __call__(self, job: Window) -> Tensor:
        """-> (1, 3, H, W), float32 on the CPU."""
        self.held = {n: self.held[n] if n in self.held else self._view(frame) for n, frame in job.frames.items()}
        window = torch.stack([self.held[number] for number in job.numbers])
        return turned_back(self.network(window[None]), self.turn).float().cpu()

    def _view(self, frame: Tensor) -> Tensor:
        return turned(self.region.crop(frame), self.turn).to(self.device)


class SpaceTimeWork:
    """STNO on one region."""

    def __init__(self, network: Any, device: torch.device, region: Region, turn: int, times: Sequence[float]) -> None:
        self.network, self.device, self.region, self.turn = network, device, region, turn
        self.times = list(times)

    def __call__(self, job: Chunk) -> Tensor:
        """-> (n, 3, H, W), float32 on the CPU."""
        keys = turned(self.region.crop(job.keys), self.turn).to(self.device)
        height, width = self.region.out_size
        size = (width, height) if self.turn % 2 else (height, width)
        frames = self.network(keys[None], times=self.times, size=size, keep=job.keep)[0, job.skip :]
        return turned_back(frames, self.turn).float().cpu()
