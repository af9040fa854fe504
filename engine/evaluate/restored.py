"""The frames of a clip that an evaluation measures, restored, each with its baseline and its ground truth.

Both kinds of network yield `RestoredFrame`s; all later steps are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data.baseline import Bicubic
from data.clips import Clip, SubClip
from data.layouts import Pair
from engine.config import Config
from engine.evaluate.times import gap_times, runs
from engine.restore import Options, restore
from engine.restore.timing import Clock
from errors import InputError
from models.base import Network


@dataclass
class RestoredFrame:
    """One restored frame, its baseline and its truth, each (3, H, W) in [0, 1] on the CPU; `index` counts the clip's frames."""

    index: int
    ours: Tensor
    baseline: Tensor
    gt: Tensor
    kind: str = ""  # "key" or "between" for space-time networks
    time: float | None = None  # of an intermediate frame: its position between the key frames, in (0, 1)


def measured_frames(pair: Pair, config: Config) -> list[int]:
    """The frames of `restored_indices` that are measured: with a list file those that it names."""
    frames = restored_indices(pair, config)
    if pair.listed is None:
        return frames
    listed = set(pair.listed)
    if not (found := [index for index in frames if index in listed]):
        raise InputError(
            f"clip '{pair.name}': none of its listed frames is among those that are measured (frames, stride, times): change the list"
        )
    return found


def restored_indices(pair: Pair, config: Config) -> list[int]:
    """The ground-truth frames that are restored, in time order; space-time: the last one is a key frame."""
    if pair.gt is None:
        raise InputError(f"clip '{pair.name}' has no ground truth, which evaluation needs; upscale.py does not")
    if not config.space_time:
        return list(pair.wanted(config.eval.frames))
    count = min(len(pair.gt), config.eval.frames or len(pair.gt))
    stride = config.stride
    if count < stride + 1:
        raise InputError(
            f"clip '{pair.name}' has {count} frames: a key frame every {stride} frames needs at least {stride + 1}: "
            f"use a smaller stride or longer clips"
        )
    last = (count - 1) // stride * stride
    steps = [0, *(round(time * stride) for time in config.intermediate_times)]
    return [*(key + step for key in range(0, last, stride) for step in steps), last]


def restored_frames(
    network: Network, pair: Pair, config: Config, device: torch.device, clock: Clock
) -> Iterator[RestoredFrame]:
    """The measured frames of a clip, each with its baseline and truth."""
    gt, frames, measured = pair.gt, restored_indices(pair, config), set(measured_frames(pair, config))
    assert gt is not None
    stride = config.stride if config.space_time else 0
    common: dict[str, Any] = {"device": device, "clock": clock, "options": Options(ensemble=config.eval.ensemble)}
    times: dict[int, float] = {}
    if stride:
        keys = SubClip(pair.lr, range(0, frames[-1] + 1, stride))
        gaps = true_times(gt, frames[-1], config)
        times = {
            key * stride + step: time
            for key, gap in enumerate(gaps)
            for step, time in zip(intermediate_steps(config), gap, strict=True)
        }
        baseline: Callable[[int], Tensor] = Blend(keys, stride, gt.size, times)
        outputs = in_time_order(network, keys, gaps, gt.size, common)
    else:
        baseline = Bicubic(pair.lr, gt.size)
        outputs = restore(network, pair.lr, padding=config.data.padding, frames=frames, **common)
    for index, ours in zip(frames, outputs, strict=True):
        if index not in measured:
            continue
        if not torch.isfinite(ours).all():
            raise InputError(
                f"clip '{pair.name}', frame '{gt.frame_names[index]}': the output is not finite: check the weights"
            )
        kind = "" if not stride else "between" if index % stride else "key"
        yield RestoredFrame(index, ours, baseline(index), gt.truth(index), kind, times.get(index))


def intermediate_steps(config: Config) -> list[int]:
    """Offsets, in true frames, from a key frame to the measured frames after it."""
    return [round(time * config.stride) for time in config.intermediate_times]


def true_times(gt: Clip, last: int, config: Config) -> list[list[float]]:
    """For every gap between key frames: the times in (0, 1) of the true frames in it, from the clip's frame times."""
    steps = intermediate_steps(config)
    return [gap_times(gt, key, config.stride, steps) for key in range(0, last, config.stride)]


def in_time_order(
    network: Network, keys: Clip, gaps: list[list[float]], size: tuple[int, int], common: dict[str, Any]
) -> Iterator[Tensor]:
    """Key and intermediate frames of a clip, whose gaps may have different times."""
    stretches = runs(gaps)
    for gap_range, times in stretches:
        wanted = range(gap_range.start, gap_range.stop + (gap_range is stretches[-1][0]))
        frames: dict[str, Any] = {} if len(stretches) == 1 else {"frames": wanted}
        yield from restore(network, keys, times=times, size=size, **frames, **common)


class Blend:
    """The baseline of space-time networks by frame number: bicubic key frames, linearly blended for intermediate frames."""

    def __init__(
        self, keys: Clip, stride: int, size: tuple[int, int], times: Mapping[int, float] | None = None
    ) -> None:
        """times: of intermediate frames, by frame number, if they do not divide their gap evenly."""
        self.bicubic, self.stride, self.times = Bicubic(keys, size), stride, times or {}

    def __call__(self, index: int) -> Tensor:
        key, rest = divmod(index, self.stride)
        return self.bicubic(key, self.times.get(index, rest / self.stride) if rest else 0.0)
