"""The clips of a request, each with its output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data import frame_writer
from data.clips import Clip
from data.clips.files import image_files
from data.clips.scene import SceneClip, join_series, open_scene
from data.files import resolved
from data.media import IMAGE_SUFFIXES, probe
from data.naming import check_distinct
from data.raster import is_scene
from data.video.containers import OUTPUT_SUFFIXES
from engine.distributed import say
from engine.upscale import comparison
from engine.upscale.failures import Failures
from engine.upscale.members import Member, clips_below, find_members, is_single
from engine.upscale.opening import is_folder_name, open_clip, open_frames, stretched
from engine.upscale.output_paths import check_places
from engine.upscale.request import Request
from errors import InputError


def open_clips(request: Request, failures: Failures) -> list[tuple[Clip, Path]]:
    """The clip in the source, or all clips of a folder of clips, each with its output. Members that cannot be read are
    `failures`.
    """
    source, out = request.source, request.out
    if not source.exists():
        raise InputError(f"'{source}' does not exist: expected a video, a TIFF stack, a folder of frames or of clips")
    if not (source.is_file() or source.is_dir()):
        raise InputError(f"'{source}' is a pipe or a device: expected a file or a folder, or - for standard input")
    check_places([out], input_paths(request))
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
    """One clip of a folder for the output `out`. Raises InputError for one that cannot be used."""
    if member.problem:
        raise InputError(member.problem)
    if not member.frames:
        return open_clip(member.path, out, request, failures)
    return stretched(open_frames(member.frames, Path(member.output).name, out, request, failures), out, request)


def input_paths(request: Request) -> list[Path]:
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
