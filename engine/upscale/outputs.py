"""The output frames of a job in order, restored scene by scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from data.clips import SubClip
from data.degrade import imresize
from engine.distributed import say
from engine.restore import Options, restore
from engine.upscale.job import ClipJob
from engine.upscale.request import Request
from models.base import Network


def runs(numbers: Sequence[int], cuts: Sequence[int] = ()) -> Iterator[list[int]]:
    """Split into runs of consecutive numbers that do not cross any of `cuts`. Features are reused within a run."""
    run: list[int] = []
    for number in numbers:
        if run and (number != run[-1] + 1 or number in cuts):
            yield run
            run = []
        run.append(number)
    if run:
        yield run


def missing_frames(
    job: ClipJob,
    numbers: list[int],
    network: Network,
    request: Request,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[int, Tensor | None]]:
    """Output frames of consecutive pieces in order: restored if missing, None if already finished."""
    first, last = job.frames_of(numbers[0])[0], job.frames_of(numbers[-1])[-1]
    there = {index for index in range(first, last + 1) if job.has(index)}
    keys = [key for number in numbers for key in job.keys_of(number) if len(job.outputs_of(key))]
    incomplete = [key for key in keys if not there.issuperset(job.outputs_of(key))]
    restored: dict[int, Iterator[Tensor]] = {}
    for run in runs(incomplete, job.timeline.cuts):
        restored |= dict.fromkeys(run, restored_keys(job, run, network, request, device, progress))
    for key in keys:
        made = {}
        if key in restored:
            steps = [0.0, *(job.timeline.steps(key) if network.space_time else ())]
            made = {step: fitted(next(restored[key]), job.size) for step in steps}
        for index in job.outputs_of(key):
            yield index, None if index in there else made[job.place(index)[1]]


def restored_keys(
    job: ClipJob,
    run: list[int],
    network: Network,
    request: Request,
    device: torch.device,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Tensor]:
    """Restore consecutive key frames of one scene; yields each with the intermediate frames after it: (3, H, W), or of a clip
    with several parts (3 * parts, H, W).
    """
    settings, line, scene = job.settings, job.timeline, job.timeline.scene(run[0])
    options = Options(
        settings["precision"],
        settings["tile"],
        ensemble=request.ensemble,
        context=request.context,
        workers=settings["workers"],
    )
    times: Sequence[Any] = [line.steps(key) for key in scene[:-1]]
    times = times[0] if times and all(steps == times[0] for steps in times[1:]) else times
    parts = [
        restore(
            network, SubClip(part, scene) if line.cuts else part, device=device, padding=request.padding,
            frames=range(run[0] - scene[0], run[-1] + 1 - scene[0]), times=times, size=job.network_size, options=options,
            note=say, progress=progress,
        )
        for part in job.parts
    ]  # fmt: skip
    return parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))


def fitted(frame: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample a frame (3, H, W) to `size` if the network's output size differs."""
    return frame if tuple(frame.shape[-2:]) == size else imresize(frame, size=size)
