"""Upscale clips, for upscale.py: share the pieces of all jobs among the ranks and join them to results.

A piece is a fixed range of frames. Its content depends neither on the rank that makes it nor on interruptions, so the result
of N processes, or of a resumed run, equals that of one uninterrupted process.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dcn
from data.clips import Clip
from data.files import remove, unfinished_next_to
from engine import distributed
from engine.distributed import say
from engine.interrupts import patient_exit
from engine.restore import Options, precision
from engine.restore.threads import WriteBehind
from engine.upscale import pipe, scene_tiles, targets
from engine.upscale.failures import Failures
from engine.upscale.inputs import input_paths, open_clips
from engine.upscale.job import ClipJob
from engine.upscale.members import mark_results
from engine.upscale.networks import key_weights_of, open_network
from engine.upscale.new_job import complete, make_job
from engine.upscale.output_paths import check_places, locked
from engine.upscale.outputs import missing_frames, runs
from engine.upscale.plan import choose_settings
from engine.upscale.preview import preview
from engine.upscale.progress import progress_bar, show_tile
from engine.upscale.relations import some
from engine.upscale.remarks import find_cuts, is_lossy, remarks, tell
from engine.upscale.request import Request
from engine.upscale.scene import SceneJob
from engine.upscale.trust import check_trust, write_trust
from engine.upscale.work_folder import work_folder
from errors import InputError, one_line
from models.base import Network


def upscale(request: Request) -> list[Path]:
    """Upscale as `request` asks. All ranks restore frames, rank 0 writes the results. Returns the written paths.

    Raises InputError for unusable input, for outputs that already exist and for network output that is not finite.
    """
    pipe.check_preview(request)
    device = distributed.choose_device(request.device)
    precision.check(request.precision, device)
    distributed.start(device)
    if note := precision.slow(request.precision, device):
        say(note)
    dcn.ensure_built(log=say)
    with patient_exit(), pipe.spooled(request) as request:
        return upscale_files(request, device)


def upscale_files(request: Request, device: torch.device) -> list[Path]:
    """`upscale` for inputs that are files. An unusable clip of a folder does not stop the others."""
    failures = Failures(several=False)
    clips = open_clips(request, failures)
    total = len(clips) + len(failures.errors)
    if not clips:
        failures.close(total)
    heights, widths = zip(*(clip.size for clip, _ in clips), strict=True)
    network, weights = open_network(request, (min(heights), min(widths)), is_lossy(clips[0][0], request))
    for line in remarks([clip for clip, _ in clips]):
        say(line)
    request = targets.preview_range(clips[0][0], clips[0][1], request)
    clips = [
        (targets.cut_to_range(clip, request), request.out if request.preview_seconds else out) for clip, out in clips
    ]
    tell(clips)
    if request.preview is not None:
        return [preview(network, weights, clips[0], request, device)]
    jobs = unfinished_jobs(clips, request, network, weights, failures)
    if jobs and pipe.is_pipe(request.out):
        choose_settings(jobs, network, request, device)
        return pipe.write(jobs[0], precision.prepare(network, jobs[0].settings["precision"]), request, device)
    jobs = [job for job in jobs if are_safe(job, input_paths(request), failures)]
    for job in jobs if request.trust else ():
        check_trust(job, request)
    with locked(request.out, jobs) if distributed.is_main() else nullcontext():
        written = make_all(jobs, network, request, device, failures)
        if request.trust and distributed.is_main():
            network = precision.prepare(network, jobs[0].settings["precision"]) if written else network
            for job in [job for job in jobs if job.out in written]:
                written.append(write_trust(job, network, request, device))
                job.close()
    if distributed.is_main():
        mark_results(request.source, request.out)
    distributed.stop()
    failures.close(total)
    return written


def unfinished_jobs(
    clips: Sequence[tuple[Clip, Path]], request: Request, network: Network, weights: Path, failures: Failures
) -> list[ClipJob]:
    """The jobs of clips whose outputs are not complete yet."""
    jobs: list[ClipJob] = []
    kept: list[str] = []
    for clip, out in clips:
        with failures.of(clip.name):
            if complete(out, request):
                remove(unfinished_next_to(work_folder(out)))  # of a process that was killed while it removed the folder
                kept += [out.name] if request.overwrite else []
            else:
                jobs.append(make_job(clip, out, request, network, weights, find_cuts(clip, request)))
    if name := next(filter(None, (key_weights_of(job, network) for job in jobs)), None):
        say(f"the frames of the source are restored with '{name}', new frames with '{weights.name}'")
    if kept:
        say(f"{some(kept)}: nothing to resume, taken as complete (without --resume, --overwrite makes it again)")
    return jobs


def are_safe(job: ClipJob, sources: Sequence[Path], failures: Failures) -> bool:
    """Whether a job's outputs can be written without harm to an input."""
    with failures.of(job.clip.name):
        check_places(job.places, sources)
        return True
    return False


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
    choose_settings(jobs, network, request, device)
    network = precision.prepare(network, jobs[0].settings["precision"])
    if request.compile:
        precision.compile_parts_(network)
    begin(jobs, request)
    try:
        work(jobs, network, request, device, failures)
        distributed.barrier()
        written = [path for job in jobs for path in finish(job, request, failures)] if distributed.is_main() else []
    except KeyboardInterrupt:
        say("interrupted: finished parts are kept; continue with the same command and --resume")
        leave(jobs)
        raise
    except InputError as error:
        raise InputError("; ".join([str(error), *leave(jobs)])) from error
    except BaseException:
        leave(jobs)
        raise
    for remark in leave([job for job in jobs if job.out not in written]):
        say(remark)
    return written


def leave(jobs: list[ClipJob]) -> list[str]:
    """Remove the work folders of failed jobs that have no finished parts; names the others."""
    if distributed.world() > 1:
        return []  # other processes may still write
    return [remark for job in jobs if job.work.exists() and (remark := job.leave())]


def check_job(job: ClipJob, request: Request, failures: Failures) -> bool:
    """Whether a job is possible; prints which properties of the source the result loses."""
    with failures.of(job.clip.name):
        job.check(request.resume, request.overwrite)
        job.check_formats()
        for note in filter(None, (*job.notes, targets.shape_note(job.clip, job.size))):
            say(note)
        return True
    return False


def finish(job: ClipJob, request: Request, failures: Failures) -> list[Path]:
    """The finished files, except those of jobs that failed in this or another process."""
    with failures.of(job.clip.name):
        if not all(job.complete(number) for number in job.pieces):
            raise InputError(f"clip '{job.clip.name}' is incomplete: continue with --resume")
        written = job.finish()
        if (begun := job.begun_with()) and job.source_changed(begun["source"]):
            failures.changed.append(job.out.name)
        if not request.trust:  # whose maps are made from the finished result
            job.close()
        return written
    return []


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
            bar.set_description(one_line(job.clip.name))
            with failures.of(job.clip.name):
                for run in runs(numbers):
                    make_pieces(job, run, network, request, device, bar)


def done(job: ClipJob, number: int) -> int:
    """Number of finished frames of a piece."""
    indices = job.frames_of(number)
    return len(indices) if job.complete(number) else sum(job.has(index) for index in indices)


def make_pieces(
    job: ClipJob, numbers: list[int], network: Network, request: Request, device: torch.device, bar: Any
) -> None:
    """Restore the missing frames of consecutive pieces; a thread converts, writes and encodes them."""
    if isinstance(job, SceneJob):
        options = Options(job.settings["precision"], None, ensemble=request.ensemble, workers=1)
        return scene_tiles.make_pieces(job, numbers, network, options, device, bar)
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
