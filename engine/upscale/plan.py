"""Choose the precision, tile size and number of workers of each job."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from data.clips import Clip, RegionClip, SubClip
from engine import distributed
from engine.distributed import say
from engine.restore import Options, frames_at_once, precision, restore
from engine.restore.memory import automatic_tile, free_memory
from engine.restore.work import key_network
from engine.upscale import scene_tiles
from engine.upscale.job import ClipJob
from engine.upscale.request import Request
from engine.upscale.scene import SceneJob
from models.base import Network


def choose_settings(jobs: list[ClipJob], network: Network, request: Request, device: torch.device) -> None:
    """Choose precision, tile size and number of workers, equal on all ranks. A resumed run keeps its earlier choice."""
    chosen: dict[str, Any] = {}
    if distributed.is_main():
        kept = next((job.begun_with() for job in jobs if request.resume and job.begun_with()), {})
        chosen["precision"] = request.precision
        if request.precision == "auto":
            chosen["precision"] = kept.get("precision") or choose_precision(jobs[0], network, device)
        for number, job in enumerate(jobs):
            before = job.begun_with() if request.resume else {}
            kept_tile = "tile" in before and not request.tile
            tile = before["tile"] if kept_tile else choose_tile(job, network, request, device)
            workers = before.get("workers") or choose_workers(job, network, request, tile, device)
            chosen[str(number)] = {"tile": tile, "workers": workers}
    chosen = distributed.broadcast(chosen)
    for number, job in enumerate(jobs):
        job.settings |= {"precision": chosen["precision"], **chosen[str(number)]}


def choose_precision(job: ClipJob, network: Network, device: torch.device) -> str:
    """Measure on the centre of the first frames of the first clip, with the number of workers of the actual run."""
    if isinstance(job, SceneJob):
        return measured(job, scene_tiles.middle(job, network, precision.SAMPLE), range(1), 1, network, device)
    height, width = (min(precision.SAMPLE, side) for side in job.clip.size)
    workers = frames_at_once(network, (height, width), Options(), device)
    clip = SubClip(job.clip, range(min(len(job.clip), max(3, 2 * workers))))
    frames = range(len(clip)) if workers > 1 else range(len(clip) // 2, len(clip) // 2 + 1)
    return measured(job, middle(clip, precision.SAMPLE), frames, workers, network, device)


def measured(
    job: ClipJob, sample: Clip, frames: Sequence[int], workers: int, network: Network, device: torch.device
) -> str:
    """The precision for a job, measured on a sample of its clip."""
    down, across = (out / side for out, side in zip(job.network_size, job.clip.size, strict=True))
    size = round(down * sample.size[0]), round(across * sample.size[1])
    keys = key_network(network, sample.size, size, job.settings["temporal_filter"])
    times = [0.5] if any(time for _, time in job.timeline.places) else []
    used = [*([network] if times or not keys else []), *([keys] if keys else [])]

    @cache  # the conversion of the weights is not part of the measured time
    def prepared(name: str) -> list[Network]:
        return [precision.prepare(each, name) for each in used]

    def restore_sample(name: str) -> Tensor:
        how: dict[str, Any] = {
            "device": device,
            "temporal_filter": "none",
            "frames": frames,
            "times": times,
            "size": size,
        }
        options = Options(precision=name, workers=workers)
        return torch.stack(
            [frame for each in prepared(name) for frame in restore(each, sample, **how, options=options)]
        )

    name, reason = precision.choose(restore_sample, device)
    say(reason)
    return name


def middle(clip: Clip, side: int) -> RegionClip:
    """At most `side` x `side` pixels of every frame."""
    height, width = clip.size
    h, w = min(side, height), min(side, width)
    top, left = (height - h) // 2, (width - w) // 2
    return RegionClip(clip, top, left, top + h, left + w)


def choose_tile(job: ClipJob, network: Network, request: Request, device: torch.device) -> int | None:
    """Side of the tiles in LR pixels; None: full frames."""
    if request.exact:
        return None
    if request.tile:
        return request.tile
    if isinstance(job, SceneJob):
        return scene_tiles.choose_tile(job, network, free_memory(device))
    keys = min(Options().chunk + 2 * request.context, len(job.clip))
    times = max((len(job.timeline.steps(key)) for key in range(len(job.clip))), default=0)
    key_frames_by = key_network(network, job.clip.size, job.network_size, job.settings["temporal_filter"])
    tile = automatic_tile(network, job.clip.size, device, keys, times, key_frames_by)
    if tile:
        say(f"clip '{job.clip.name}': frames of {job.clip.size[1]}x{job.clip.size[0]} in tiles of {tile} LR pixels")
    return tile


def choose_workers(job: ClipJob, network: Network, request: Request, tile: int | None, device: torch.device) -> int:
    if request.compile or isinstance(job, SceneJob) or len(job.parts) > 1:
        return 1  # parts take turns in one thread: several pools would need the memory several times
    return frames_at_once(network, job.clip.size, Options(tile=tile), device)
