"""Motion-compensated temporal filter of restored frames.

A network restores each frame from its own window. Errors caused by noise and compression differ from window to window, so
they flicker. The filter replaces a restored frame y_t by a weighted mean over nine frames:

    y = sum_k w_k * M_k(y_k) / sum_k w_k,    x = sum_k w_k * M_k(x_k) / sum_k w_k
    out_t = y + U(share * (x_t - x) + consistency * (x - D(y)))
    w_k = exp(-d_k / tolerance^2) * min(1, 2 m / median(d_k)),    w_t = 1    (intermediate frames: times their weight)
    d_k = |M_k(x_k) - x_t|^2,    m: the second smallest median(d_k)

x_k: LR frames.   M_k: motion compensation from frame k to frame t (motion.py).   |.|^2: mean over the colours and 5x5 LR
pixels.   median: over the frame.   U, D: bicubic up- and downsampling. `share` of the LR frame's own detail is not averaged,
because noise of clean LR frames is also in the ground truth. `consistency` returns detail of the LR frames that the mean has
lost (one step of back projection; Irani and Peleg, 1991), with the noise of a mean. For "compressed", neither is done, so that
compression errors of the LR frames are averaged too. An intermediate frame has no LR frame: the output, reduced to LR size,
takes its place as x_k, and nothing is returned.

A pixel keeps y_t if its neighbours do not match: an object with its own motion, a scene cut. Where distant frames match much
worse than near ones, as with fast motion, they count less (the minimum in w_k).

The neighbours of t are the frames t - 4 to t + 4. In slow scenes adjacent frames have much the same errors. There, the
neighbours are the eight nearest multiples of a step of up to three frames: more errors are averaged, and successive frames
have the same neighbours, so that the result does not flicker. The choice depends on the frames only: a frame has the same
result for any start of the work. docs/results.md has the gains.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

import dcn
from engine.restore.filter_frames import NEIGHBOURS, STEPS, ascending_runs, nearest
from engine.restore.jobs import ChunkJob, WindowJob
from engine.restore.memory import free_memory
from engine.restore.motion import motions
from engine.restore.spacing import FrameLuma
from engine.restore.timing import Clock

SLOW = 0.4  # LR pixels: largest displacement between frames that are one step apart
READ_FIRST = 8  # the neighbours of so few frames are chosen in advance, so that no other frames are restored
SHARE = {"clean": 0.6, "compressed": 0.0}  # of the LR frame's detail that is not averaged
CONSISTENCY = 0.75  # share of the difference between the LR frames' mean and the reduced mean that is corrected
TOLERANCE = {"clean": 7 / 255, "compressed": 10 / 255}  # difference of LR frames at which a neighbour's weight is 1/e
CONTRAST = 30 / 255  # in frames with less contrast (standard deviation of luma) the tolerance is proportionally smaller
INTERMEDIATE = 0.15  # weight of intermediate frames where a more accurate network restores the key frames
SPOT = 5  # LR pixels: side of the squares in which LR frames are compared
WORSE = 2.0  # times the squared difference of the second best neighbour, above which a neighbour's weight is reduced
ON_DEVICE = 0.25  # share of a GPU's free memory for the frames that are held
SAME = 0.5 / 255  # difference below which a frame is a repeated one, which does not show how well neighbours can match


@dataclass
class _Frame:
    """One frame: LR (3, h, w), its luma, on the CPU, and restored (3, H, W)."""

    low: Tensor
    luma: FrameLuma
    restored: Tensor
    share: float  # of the detail of `low` that is not averaged
    weight: float  # relative to other frames


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
        steps: Sequence[int] = STEPS,
        intermediate: float = 1.0,
    ) -> None:
        """size: (h, w) of LR frames.   steps: descending, see `affordable_steps`.   intermediate: weight of intermediate frames."""
        self.form, self.length, self.size, self.clock, self.intermediate = form, length, size, clock, intermediate
        self.steps = steps
        # LR frames that are being restored; None for intermediate frames
        self._lows: deque[tuple[int, Tensor | None]] = deque()
        self._chosen: dict[int, list[int]] = {}
        self._grids: dict[tuple[int, int], Tensor] = {}
        self._place: torch.device | None = None  # of the frames that are held

    def _choose(self, index: int, luma: Callable[[int], FrameLuma]) -> list[int]:
        """The neighbours of `index`, ascending. luma(number): called for frames up to `steps[0]` from `index`."""
        for step in self.steps:
            numbers = nearest(index, step, self.length)
            if len(numbers) == NEIGHBOURS and all(
                luma(index).displacement(luma(number)) <= SLOW for number in self._compared(index, step)
            ):
                return numbers
        return [number for number in nearest(index, 1, self.length) if abs(number - index) <= NEIGHBOURS // 2]

    def _compared(self, index: int, step: int) -> list[int]:
        """The frames whose displacement decides on `step`."""
        return [number for number in (index - step, index + step) if 0 <= number < self.length]

    def needed(self, wanted: Sequence[int], load: Callable[[int], Tensor] | None = None) -> list[int]:
        """The frames to restore, in order, for the frames `wanted` of the clip.

        load(number) -> LR frame (3, h, w): with it, the neighbours of a few frames are chosen here; otherwise, and of many frames, all
        that may be chosen are needed.
        """
        if load and len(wanted) <= READ_FIRST < self.length:
            lumas = cache(lambda number: FrameLuma(load(number)))
            self._chosen = {index: self._choose(index, lumas) for index in wanted}
        return [
            number
            for run in ascending_runs(wanted)
            for number in sorted({number for index in run for number in (index, *self._possible(index))})
        ]

    def _possible(self, index: int) -> Iterable[int]:
        """The frames that the choice depends on and that may be chosen as neighbours."""
        if index in self._chosen:
            return self._chosen[index]
        return {
            number
            for step in self.steps
            for number in (*self._compared(index, step), *nearest(index, step, self.length))
        }

    def _oldest(self, index: int) -> int:
        """The first frame that `index` or a frame after it may have as neighbour."""
        span, step = NEIGHBOURS * self.steps[0], self.steps[0]
        return min(index - span // 2, self.length - span - step)

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
        self, jobs: Iterator[ChunkJob], first: int, starts: Sequence[int], needed: range
    ) -> Iterator[ChunkJob]:
        """The same chunks, the first of which begins with key frame `first`; their key frames are kept as in `recorded`.

        starts: see `key_positions`.   needed: output frames, from the first to the last of `self.needed`.
        """
        key = first
        for job in jobs:
            for low in job.keys[job.keep[0] : job.keep[1] + job.with_last]:
                outputs = range(starts[key], starts[key + 1])
                self.keep((n, low if n == outputs[0] else None) for n in outputs if n in needed)
                key += 1
            yield job

    def __call__(self, wanted: Sequence[int], restored: Iterator[Tensor]) -> Iterator[Tensor]:
        """Filtered frames (3, H, W) for `wanted`. restored: the frames of `needed`, in order."""
        for run in ascending_runs(wanted):
            yield from self._filter_run(run, restored)

    def _filter_run(self, run: Sequence[int], restored: Iterator[Tensor]) -> Iterator[Tensor]:
        """The same for frame numbers that ascend."""
        held: dict[int, _Frame] = {}

        def read(last: int) -> None:
            while not held or max(held) < last:
                frame = next(restored)
                number, low = self._lows.popleft()
                held[number] = self._prepare(low, frame)

        for index in run:
            others = self._chosen.get(index)
            if others is None:
                read(max([index, *(number for step in self.steps for number in self._compared(index, step))]))
                others = self._choose(index, lambda number: held[number].luma)
            read(max([index, *others]))
            for number in [number for number in held if number < self._oldest(index)]:
                del held[number]
            with self._timed(held[index]):
                filtered = self._filtered(held[index], [held[number] for number in others])
            yield filtered

    def _timed(self, frame: _Frame) -> AbstractContextManager[None]:
        return self.clock.span(frame.low.device) if self.clock else nullcontext()

    def _prepare(self, low: Tensor | None, restored: Tensor) -> _Frame:
        """low: (3, h, w), or None: an intermediate frame."""
        self._place = self._place or self._place_of(restored)
        restored = restored.to(self._place)
        share, weight = (0.0, self.intermediate) if low is None else (SHARE[self.form], 1.0)
        if low is None:
            low = F.interpolate(restored[None], self.size, mode="bicubic", antialias=True)[0].clamp_(0, 1)
        return _Frame(low.to(restored.device), FrameLuma(low.float().cpu()), restored, share, weight)

    def _place_of(self, restored: Tensor) -> torch.device:
        """The device on which frames like this one are held and filtered: the CPU if they take too much of a GPU's memory."""
        held = (NEIGHBOURS * self.steps[0] + 1) * restored.numel() * restored.element_size()
        fits = restored.device.type == "cpu" or held <= ON_DEVICE * free_memory(restored.device)
        return restored.device if fits else torch.device("cpu")

    @torch.no_grad()
    def _filtered(self, centre: _Frame, others: Sequence[_Frame]) -> Tensor:
        tolerance = TOLERANCE[self.form] * min(1.0, float(centre.luma.luma.std()) / CONTRAST)
        lumas = [torch.from_numpy(frame.luma.luma) for frame in (centre, *others)]
        found = [motion.to(centre.low.device) for motion in motions(lumas[0], lumas[1:])]
        lows = [self._moved(other.low, motion) for other, motion in zip(others, found, strict=True)]
        likeness = _likeness(lows, centre.low, tolerance)

        total = (centre.restored * centre.weight).contiguous()
        weights = torch.full_like(total[:1], centre.weight)
        low_total, low_weights = centre.low.clone(), torch.ones_like(centre.low[:1])
        for other, motion, low, like in zip(others, found, lows, likeness, strict=True):
            weight = like * other.weight
            low_total.addcmul_(low, weight)
            low_weights.add_(weight)
            self._add_moved(total, weights, other.restored, motion, weight)
        filtered = total.div_(weights)
        if centre.share:
            mean = low_total.div_(low_weights)
            reduced = F.interpolate(filtered[None], self.size, mode="bicubic", antialias=True)[0]
            missing = (centre.low - mean) * centre.share + (mean - reduced) * CONSISTENCY
            still, full = torch.zeros_like(centre.low[:2]), torch.ones_like(centre.low[:1])
            self._add_moved(filtered, weights, missing, still, full)
        return filtered

    def _add_moved(self, total: Tensor, weights: Tensor, image: Tensor, motion: Tensor, weight: Tensor) -> None:
        """total (3, H, W) += weight * image(p + motion(p)), weights (1, H, W) += weight: see `dcn.motion.add_moved`."""
        if dcn.motion.usable(total):
            dcn.motion.add_moved(total, weights, image, motion, weight)
            return
        (h, w), (height, width) = motion.shape[-2:], total.shape[-2:]
        scale = (
            torch.tensor([width / w, height / h], dtype=motion.dtype).view(2, 1, 1).to(motion.device, non_blocking=True)
        )
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
        scale = (
            torch.tensor([2 / width, 2 / height], dtype=motion.dtype).view(2, 1, 1).to(image.device, non_blocking=True)
        )
        grid = ((self._grids[height, width] + motion) * scale - 1).permute(1, 2, 0)
        return F.grid_sample(image[None], grid[None], mode="bicubic", padding_mode="border", align_corners=False)[0]


def _likeness(moved: Sequence[Tensor], low: Tensor, tolerance: float) -> list[Tensor]:
    """Weights (1, h, w) of LR frames (3, h, w) that were moved to the LR frame `low` (3, h, w)."""
    if not moved:
        return []
    difference = (torch.stack(list(moved)) - low).square().mean(1, keepdim=True)
    difference = F.avg_pool2d(F.pad(difference, (SPOT // 2,) * 4, mode="replicate"), SPOT, 1)
    of_frame = torch.stack(
        [each.nanmedian() for each in difference]
    )  # not over a dimension: that is not deterministic on GPUs
    second = torch.where(of_frame > SAME**2, of_frame, torch.inf).sort().values[:2][-1]
    share = (WORSE * second / of_frame.clamp(min=SAME**2)).clamp(max=1)
    return list(torch.exp(difference / -(max(tolerance, 1e-6) ** 2)) * share.view(-1, 1, 1, 1))
