"""Motion-compensated temporal filter of restored frames.

A network restores each frame from its own window. Errors caused by noise and compression differ from window to window, so
they flicker. The filter replaces a restored frame y_t by a weighted mean over the frames from t - 4 to t + 4:

    out_t = sum_k w_k * M_k(y_k) / sum_k w_k + share * U(x_t - sum_k w_k * M_k(x_k) / sum_k w_k)
    w_k = exp(-|M_k(x_k) - x_t|^2 / tolerance^2),    w_t = 1    (intermediate frames: times their `intermediate` weight)

x: LR frames.   M_k: motion compensation from frame k to frame t (motion.py).   |.|^2: mean over the colours and 5x5 LR
pixels.   U: bicubic upsampling. `share` of the LR frame's own detail is not averaged: "clean" keeps half of it, because noise
of clean LR frames is also in the ground truth; "compressed" keeps none, so that compression errors of the LR frames are
averaged too. An intermediate frame has no LR frame: the output, reduced to LR size, takes its place as x, and nothing of it
is kept.

A pixel keeps y_t if its neighbours do not match: an object with its own motion, a scene cut. The result for a frame depends
on these nine frames only, so it is the same for any start of the work. docs/results.md has the gains.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

import dcn
from data.media import LUMA
from engine.restore.jobs import ChunkJob, WindowJob
from engine.restore.motion import motions
from engine.restore.spacing import widest
from engine.restore.timing import Clock
from models.base import Network, WindowNetwork

# Distances of the neighbours before and after the centre, in frames; experiments/temporal_filter.py compares others.
DISTANCES = (1, 2, 3, 4)
REACH = max(DISTANCES)
SHARE = {"clean": 0.5, "compressed": 0.0}  # of the LR frame's detail that is not averaged
TOLERANCE = {"clean": 7 / 255, "compressed": 10 / 255}  # difference of LR frames at which a neighbour's weight is 1/e
CONTRAST = 30 / 255  # in frames with less contrast (standard deviation of luma) the tolerance is proportionally smaller
INTERMEDIATE = 0.15  # weight of intermediate frames where a more accurate network restores the key frames
SPOT = 5  # LR pixels: side of the squares in which LR frames are compared


@dataclass
class _Frame:
    """One frame: LR (3, h, w), its luma for the flow (h, w), on the CPU, and restored (3, H, W)."""

    low: Tensor
    luma: Tensor
    restored: Tensor
    share: float  # of the detail of `low` that is not averaged
    weight: float  # relative to other frames


def ascending_runs(wanted: Sequence[int]) -> list[list[int]]:
    """Split frame numbers where they do not ascend."""
    runs: list[list[int]] = []
    for index in wanted:
        if not runs or index <= runs[-1][-1]:
            runs.append([])
        runs[-1].append(index)
    return runs


def reach(network: Network, form: str, context: int) -> int:
    """Maximum number of frames before and after a frame that its result with the filter `form` depends on.

    network: that of all frames, such as a key network without intermediate frames.   context: key frames that space-time networks see
    on either side.
    """
    filtered = form != "none"
    if isinstance(network, WindowNetwork):
        return network.config.frames // 2 * widest(network.spacing) + REACH * filtered
    return context + REACH * filtered


def key_positions(times_per_gap: Sequence[int]) -> list[int]:
    """Positions of the key frames among the outputs of a clip, and the number of outputs. times_per_gap: intermediate frames."""
    positions = [0, *accumulate(1 + count for count in times_per_gap)]
    return [*positions, positions[-1] + 1]


def key_frames(needed: Sequence[int], starts: Sequence[int]) -> range:
    """The key frames from which consecutive outputs are made. starts: see `key_positions`."""
    return range(bisect_right(starts, needed[0]) - 1, bisect_right(starts, needed[-1]))


class TemporalFilter:
    """Filters the restored frames of one clip for "clean" or "compressed" sources (`form`).

    Frames are numbered in output order; `length` is their number. Of window networks this is the frame number of the clip.
    """

    def __init__(
        self,
        form: str,
        length: int,
        size: tuple[int, int],
        clock: Clock | None = None,
        distances: Sequence[int] = DISTANCES,
        intermediate: float = 1.0,
    ) -> None:
        """size: (h, w) of LR frames.   distances: of the neighbours, ascending.   intermediate: weight of intermediate frames."""
        self.form, self.length, self.size, self.clock, self.intermediate = form, length, size, clock, intermediate
        self.steps = (*(-distance for distance in reversed(distances)), 0, *distances)
        # LR frames that are being restored; None for intermediate frames
        self._lows: deque[tuple[int, Tensor | None]] = deque()
        self._grids: dict[tuple[int, int], Tensor] = {}

    def _around(self, index: int) -> list[int]:
        return [index + step for step in self.steps if 0 <= index + step < self.length]

    def needed(self, wanted: Sequence[int]) -> list[int]:
        """The frames to restore, in order, for the frames `wanted` of the clip."""
        return [
            number
            for run in ascending_runs(wanted)
            for number in sorted({number for index in run for number in self._around(index)})
        ]

    def keep(self, lows: Iterable[tuple[int, Tensor | None]]) -> None:
        """Give the LR frames of `needed`, with their numbers and in order; None for intermediate frames."""
        self._lows.extend(lows)

    def recorded(self, jobs: Iterator[WindowJob]) -> Iterator[WindowJob]:
        """The same windows; their centre frames are kept until the restored frames arrive."""
        for job in jobs:
            number = job.numbers[len(job.numbers) // 2]
            self.keep([(number, job.frames[number])])
            yield job

    def recorded_chunks(
        self, jobs: Iterator[ChunkJob], first: int, starts: Sequence[int], needed: Sequence[int]
    ) -> Iterator[ChunkJob]:
        """The same chunks, the first of which begins with key frame `first`; their key frames are kept as in `recorded`.

        starts: see `key_positions`.   needed: consecutive output frames, the result of `self.needed`.
        """
        key, needed = first, range(needed[0], needed[-1] + 1)
        for job in jobs:
            for low in job.keys[job.keep[0] : job.keep[1] + job.with_last]:
                outputs = range(starts[key], starts[key + 1])
                self.keep((n, low if n == outputs[0] else None) for n in outputs if n in needed)
                key += 1
            yield job

    def __call__(self, wanted: Sequence[int], restored: Iterator[Tensor]) -> Iterator[Tensor]:
        """Filtered frames (3, H, W) for `wanted`. restored: the frames of `needed`, in order."""
        for run in ascending_runs(wanted):
            held: dict[int, _Frame] = {}
            newest = -1
            for index in run:
                while newest < self._around(index)[-1]:
                    frame = next(restored)
                    newest, low = self._lows.popleft()
                    held[newest] = self._prepare(low, frame)
                held = {number: frame for number, frame in held.items() if number >= index + self.steps[0]}
                with self._timed(held[index]):
                    filtered = self._filtered(index, held)
                yield filtered

    def _timed(self, frame: _Frame) -> AbstractContextManager[None]:
        return self.clock.span(frame.low.device) if self.clock else nullcontext()

    def _prepare(self, low: Tensor | None, restored: Tensor) -> _Frame:
        """low: (3, h, w), or None: an intermediate frame."""
        share, weight = (0.0, self.intermediate) if low is None else (SHARE[self.form], 1.0)
        if low is None:
            low = F.interpolate(restored[None], self.size, mode="bicubic", antialias=True)[0].clamp_(0, 1)
        luma = torch.tensordot(torch.tensor(LUMA), low.float().cpu(), 1)
        return _Frame(low.to(restored.device), luma, restored, share, weight)

    @torch.no_grad()
    def _filtered(self, index: int, frames: dict[int, _Frame]) -> Tensor:
        centre = frames[index]
        tolerance = TOLERANCE[self.form] * min(1.0, float(centre.luma.std(correction=0)) / CONTRAST)
        total, weights = (
            (centre.restored * centre.weight).contiguous(),
            torch.full_like(centre.restored[:1], centre.weight),
        )
        low_total, low_weights = centre.low.clone(), torch.ones_like(centre.low[:1])
        others = [frames[number] for number in self._around(index) if number != index]
        for other, motion in zip(others, motions(centre.luma, [other.luma for other in others]), strict=True):
            motion = motion.to(centre.low.device)
            low = self._moved(other.low, motion)
            weight = _likeness(low, centre.low, tolerance).mul_(other.weight)
            low_total.addcmul_(low, weight)
            low_weights.add_(weight)
            self._add_moved(total, weights, other.restored, motion, weight)
        filtered = total.div_(weights)
        if centre.share:
            averaged = (centre.low - low_total.div_(low_weights)) * centre.share
            still, full = torch.zeros_like(centre.low[:2]), torch.ones_like(centre.low[:1])
            self._add_moved(filtered, weights, averaged, still, full)
        return filtered

    def _add_moved(self, total: Tensor, weights: Tensor, image: Tensor, motion: Tensor, weight: Tensor) -> None:
        """total (3, H, W) += weight * image(p + motion(p)), weights (1, H, W) += weight: see `dcn.motion.add_moved`."""
        if dcn.motion.usable(total):
            dcn.motion.add_moved(total, weights, image, motion, weight)
            return
        (h, w), (height, width) = motion.shape[-2:], total.shape[-2:]
        scale = torch.tensor([width / w, height / h]).view(2, 1, 1).to(motion.device, non_blocking=True)
        large = F.interpolate(torch.cat([motion * scale, weight])[None], (height, width), mode="bilinear")[0]
        if image.shape != total.shape:
            image = F.interpolate(image[None], (height, width), mode="bicubic")[0]
        total.addcmul_(self._moved(image, large[:2]), large[2:])
        weights.add_(large[2:])

    def _moved(self, image: Tensor, motion: Tensor) -> Tensor:
        """image(p + motion(p)) for an image (3, h, w) and motion (2, h, w) in pixels (x, y), bicubic."""
        height, width = image.shape[-2:]
        if (height, width) not in self._grids:
            rows, columns = torch.arange(height, device=image.device), torch.arange(width, device=image.device)
            self._grids[height, width] = torch.stack(torch.meshgrid(columns, rows, indexing="xy")).float() + 0.5
        scale = torch.tensor([2 / width, 2 / height]).view(2, 1, 1).to(image.device, non_blocking=True)
        grid = ((self._grids[height, width] + motion) * scale - 1).permute(1, 2, 0)
        return F.grid_sample(image[None], grid[None], mode="bicubic", padding_mode="border", align_corners=False)[0]


def _likeness(moved: Tensor, low: Tensor, tolerance: float) -> Tensor:
    """Weights (1, h, w) of an LR frame (3, h, w) that was moved to the LR frame `low` (3, h, w)."""
    difference = (moved - low).square().mean(0, keepdim=True)[None]
    difference = F.avg_pool2d(F.pad(difference, (SPOT // 2,) * 4, mode="replicate"), SPOT, 1)
    return torch.exp(difference[0] / -(max(tolerance, 1e-6) ** 2))
