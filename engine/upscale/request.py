"""Turn a request into a network, clips and jobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data import frame_writer
from data.clips import Clip
from data.clips.files import image_files
from data.clips.scene import SceneClip, join_series, open_scene
from data.files import resolved, sha256
from data.media import (
    IMAGE_SUFFIXES,
    WRITTEN_SUFFIXES,
    probe,
)
from data.naming import check_distinct
from data.raster import is_scene
from data.video.containers import OUTPUT_SUFFIXES
from data.video.opening import VIDEO_SUFFIXES
from engine.checkpoint import for_lossy, load_key_networks_, load_network, released_for, set_setting
from engine.distributed import say
from engine.restore.filter_frames import reach
from engine.restore.work import key_network
from engine.upscale import comparison, targets
from engine.upscale.failures import Failures
from engine.upscale.job import ClipJob
from engine.upscale.members import Member, clips_below, find_members, is_single
from engine.upscale.opening import NO_FOLDERS, image_suffix, is_folder_name, open_clip, open_frames, stretched
from engine.upscale.options import Request
from engine.upscale.output_paths import check_places
from engine.upscale.scene import SceneJob
from engine.upscale.work_folder import work_folder
from errors import InputError
from models.base import Network, SpaceTimeNetwork


def open_network(request: Request, lr: tuple[int, int] | None = None, lossy: bool = False) -> tuple[Network, Path]:
    """The network and its file: the requested weights, or the small released ones for the job.

    These are MTDO's, whose frames are resized for scales without weights, and STNO's for intermediate frames.
    lr: (h, w) of the smallest clip, for `--size`. lossy: whether the source is compressed.
    """
    intermediate = bool(request.fps or request.times)
    if request.size and request.scale is not None:
        raise InputError("--size and --scale both set the output size: give one of them")
    requested = targets.needed_scale(request, lr)
    path = request.weight or released_for(requested, space_time=True if intermediate else None, lossy=lossy)
    network = load_network(path, key_networks=False)
    if intermediate and not network.space_time:
        raise InputError(
            f"'{path}' holds {network.config.name.upper()} weights, which make no intermediate frames: leave --fps and "
            "--times out, or use STNO weights"
        )
    for key in ("spacing", "temporal_filter", "key_weights"):
        if getattr(request, key) is not None:
            set_setting(network, key, getattr(request, key), path)
    open_key_networks_(network, path, lossy and not request.weight and request.key_weights is None)
    if not (request.weight or network.space_time or requested in (None, network.config.scale)):
        say(
            f"no weights for x{requested:.3g}: frames are restored at x{network.config.scale} with '{path.name}' and resized"
        )
    return network, path


def open_key_networks_(network: Network, path: Path, lossy: bool) -> None:
    """Load the networks that restore the key frames of a space-time network. lossy: those for compressed sources."""
    if isinstance(network, SpaceTimeNetwork) and network.key_weights:
        if lossy:
            network.set_restore_settings({"key_weights": [for_lossy(name) for name in network.key_weights]})
        load_key_networks_(network, path)


def key_weights_of(job: ClipJob, network: Network) -> str | None:
    """The file of the network that restores the key frames of a job, if there is one."""
    used = key_network(network, job.clip.size, job.network_size, job.settings["temporal_filter"])
    if used is None or not isinstance(network, SpaceTimeNetwork):
        return None
    names = zip(network.key_weights, network.key_networks, strict=True)
    return next(name for name, each in names if each is used)


def open_clips(request: Request, failures: Failures) -> list[tuple[Clip, Path]]:
    """The clip in the source, or all clips of a folder of clips, each with its output. Members that cannot be read are
    `failures`.
    """
    source, out = request.source, request.out
    if not source.exists():
        raise InputError(f"'{source}' does not exist: expected a video, a TIFF stack, a folder of frames or of clips")
    if not (source.is_file() or source.is_dir()):
        raise InputError(f"'{source}' is a pipe or a device: expected a file or a folder, or - for standard input")
    check_places([out], inputs(request))
    suffix = f".{request.image_format or 'png'}"
    members = (
        None if source.is_file() else find_members(source, out, request.stills, suffix, say, needs_one_clip(request))
    )
    pictures = image_files(source) if members is None and source.is_dir() else []
    if series := open_series_for(pictures, out, request, failures):
        return series
    if members is None:
        return [open_scene_for(source, out, request) or (open_clip(source, out, request, failures), out)]
    if str(out) == "-" or out.suffix.lower() in (*OUTPUT_SUFFIXES, *IMAGE_SUFFIXES):
        raise InputError(
            f"'{source}' is a folder of clips ({len(members)}): name an output folder, or one clip as the input of '{out.name}'"
        )
    check_members(source, members, request.compare, request.out)
    failures.several = len(members) > 1
    clips: list[tuple[Clip, Path]] = []
    for member in members:
        with failures.of(member.output if member.frames else member.path.name):
            place = out / member.output
            if series := open_series_for(member.frames, place, request, failures):
                clips += series
                continue
            clips.append(
                open_scene_for(member.path, place, request) or (open_member(member, place, request, failures), place)
            )
    return clips


def needs_one_clip(request: Request) -> bool:
    """Whether a request makes sense only for frames that belong together."""
    parts = request.begin is not None or request.end is not None or request.preview_seconds is not None
    return bool(parts or request.fps or request.times or request.input_fps) or is_single(request.out)


def open_member(member: Member, out: Path, request: Request, failures: Failures) -> Clip:
    if member.problem:
        raise InputError(member.problem)
    if not member.frames:
        return open_clip(member.path, out, request, failures)
    return stretched(open_frames(member.frames, Path(member.output).name, out, request, failures), out, request)


def inputs(request: Request) -> list[Path]:
    """Input paths that must not be overwritten. For a folder of clips these are the clips: results may go into a new folder in it."""
    source, weights = request.source, [request.weight] if request.weight else []
    clips = (
        list(clips_below(source, request.out)) if source.is_dir() and resolved(source) != resolved(request.out) else []
    )
    return [*([*clips, *image_files(source)] if clips else [source]), *weights]


def open_scene_for(path: Path, out: Path, request: Request) -> tuple[Clip, Path] | None:
    """A GeoTIFF that can be read in windows and its GeoTIFF output; else None."""
    into_folder = is_folder_name(out) and request.image_format in (None, "tif")
    if not (out.suffix.lower() in frame_writer.STACK_SUFFIXES or into_folder) or request.compare:
        return None
    if request.preview is not None or not path.is_file() or not is_scene(path):
        return None
    scene = open_scene(path, request.stretch(), request.input_fps)
    scene.limits  # noqa: B018 - read now, so that damage is an error of this clip
    return scene, out / f"{path.stem}.tif" if into_folder else out


def open_series_for(
    paths: Sequence[Path], out: Path, request: Request, failures: Failures
) -> list[tuple[Clip, Path]] | None:
    """GeoTIFFs of one place that hold measured data, and their outputs in the folder `out`; None for other frames. Damaged ones
    are `failures`.
    """
    times = request.fps or request.times or request.begin is not None or request.end is not None
    pictures = request.compare or request.preview is not None or request.image_format not in (None, "tif")
    if times or pictures or not is_folder_name(out) or not any(map(is_scene, paths)):
        return None
    bad: dict[Path, InputError] = {}
    scenes: list[SceneClip] = []
    for path in paths:
        try:
            if not is_scene(path) and probe(path):
                return None
            scenes.append(open_scene(path, request.stretch(), request.input_fps))
        except InputError as error:
            bad[path] = error
    if all(scene.info.plain for scene in scenes):
        return None
    check_members(paths[0].parent, [Member(path, f"{path.stem}.tif") for path in paths], False, out)
    series = join_series(scenes, bad.__setitem__)
    failures.several = True
    for path, reason in bad.items():
        with failures.of(path.name):
            raise reason
    if len(series) > 1:
        say(
            f"'{paths[0].parent}': the scenes differ in size, type, bands or reference system: scenes of different kinds do not "
            "influence each other"
        )
    usable = {scene.path for group in series for scene in group}
    return [(scene, out / f"{scene.path.stem}.tif") for scene in scenes if scene.path in usable]


def check_members(source: Path, members: Sequence[Member], compare: bool, out: Path) -> None:
    """Raises InputError if two clips of a folder would be written to one file of the folder `out`."""
    owners: dict[Path, Path] = {}
    for member in members:
        name = Path(member.output)
        for written in (name, comparison.comparison_path(name)) if compare else (name,):
            if written in owners:
                raise InputError(
                    f"'{source}': '{owners[written].name}' and '{member.path.name}' would both be written to '{written}': "
                    "rename one of them, or upscale them one by one"
                )
            owners[written] = member.path
    by_folder: dict[Path, set[str]] = {}
    for member in members:
        for place in (Path(member.output), *Path(member.output).parents[:-1]):
            by_folder.setdefault(out / place.parent, set()).add(place.name)
    for folder, names in by_folder.items():
        check_distinct(folder, sorted(names))


def make_job(
    clip: Clip, out: Path, request: Request, network: Network, weights: Path, cuts: Sequence[int] = ()
) -> ClipJob:
    """The job for `clip`. Raises InputError for an unusable clip, before any work. cuts: frames that begin a scene."""
    suffix = out.suffix.lower()
    if str(out) == "-" and (request.compare or request.trust):
        option = "--compare" if request.compare else "--trust"
        raise InputError(f"{option} writes a file next to the output: it cannot be used with `-`")
    kind = kind_of(suffix, clip)
    if kind == "frames" and (suffix in VIDEO_SUFFIXES or suffix in NO_FOLDERS):
        known = ", ".join((*OUTPUT_SUFFIXES, ".tif"))
        raise InputError(f"'{out}': cannot write {suffix} here: expected a folder, or a file as {known}")
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
        image_suffix=suffix if kind == "image" else image_suffix(clip, request),
        target=targets.video_target(clip, out, request, size) if kind == "video" else None,
        compare=targets.video_target(clip, out, request, size, compare=True) if request.compare else None,
        settings=settings,
    )
    if isinstance(job, SceneJob):
        job.multiple = network.multiple
        # One frame of a scene is restored at a time, so that a filter over nine frames would take nine times as long.
        job.settings["temporal_filter"] = request.temporal_filter or "none"
        form = job.settings["temporal_filter"]
        job.reach = reach(key_network(network, clip.size, network_size, form) or network, form, request.context)
    if name := key_weights_of(job, network):
        job.settings["key_weights"] = sha256(weights.parent / name)
    return job


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
