"""Upscale clips, for upscale.py: share the pieces of all jobs among the ranks and join them to results.

A piece is a fixed range of frames. Its content depends neither on the rank that makes it nor on interruptions, so the result
of N processes, or of a resumed run, equals that of one uninterrupted process.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import dcn
from data import tiff
from data.bands import hint
from data.baseline import Bicubic
from data.clips import Clip, FolderClip, RegionClip, SubClip, TiffStackClip, VideoClip
from data.clips.scene import SceneClip
from data.frame_writer import STACK_SUFFIXES, check_free
from data.media import from_tensor, write_image
from data.scenes import scene_cuts
from engine import distributed
from engine.checkpoint import released_for
from engine.distributed import say
from engine.restore import Options, frames_at_once, precision, restore, tiles
from engine.restore.pipeline import bytes_per_pixel
from engine.restore.threads import WriteBehind
from engine.upscale import pipe, quality, scene, targets
from engine.upscale.failures import Failures
from engine.upscale.job import ClipJob
from engine.upscale.outputs import fitted, missing_frames, runs
from engine.upscale.places import check_places, locked
from engine.upscale.request import Request, complete, inputs, make_job, open_clips, open_network
from engine.upscale.scene import SceneJob
from engine.upscale.trust import check_trust, write_trust
from errors import InputError
from models.base import Network

HEARTBEAT = 10.0  # seconds between refreshes of the progress bar


def upscale(request: Request) -> list[Path]:
    """Upscale as `request` asks. All ranks restore frames, rank 0 writes the results. Returns the written paths.

    Raises InputError for unusable input, for outputs that already exist and for network output that is not finite.
    """
    device = distributed.choose_device(request.device)
    precision.check(request.precision, device)
    distributed.start(device)
    dcn.ensure_built(log=say)
    with pipe.spooled(request) as request:
        return upscale_files(request, device)


def upscale_files(request: Request, device: torch.device) -> list[Path]:
    """`upscale` for inputs that are files. An unusable clip of a folder does not stop the others."""
    failures = Failures(several=False)
    clips = open_clips(request, failures)
    total = len(clips) + len(failures.errors)
    if not clips:
        failures.close(total)
    network, weights = open_network(request, clips[0][0].size, is_lossy(clips[0][0], request))
    for line in remarks([clip for clip, _ in clips]):
        say(line)
    request = targets.preview_range(clips[0][0], clips[0][1], request)
    clips = [
        (targets.cut_to_range(clip, request), request.out if request.preview_seconds else out) for clip, out in clips
    ]
    tell(clips)
    if request.preview is not None:
        return [preview(network, weights, clips[0], request, device)]
    jobs: list[ClipJob] = []
    for clip, out in clips:
        with failures.of(clip.name):
            if not complete(out, request):
                jobs.append(make_job(clip, out, request, network, weights, find_cuts(clip, request)))
    if jobs and pipe.is_pipe(request.out):
        plan_numbers(jobs, network, request, device)
        return pipe.write(jobs[0], precision.prepare(network, jobs[0].facts["precision"]), request, device)
    check_places([place for job in jobs for place in job.places], inputs(request))
    for job in jobs if request.trust else ():
        check_trust(job, request)
    with locked(request.out, jobs) if distributed.is_main() else nullcontext():
        written = make_all(jobs, network, request, device, failures)
        if request.trust and distributed.is_main():
            network = precision.prepare(network, jobs[0].facts["precision"]) if written else network
            written += [write_trust(job, network, request, device) for job in jobs if job.out in written]
    distributed.stop()
    failures.close(total)
    return written


def make_all(
    jobs: list[ClipJob], network: Network, request: Request, device: torch.device, failures: Failures
) -> list[Path]:
    """Process all jobs and rename the results into place."""
    usable = [check_job(job, request, failures) for job in jobs] if distributed.is_main() else []
    jobs = [job for job, good in zip(jobs, distributed.broadcast(usable), strict=True) if good]
    if not jobs:
        if not failures.errors:
            say("nothing to do: every output is complete")
        return []
    plan_numbers(jobs, network, request, device)
    network = precision.prepare(network, jobs[0].facts["precision"])
    if request.compile:
        precision.compile_parts_(network)
    begin(jobs, request)
    try:
        with patient_exit():
            work(jobs, network, request, device, failures)
    except KeyboardInterrupt:
        say("interrupted: what is finished is kept; the same command with --resume goes on")
        raise
    distributed.barrier()
    return [path for job in jobs for path in finish(job, failures)] if distributed.is_main() else []


def check_job(job: ClipJob, request: Request, failures: Failures) -> bool:
    """Whether a job is possible; prints which properties of the source the result loses."""
    with failures.of(job.clip.name):
        job.check(request.resume, request.overwrite)
        job.check_formats()
        for note in filter(None, (*job.notes, targets.shape_note(job.clip, job.size))):
            say(note)
        return True
    return False


def finish(job: ClipJob, failures: Failures) -> list[Path]:
    """The finished files, except those of jobs that failed in this or another process."""
    with failures.of(job.clip.name):
        if not all(job.complete(number) for number in job.pieces):
            raise InputError(f"clip '{job.clip.name}' is incomplete: go on with --resume")
        return job.finish()
    return []


# --- properties of the clips ------------------------------------------------------------------------------------------


def tell(clips: Sequence[tuple[Clip, Path]]) -> None:
    """Print the readers' notes on the video files: damage, cuts, interlacing."""
    for clip, _ in clips:
        base = targets.base_of(clip)
        for note in base.video.notes if isinstance(base, VideoClip) else ():
            say(f"clip '{clip.name}': {note}")


def find_cuts(clip: Clip, request: Request) -> list[int]:
    """Detect and print the first frames of scenes, on rank 0; empty if the request disables scene detection."""
    if not request.scenes or len(clip) < 2:
        return []
    cuts = distributed.broadcast(scene_cuts(clip) if distributed.is_main() else [])
    if cuts:
        times, _ = targets.key_times(clip, request)
        named = ", ".join(f"{times[cut]:.2f} s" for cut in cuts[:8]) + (" ..." if len(cuts) > 8 else "")
        say(
            f"clip '{clip.name}': {len(cuts)} scene cut(s) at {named}: nothing reaches across them (--no-scenes: it does)"
        )
    return cuts


def has_holes(clip: Clip) -> bool:
    """Whether the first file of a clip is a TIFF that declares missing values (nodata or a mask)."""
    path = clip.path if isinstance(clip, TiffStackClip) else clip.paths[0] if isinstance(clip, FolderClip) else None
    return path is not None and path.suffix.lower() in STACK_SUFFIXES and tiff.describe(path).holes


def remarks(clips: Sequence[Clip]) -> Iterator[str]:
    """Notes on the conversion of stored values: for every scene, and for the first of the other clips."""
    for clip in clips:
        if isinstance(clip, SceneClip) and clip.stretched:
            yield clip.stretched
        if has_holes(targets.base_of(clip)):
            yield (
                f"clip '{clip.name}' says that values are missing (nodata or a mask), but is restored as if they were measured; "
                "GeoTIFFs that become GeoTIFFs keep their holes once rasterio is installed (requirements-geo.txt)"
            )
    if not isinstance(clips[0], SceneClip) and (dark := hint(clips[0].array(0))) is not None:
        yield f"clip '{clips[0].name}' {dark} (--limits, --percentiles)"


def is_lossy(clip: Clip, request: Request) -> bool:
    """Whether to use the weights for compressed sources; prints the choice if the clip decides it."""
    if request.quality != "auto":
        return request.quality == "compressed"
    lost = None if request.weight else quality.loss(clip)
    if lost is None:
        return False
    if released_for(request.scale) != released_for(request.scale, lossy=True) and not (request.fps or request.times):
        say(f"'{clip.name}' is {lost}: upscaled with weights for compressed sources (--quality clean: with the others)")
    return True


# --- numbers ----------------------------------------------------------------------------------------------------------


def plan_numbers(jobs: list[ClipJob], network: Network, request: Request, device: torch.device) -> None:
    """Choose precision, tile size and number of workers, equal on all ranks. A resumed run keeps its earlier choice."""
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


def choose_precision(job: ClipJob, network: Network, request: Request, device: torch.device) -> str:
    """Measure on the centre of the first frames of the first clip, with the number of workers of the actual run."""
    if isinstance(job, SceneJob):
        return measured(job, scene.middle(job, network, precision.SAMPLE), range(1), 1, network, device)
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
    prepared: dict[str, Network] = {}  # cached: the conversion of the weights is not part of the measured time

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


def choose_tile(job: ClipJob, network: Network, request: Request, device: torch.device) -> int | None:
    if request.exact:
        return None
    if request.tile:
        return request.tile
    if isinstance(job, SceneJob):
        return scene.choose_tile(job, network, request.tile, tiles.free_memory(device))
    keys = min(Options().chunk + 2 * request.context, len(job.clip))
    between = max((len(job.timeline.steps(key)) for key in range(len(job.clip))), default=0)
    needed = bytes_per_pixel(network, keys, between or 1)
    tile = tiles.automatic(job.clip.size, needed, tiles.free_memory(device), network.multiple)
    if tile:
        say(f"clip '{job.clip.name}': frames of {job.clip.size[1]}x{job.clip.size[0]} in tiles of {tile} LR pixels")
    return tile


def choose_workers(job: ClipJob, network: Network, request: Request, tile: int | None, device: torch.device) -> int:
    if request.compile or isinstance(job, SceneJob):
        return 1
    return frames_at_once(network, job.clip.size, Options(tile=tile), device)


# --- the work ---------------------------------------------------------------------------------------------------------


def begin(jobs: list[ClipJob], request: Request) -> None:
    """Create the work folders on rank 0."""
    if distributed.is_main():
        for job in jobs:
            job.begin(request.resume)
    distributed.barrier()


def work(jobs: list[ClipJob], network: Network, request: Request, device: torch.device, failures: Failures) -> None:
    """This rank's share of the pieces of all clips."""
    pieces = [(job, number) for job in jobs for number in job.pieces]
    mine = pieces[distributed.rank() :: distributed.world()]
    total = sum(len(job.frames_of(number)) for job, number in mine)
    ready = sum(done(job, number) for job, number in mine)
    quiet = not distributed.is_main()
    with progress_bar(total, ready, quiet) as bar:
        for job in jobs:
            numbers = [number for owner, number in mine if owner is job and not job.complete(number)]
            bar.set_description(job.clip.name)
            with failures.of(job.clip.name):
                for run in runs(numbers):
                    make_pieces(job, run, network, request, device, bar)


@contextmanager
def progress_bar(total: int, ready: int, quiet: bool) -> Iterator[Any]:
    """A progress bar of frames. A thread refreshes it, so the elapsed time advances during a large frame."""
    over = threading.Event()
    with tqdm(total=total, initial=ready, unit="frame", disable=quiet, dynamic_ncols=True, smoothing=0.05) as bar:

        def beat() -> None:
            while not over.wait(HEARTBEAT):
                bar.refresh()

        thread = threading.Thread(target=beat, name="progress", daemon=True)
        if not quiet:
            thread.start()
        try:
            yield bar
        finally:
            over.set()
            if thread.is_alive():
                thread.join()


def show_tile(bar: Any, done: int, tiles_of_frame: int) -> None:
    """Show the number of finished tiles of the current frame after the bar."""
    bar.set_postfix_str(f"tile {done} of {tiles_of_frame}", refresh=True)


def done(job: ClipJob, number: int) -> int:
    """Number of finished frames of a piece."""
    indices = job.frames_of(number)
    return len(indices) if job.complete(number) else sum(job.has(index) for index in indices)


def make_pieces(
    job: ClipJob, numbers: list[int], network: Network, request: Request, device: torch.device, bar: Any
) -> None:
    """Restore the missing frames of consecutive pieces; a thread converts, writes and encodes them."""
    if isinstance(job, SceneJob):
        options = Options(job.facts["precision"], None, ensemble=request.ensemble, workers=1)
        return scene.make_pieces(job, numbers, network, options, device, bar)
    ends = {job.frames_of(number)[-1]: number for number in numbers}

    def write(item: tuple[int, Tensor | None]) -> None:
        index, frame = item
        if frame is not None:
            job.keep(index, frame)
            bar.update()
        if index in ends:
            job.finish_piece(ends[index])

    with WriteBehind(write) as behind:
        tell_tile = partial(show_tile, bar)
        for index, frame in missing_frames(job, numbers, network, request, device, tell_tile):
            if frame is not None and not torch.isfinite(frame).all():
                raise InputError(
                    f"{job.source(index)}: the output is not finite: check the weights, or try --precision fp32"
                )
            behind.put((index, frame))


@contextmanager
def patient_exit() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C: write the finished frames, so that the run can be resumed."""

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
    network: Network,
    weights: Path,
    clip_and_out: tuple[Clip, Path],
    request: Request,
    device: torch.device,
) -> Path:
    """Write one frame, bicubic and ours side by side, as PNG: a preview before a long run."""
    clip, out = clip_and_out
    index = request.preview if request.preview is not None and request.preview >= 0 else len(clip) // 2
    if index >= len(clip):
        raise InputError(f"--preview {index}: clip '{clip.name}' has frames 0 to {len(clip) - 1}")
    job = make_job(clip, out.with_suffix(""), replace(request, compare=False), network, weights)
    path = out if out.suffix.lower() == ".png" else out.with_name(f"{out.stem or out.name}_preview.png")
    check_places([path], inputs(request))
    check_free(path, "preview", request.overwrite)
    name = "fp32" if request.precision == "auto" else request.precision
    options = Options(
        name, choose_tile(job, network, request, device), ensemble=request.ensemble, context=request.context
    )
    ours = next(restore(network, clip, device=device, padding=request.padding, frames=range(index, index + 1),
                        times=(), size=job.network_size, options=options, note=say))  # fmt: skip
    ours = fitted(ours, job.size)
    bicubic = Bicubic(clip, job.size)(index, 0.0)
    write_image(path, from_tensor(torch.cat([bicubic, ours], dim=-1), np.dtype(np.uint8)))
    return path
