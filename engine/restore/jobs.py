"""What a network does with one region of the frames, one turn of them, from job to job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.restore.tiles import Region
from models.mtdo.network import MTDO
from models.mtdo.streaming import MTDOStream


class Window(NamedTuple):
    """MTDO's job: the numbers of the window's frames in order (repeated at the ends of a clip), and those frames (3,
    h, w).
    """

    numbers: list[int]
    frames: dict[int, Tensor]


class Chunk(NamedTuple):
    """STNO's job.

    keys: key frames (T, 3, h, w).   keep: first and last of those between which outputs are wanted.   whole: the last
    one belongs to this chunk; only the clip's very last key frame does, others begin the next chunk.   steps: times of the
    frames in each gap of `keys`, where they differ from gap to gap; None: those of the `SpaceTimeWork`.
    """

    keys: Tensor
    keep: tuple[int, int]
    whole: bool
    steps: list[list[float]] | None = None


def turned(x: Tensor, turn: int) -> Tensor:
    """(..., h, w) in one of the eight positions: turned by `turn` % 4 quarters, mirrored first from 4 on."""
    return torch.rot90(x.flip(-1) if turn >= 4 else x, turn % 4, (-2, -1))


def turned_back(x: Tensor, turn: int) -> Tensor:
    """The inverse of `turned`."""
    x = torch.rot90(x, -(turn % 4), (-2, -1))
    return x.flip(-1) if turn >= 4 else x


class SpaceWork:
    """MTDO on one region; what does not depend on the centre frame is kept from window to window."""

    def __init__(self, network: MTDO, device: torch.device, region: Region, turn: int) -> None:
        self.stream = MTDOStream(network)
        self.device, self.region, self.turn = device, region, turn

    def __call__(self, job: Window) -> Tensor:
        """-> (1, 3, H, W), float32 on the CPU."""

        def load(number: int) -> Tensor:
            return turned(self.region.crop(job.frames[number]), self.turn).to(self.device)[None]

        return turned_back(self.stream.restore(job.numbers, load), self.turn).float().cpu()


class SpaceTimeWork:
    """STNO on one region."""

    def __init__(self, network: Any, device: torch.device, region: Region, turn: int, times: Sequence[float]) -> None:
        self.network, self.device, self.region, self.turn = network, device, region, turn
        self.times, self.keys_alone = list(times) or [0.5], not times

    def __call__(self, job: Chunk) -> Tensor:
        """-> (n, 3, H, W), float32 on the CPU."""
        keys = turned(self.region.crop(job.keys), self.turn).to(self.device)
        height, width = self.region.out_size
        size = (width, height) if self.turn % 2 else (height, width)
        times, wanted = (self.times, None) if job.steps is None else slots(job.steps, job.keep)
        frames = self.network(keys[None], times=times, size=size, keep=job.keep)[0]
        frames = frames if wanted is None else frames[wanted]
        frames = frames if job.whole else frames[:-1]
        frames = frames[:: 1 + len(self.times)] if self.keys_alone and wanted is None else frames
        return turned_back(frames, self.turn).float().cpu()


def slots(steps: list[list[float]], keep: tuple[int, int]) -> tuple[Tensor, list[int]]:
    """Times that differ from gap to gap, as the network takes them: as many in each gap.

    Returns: times (1, K, gaps), filled up with times that nobody asked for; numbers of the outputs between the two key
    frames of `keep` that were asked for.
    """
    count = max(1, *map(len, steps))
    filled: list[list[float]] = []
    wanted: list[int] = []
    for gap, asked in enumerate(steps):
        end = asked[-1] if asked else 0.0
        spare = count - len(asked)
        filled.append([*asked, *(end + (1 - end) * (k + 1) / (spare + 1) for k in range(spare))])
        if keep[0] <= gap < keep[1]:
            base = (gap - keep[0]) * (count + 1)
            wanted += range(base, base + 1 + len(asked))
    return torch.tensor(filled, dtype=torch.float64).T[None], [*wanted, (keep[1] - keep[0]) * (count + 1)]
