"""The job for a clip: the kind, sizes, times and settings of its output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data import frame_writer
from data.clips import Clip
from data.clips.scene import SceneClip
from data.files import sha256
from data.media import IMAGE_SUFFIXES, WRITTEN_SUFFIXES
from data.video.containers import OUTPUT_SUFFIXES
from data.video.opening import VIDEO_SUFFIXES
from engine.restore.filter_frames import reach
from engine.restore.work import key_network
from engine.upscale import targets
from engine.upscale.job import ClipJob
from engine.upscale.networks import key_weights_of
from engine.upscale.opening import NO_FOLDERS, image_suffix
from engine.upscale.request import Request
from engine.upscale.scene import SceneJob
from engine.upscale.work_folder import work_folder
from errors import InputError
from models.base import Network


def make_job(
    clip: Clip, out: Path, request: Request, network: Network, weights: Path, cuts: Sequence[int] = ()
) -> ClipJob:
    """The job for `clip`. Raises InputError for an unusable clip, before any work. cuts: frames that begin a scene."""
    kind = kind_of(out.suffix.lower(), clip)
    check_output(out, kind, request)
    size, network_size = targets.sizes(network, weights, clip, request)
    settings: dict[str, Any] = {
        "weights": sha256(weights),
        "padding": request.padding or network.padding,
        "spacing": network.spacing,
        "temporal_filter": network.temporal_filter,
        "context": request.context,
        "ensemble": request.ensemble,
        "cuts": list(cuts),
    }
    job = (SceneJob if isinstance(clip, SceneClip) else ClipJob)(
        clip=clip,
        out=out,
        kind=kind,
        size=size,
        network_size=network_size,
        timeline=targets.timeline(clip, request, cuts),
        image_suffix=out.suffix.lower() if kind == "image" else image_suffix(clip, request),
        target=targets.video_target(clip, out, request, size) if kind == "video" else None,
        compare=targets.video_target(clip, out, request, size, compare=True) if request.compare else None,
        settings=settings,
    )
    if isinstance(job, SceneJob):
        prepare_scene(job, request, network)
    if name := key_weights_of(job, network):
        job.settings["key_weights"] = sha256(weights.parent / name)
    return job


def prepare_scene(job: SceneJob, request: Request, network: Network) -> None:
    """Set the filter of a scene's job, and what its tiles and windows need to know of the network."""
    # One frame of a scene is restored at a time, so that a filter over nine frames would take nine times as long.
    form = job.settings["temporal_filter"] = request.temporal_filter or "none"
    used = key_network(network, job.clip.size, job.network_size, form) or network
    job.multiple, job.reach = network.multiple, reach(used, form, request.context)


def check_output(out: Path, kind: str, request: Request) -> None:
    """Raises InputError for an output of this kind that cannot be written, or not with the request's options."""
    suffix = out.suffix.lower()
    if str(out) == "-" and (request.compare or request.trust):
        option = "--compare" if request.compare else "--trust"
        raise InputError(f"{option} writes a file next to the output: it cannot be used with `-`")
    if kind == "frames" and (suffix in VIDEO_SUFFIXES or suffix in NO_FOLDERS):
        known = ", ".join((*OUTPUT_SUFFIXES, ".tif"))
        raise InputError(f"'{out}': cannot write {suffix} here: expected a folder, or a file as {known}")


def kind_of(suffix: str, clip: Clip) -> str:
    """Kind of an output with this suffix: "video", "stack", "image" (of one frame) or "frames" in a folder."""
    if suffix in OUTPUT_SUFFIXES:
        return "video"
    if suffix in frame_writer.STACK_SUFFIXES:
        return "stack"
    if suffix not in IMAGE_SUFFIXES:
        return "frames"
    if suffix not in WRITTEN_SUFFIXES:
        raise InputError(
            f"'{suffix}' files are read but not written: name the output {', '.join(sorted(WRITTEN_SUFFIXES))}"
        )
    if len(clip) > 1:
        raise InputError(f"clip '{clip.name}' has {len(clip)} frames, a {suffix} holds one: name a folder or a video")
    return "image"


def complete(out: Path, request: Request) -> bool:
    """With --resume, an output without a work folder is complete."""
    return request.resume and out.exists() and not work_folder(out).exists()
