"""Upscale clips: what upscale.py does. Jobs are shared out over ranks piece by piece, and every result is put
together.

A piece is a fixed stretch of a clip. Which rank makes it, before or after how many interruptions, changes nothing in
it: so the result of N processes, and of a resumed run, equals that of one undisturbed process.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import dcn
from data.bands import hint
from data.clips import Clip, RegionClip, SubClip
from data.frame_writer import check_free
from data.media import from_tensor, write_image
from engine import distributed
from engine.distributed import say
from engine.restore import Options, frames_at_once, multiple, precision, restore, tiles
from engine.restore.threads import WriteBehind
from engine.upscale import comparison
from engine.upscale.job import ClipJob
from engine.upscale.places import check_places, locked
from engine.upscale.request import Request, finished, in_between, inputs, make_job, open_clips, open_network
from errors import InputError


def upscale(request: Request) -> list[Path]:
    """Do what `request` says; every rank works, the first one writes the results. Returns the files and folders
    written.

    Raises InputError for input that cannot be used, for outputs in the way and for an output that is not finite.
    """
    device = distributed.choose_device(request.device)
    precision.check(request.precision, device)
    distributed.start(device)
    dcn.ensure_built(log=say)
    network, weights = open_network(request)
    clips = open_clips(request)
    if (dark := hint(clips[0][0].array(0))) is not None:
        say(f"clip '{clips[0][0].name}' {dark} (--limits, --percentiles)")
    times = in_between(request, network, clips[0][0])
    if request.preview is not None:
        return [preview(network, weights, clips[0], request, times, device)]
    jobs = [make_job(clip, out, request, network, times, weights) for clip, out in clips]
    jobs = [job for job in jobs if not finished(job, request)]
    if not jobs:
        say("nothing to do: every output is complete")
        return []
    check_places([place for job in jobs for place in job.places], inputs(request))
    with locked(request.out, jobs) if distributed.is_main() else nullcontext():
        return make_all(jobs, network, request, device)


def make_all(jobs: list[ClipJob], network: Any, request: Request, device: torch.device) -> list[Path]:
    """Work on all jobs and give the results their names."""
    for job in jobs if distributed.is_main() else ():
        job.check(request.resume, request.overwrite)
    plan_numbers(jobs, network, request, device)
    network = precision.prepare(network, jobs[0].facts["precision"])
    if request.compile:
        precision.compile_parts(network)
    begin(jobs, request)
    try:
        with patient_exit():
            work(jobs, network, request, device)
    except KeyboardInterrupt:
        say("interrupted: what is finished is kept; the same command with --resume goes on")
        raise
    distributed.barrier()
    written = [path for job in jobs for path in job.finish()] if distributed.is_main() else []
    distributed.stop()
    return written


# --- numbers ----------------------------------------------------------------------------------------------------------


def plan_numbers(jobs: list[ClipJob], network: Any, request: Request, device: torch.device) -> None:
    """Decide on precision, tiles and frames at once, the same for all ranks; an interrupted run goes on with what it began with."""
    chosen: dict[str, Any] = {}
    if distributed.is_main():
        kept = next((job.begun_with() for job in jobs if request.resume and job.begun_with()), {})
        chosen["precision"] = request.precision
        if request.precision == "auto":
            chosen["precision"] = kept.get("precision") or choose_precision(jobs[0], network, request, device)
        for number, job in enumerate(jobs):
            before = job.begun_with() if request.resume else {}
            kept_tile = "tile" in before and not request.tile
            tile = before["tile"] if kept_tile else choose_tile(job, network, request, device)
            workers = before.get("workers") or choose_workers(job, network, request, tile, device)
            chosen[str(number)] = {"tile": tile, "workers": workers}
    chosen = distributed.broadcast(chosen)
    for number, job in enumerate(jobs):
        job.facts |= {"precision": chosen["precision"], **chosen[str(number)]}


def choose_precision(job: ClipJob, network: Any, request: Request, device: torch.device) -> str:
    """Measured on the middle of the first frames of the first clip, with as many workers as the work will have."""
    height, width = (min(precision.SAMPLE, side) for side in job.clip.size)
    workers = frames_at_once(network, (height, width), Options(), device)
    clip = SubClip(job.clip, range(min(len(job.clip), max(3, 2 * workers))))
    frames = range(len(clip)) if workers > 1 else range(len(clip) // 2, len(clip) // 2 + 1)
    scale = job.size[0] / clip.size[0]
    sample = middle(clip, precision.SAMPLE)
    size = round(scale * sample.size[0]), round(scale * sample.size[1])
    prepared: dict[str, Any] = {}  # making them is no part of the work that is timed

    def restore_sample(name: str) -> Tensor:
        if name not in prepared:
            prepared[name] = precision.prepare(network, name)
        options = Options(precision=name, workers=workers)
        restored = restore(prepared[name], sample, device=device, frames=frames, size=size, options=options)
        return torch.stack(list(restored))

    name, reason = precision.choose(restore_sample, device)
    say(reason)
    return name


def middle(clip: Clip, side: int) -> RegionClip:
    """At most `side` x `side` pixels of every frame."""
    height, width = clip.size
    h, w = min(side, height), min(side, width)
    top, left = (height - h) // 2, (width - w) // 2
    return RegionClip(clip, top, left, top + h, left + w)


def choose_tile(job: ClipJob, network: Any, request: Request, device: torch.device) -> int | None:
    if request.exact:
        return None
    if request.tile:
        return request.tile
    keys = min(Options().chunk + 2 * request.context, len(job.clip))
    needed = tiles.bytes_per_pixel(network.config, len(job.times) or 1, keys)
    tile = tiles.automatic(job.clip.size, needed, tiles.free_memory(device), multiple(network))
    if tile:
        say(f"clip '{job.clip.name}': frames of {job.clip.size[1]}x{job.clip.size[0]} in tiles of {tile} LR pixels")
    return tile


def choose_workers(job: ClipJob, network: Any, request: Request, tile: int | None, device: torch.device) -> int:
    return 1 if request.compile else frames_at_once(network, job.clip.size, Options(tile=tile), device)


# --- the work ---------------------------------------------------------------------------------------------------------


def begin(jobs: list[ClipJob], request: Request) -> None:
    """Work folders, made by the first rank."""
    if distributed.is_main():
        for job in jobs:
            job.begin(request.resume)
    distributed.barrier()


def work(jobs: list[ClipJob], network: Any, request: Request, device: torch.device) -> None:
    """This rank's share of the pieces of all clips."""
    pieces = [(job, number) for job in jobs for number in range(job.pieces)]
    mine = pieces[distributed.rank() :: distributed.world()]
    total = sum(len(job.frames_of(number)) for job, number in mine)
    ready = sum(done(job, number) for job, number in mine)
    quiet = not distributed.is_main()
    with tqdm(total=total, initial=ready, unit="frame", disable=quiet, dynamic_ncols=True, smoothing=0.05) as bar:
        for job in jobs:
            numbers = [number for owner, number in mine if owner is job and not job.complete(number)]
            bar.set_description(job.clip.name)
            for run in runs(numbers):
                make_pieces(job, run, network, request, device, bar)


def done(job: ClipJob, number: int) -> int:
    """Finished frames of a piece."""
    indices = job.frames_of(number)
    return len(indices) if job.complete(number) else sum(job.has(index) for index in indices)


def runs(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Stretches of consecutive pieces: features are kept across their borders."""
    run: list[int] = []
    for number in numbers:
        if run and number != run[-1] + 1:
            yield run
            run = []
        run.append(number)
    if run:
        yield run


def make_pieces(
    job: ClipJob, numbers: list[int], network: Any, request: Request, device: torch.device, bar: Any
) -> None:
    """Restore what is missing of consecutive pieces; a thread converts, writes and encodes behind."""
    ends = {job.frames_of(number)[-1]: number for number in numbers}

    def write(item: tuple[int, Tensor | None]) -> None:
        index, frame = item
        if frame is not None:
            job.keep(index, frame)
            bar.update()
        if index in ends:
            job.finish_piece(ends[index])

    with WriteBehind(write) as behind:
        for index, frame in missing_frames(job, numbers, network, request, device):
            if frame is not None and not torch.isfinite(frame).all():
                raise InputError(
                    f"{job.source(index)}: the output is not finite: check the weights, or try --precision fp32"
                )
            behind.put((index, frame))


def missing_frames(
    job: ClipJob, numbers: list[int], network: Any, request: Request, device: torch.device
) -> Iterator[tuple[int, Tensor | None]]:
    """Output frames of consecutive pieces in order: restored where missing, None where finished before."""
    facts = job.facts
    options = Options(
        facts["precision"], facts["tile"], ensemble=request.ensemble, context=request.context, workers=facts["workers"]
    )
    first, last = job.frames_of(numbers[0])[0], job.frames_of(numbers[-1])[-1]
    there = {index for index in range(first, last + 1) if job.has(index)}
    keys = range(first // job.per_gap, last // job.per_gap + 1)
    incomplete = [key for key in keys if not there.issuperset(job.outputs_of(key))]
    restored: dict[int, Iterator[Tensor]] = {}
    for run in runs(incomplete):
        frames = restore(network, job.clip, device=device, padding=request.padding, frames=range(run[0], run[-1] + 1),
                         times=job.times, size=job.size, options=options, note=say)  # fmt: skip
        restored |= dict.fromkeys(run, frames)
    for key in keys:
        for index in job.outputs_of(key):
            frame = next(restored[key]) if key in restored else None
            yield index, None if index in there else frame


@contextmanager
def patient_exit() -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does: what is finished is written, and resumed later."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def preview(
    network: Any,
    weights: Path,
    clip_and_out: tuple[Clip, Path],
    request: Request,
    times: Sequence[float],
    device: torch.device,
) -> Path:
    """One frame, bicubic beside ours, as PNG: for a look before the long work."""
    clip, out = clip_and_out
    index = request.preview if request.preview is not None and request.preview >= 0 else len(clip) // 2
    if index >= len(clip):
        raise InputError(f"--preview {index}: clip '{clip.name}' has frames 0 to {len(clip) - 1}")
    job = make_job(clip, out.with_suffix(""), request, network, times, weights)
    path = out if out.suffix.lower() == ".png" else out.with_name(f"{out.stem or out.name}_preview.png")
    check_places([path], inputs(request))
    check_free(path, "preview", request.overwrite)
    name = "fp32" if request.precision == "auto" else request.precision
    options = Options(
        name, choose_tile(job, network, request, device), ensemble=request.ensemble, context=request.context
    )
    ours = next(restore(network, clip, device=device, padding=request.padding, frames=range(index, index + 1),
                        times=times, size=job.size, options=options, note=say))  # fmt: skip
    bicubic = comparison.Bicubic(clip, job.size)(index, 0.0)
    write_image(path, from_tensor(torch.cat([bicubic, ours], dim=-1), np.dtype(np.uint8)))
    return path
