"""Find the clips in a folder given to upscale.py: one clip of frames, several clips, or unrelated pictures."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from data.clips import frame_numbers, image_files
from data.files import resolved
from data.frame_writer import STACK_SUFFIXES
from data.media import UNREAD_SUFFIXES, probe
from data.naming import is_hidden, natural_key
from data.raster import JPEG_2000_SUFFIXES
from data.video.containers import OUTPUT_SUFFIXES
from data.video.opening import VIDEO_SUFFIXES
from engine.upscale.relations import series_in, series_name, some, unrelated
from errors import InputError

ANIMATED = (".gif", ".apng", ".png", ".webp")  # suffixes of files that may be animations
RESULTS = ".upscaled"  # marker in an output folder inside its input folder, so that later runs do not take it for clips


@dataclass(frozen=True)
class Member:
    """One clip of a folder and the name of its output, relative to the output folder.

    still: a single picture.   frames: of a series of frames that shares its folder with others.   problem: why the clip cannot
    be used.
    """

    path: Path
    output: str
    still: bool = False
    frames: tuple[Path, ...] = ()
    problem: str = ""


def find_members(
    source: Path, out: Path, stills: bool, image_suffix: str, note: Callable[[str], None], joined: bool = False
) -> list[Member] | None:
    """The clips in a folder and in the folders below it, in natural order; None if the folder itself is one clip of frames.

    stills: every picture is a separate clip. image_suffix: of the pictures written for them; TIFF stays TIFF.
    joined: the output is possible for one clip only (a video, for example), so that unlike frames are scenes of it.
    Raises InputError if the folder is ambiguous or has no clips. `note` is called with skipped files.
    """
    pictures, moving = split_pictures(source, stills, note)
    files = [*moving, *(path for path in clips_in(source, out) if path.is_file())]
    members = [Member(path, clip_output(path)) for path in files]
    hollow = []
    for folder in folders_in(source, out):
        found = _of_folder(folder, out, stills, image_suffix, note)
        members += found
        hollow += [] if found else [folder.name]
    members.sort(key=lambda member: (natural_key(member.output), natural_key(member.path.name)))
    if results := results_in(source, out):
        note(f"'{source}': left out, because they are results of earlier runs: {some(results)}")
    if unread := unread_in(source):
        note(f"'{source}': left out, because files of their kind are not read (convert them first): {some(unread)}")
    if not members and not pictures:
        raise InputError(f"'{source}' holds no frames, videos or folders of frames")
    if hollow:
        note(f"'{source}': left out, because they hold no frames: {some(hollow)}")
    if not members and not stills:
        return _parts(source, out, pictures, image_suffix, note, joined)
    if members and pictures and not stills and all(_is_animation(member.path) for member in members):
        note(f"'{source}': pictures and animations are upscaled one by one")
    elif members and pictures and not stills:
        _check_clear(source, pictures, members)
        note(
            f"'{source}': left out, because they are not clips: {some([path.name for path in pictures])} (--stills upscales them)"
        )
        pictures = []
    return members + _stills(pictures, image_suffix)


def split_pictures(
    source: Path, stills: bool, note: Callable[[str], None] = lambda line: None
) -> tuple[list[Path], list[Path]]:
    """The single pictures of a folder, and its TIFF stacks and animations, which are clips.

    Animations next to numbered frames are left out (a preview of the frames, for example), unless `stills` asks for every
    picture. `note` is called with these.
    """
    files = image_files(source)
    moving = [path for path in files if is_stack(path)]
    pictures = [path for path in files if path not in moving]
    extra = [path for path in moving if _is_animation(path)]
    if extra and not stills and len(pictures) > 1 and frame_numbers([path.stem for path in pictures]):
        note(f"'{source}': animations next to numbered frames are left out: {some([path.name for path in extra])}")
        moving = [path for path in moving if path not in extra]
    return pictures, moving


def _is_animation(path: Path) -> bool:
    return path.suffix.lower() in ANIMATED and path.is_file()


def _of_folder(folder: Path, out: Path, stills: bool, image_suffix: str, note: Callable[[str], None]) -> list[Member]:
    """The clips of a folder in the source; a folder that is ambiguous is a member with a problem."""
    try:
        pictures, moving = split_pictures(folder, stills)
        if pictures and not moving:  # a clip; folders in it are no part of it
            split_pictures(folder, stills, note)
            if below := sorted(path.name for path in clips_in(folder, out)):
                note(f"'{folder}': left out, because they are in a folder of frames: {some(below)}")
            found = None if stills else _parts(folder, out, pictures, image_suffix, note, False)
        elif any(clips_below(folder, out)):
            found = find_members(folder, out, stills, image_suffix, note)
        else:
            return []
    except InputError as error:
        return [Member(folder, folder.name, problem=str(error))]
    if found is None:
        return [Member(folder, folder.name)]
    return [replace(member, output=f"{folder.name}/{member.output}") for member in found]


def _parts(
    source: Path,
    out: Path,
    pictures: Sequence[Path],
    image_suffix: str,
    note: Callable[[str], None],
    joined: bool,
) -> list[Member] | None:
    """Series of frames or single photographs in a folder of pictures; None for one clip."""
    series = series_in(pictures)
    if not series:
        reason = unrelated(pictures, joined)
        if reason:
            note(f"'{source}': {len(pictures)} pictures are upscaled one by one: {reason}")
        return _stills(pictures, image_suffix) if reason else None
    firsts = ", ".join(f"'{group[0].name}' ({len(group)})" for group in series[:4]) + (
        ", ..." if len(series) > 4 else ""
    )
    if is_single(out):
        raise InputError(
            f"'{source}' holds {len(series)} series of frames, not a single clip: {firsts}: name an output folder, or "
            "move each series into a separate folder"
        )
    note(f"'{source}': {len(series)} series of frames, each a separate clip: {firsts}")
    names = [series_name(group) for group in series]
    if len(set(names)) < len(names):
        names = [group[0].stem for group in series]
    members: list[Member] = []
    for name, group in zip(names, series, strict=True):
        photographs = unrelated(group, joined=False)
        members += _stills(group, image_suffix) if photographs else [Member(source, name, frames=tuple(group))]
    return members


def is_single(out: Path) -> bool:
    """Whether an output is one file or a pipe, which holds one clip."""
    return out.suffix.lower() in (*OUTPUT_SUFFIXES, *STACK_SUFFIXES) or str(out) == "-"


def entries(folder: Path) -> list[Path]:
    """Files and folders in a folder. InputError if it cannot be listed."""
    try:
        if not os.access(folder, os.R_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return list(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror})") from None


def unread_in(source: Path) -> list[str]:
    """Names of pictures in a folder that this program cannot read."""
    return sorted(
        path.name for path in entries(source) if path.suffix.lower() in UNREAD_SUFFIXES and path.name[0] != "."
    )


def results_in(source: Path, out: Path) -> list[str]:
    """Names of folders in a folder that earlier runs have written, without the output."""
    return sorted(path.name for path in entries(source) if is_result(path) and resolved(path) != resolved(out))


def is_result(path: Path) -> bool:
    with suppress(OSError):  # a folder that cannot be listed
        return (path / RESULTS).is_file()
    return False


def mark_results(source: Path, out: Path) -> None:
    """Mark the output folder of a run if it is inside the folder of clips `source`."""
    if out.is_dir() and resolved(out).is_relative_to(resolved(source)):
        (out / RESULTS).touch()


def folders_in(source: Path, out: Path) -> list[Path]:
    """Folders in a folder, in natural order, without hidden ones, results and the output. Links are followed to folders of
    frames only."""
    found = [path for path in entries(source) if path.is_dir() and not is_ignored(path) and not is_result(path)]
    found = [path for path in found if not path.is_symlink() or is_clip(path)]
    return sorted((path for path in found if resolved(path) != resolved(out)), key=lambda path: natural_key(path.name))


def is_ignored(path: Path) -> bool:
    """Whether an entry of a folder is no content of it: by its name, or because it is a link to a folder that contains it."""
    if is_hidden(path.name):
        return True
    with suppress(InputError):  # a loop of links
        return path.is_symlink() and resolved(path.parent).is_relative_to(resolved(path))
    return True


def clips_below(source: Path, out: Path) -> Iterator[Path]:
    """Videos, TIFF stacks and folders of frames in a folder and all folders in it."""
    clips = clips_in(source, out)
    yield from clips
    yield from (path for path in image_files(source) if is_stack(path))
    for folder in folders_in(source, out):
        if folder not in clips:
            with suppress(InputError):  # a folder that cannot be listed: `_of_folder` has the reason
                yield from clips_below(folder, out)


def clips_in(source: Path, out: Path) -> list[Path]:
    """Videos and folders of frames in a folder, without the results of an earlier run."""
    return [path for path in entries(source) if is_clip(path) and resolved(path) != resolved(out)]


def is_clip(path: Path) -> bool:
    """Whether a folder's entry is a video or a folder of frames."""
    if is_ignored(path) or is_result(path):
        return False
    if path.is_dir():
        with suppress(InputError):
            return bool(image_files(path))
        return False  # it cannot be listed
    return path.suffix.lower() in (*VIDEO_SUFFIXES, *JPEG_2000_SUFFIXES)


def is_stack(path: Path) -> bool:
    """Whether a file is a TIFF of several pages or an animation; False for a damaged file."""
    try:
        return path.suffix.lower() in (*STACK_SUFFIXES, *ANIMATED) and probe(path).pages > 1
    except InputError:
        return False


def clip_output(path: Path) -> str:
    """The output of one clip of many: of the same kind as the source."""
    if path.is_dir() or path.suffix.lower() in (*OUTPUT_SUFFIXES, *STACK_SUFFIXES):
        return path.name
    return f"{path.stem}.tif" if path.suffix.lower() in JPEG_2000_SUFFIXES else f"{path.stem}.mp4"


def _stills(pictures: Sequence[Path], suffix: str) -> list[Member]:
    """left.png and left.jpg become left_png.png and left_jpg.png."""
    outputs = [f"{path.stem}{path.suffix if path.suffix.lower() in STACK_SUFFIXES else suffix}" for path in pictures]
    often = Counter(outputs)
    members = []
    for path, output in zip(pictures, outputs, strict=True):
        name = Path(output)
        single = output if often[output] == 1 else f"{name.stem}_{path.suffix[1:].lower()}{name.suffix}"
        members.append(Member(path, single, still=True))
    return members


def _check_clear(source: Path, pictures: Sequence[Path], members: Sequence[Member]) -> None:
    """Raises InputError for numbered frames next to clips, which may be a clip themselves; other pictures are allowed."""
    if len(pictures) > 1 and frame_numbers([path.stem for path in pictures]):
        raise InputError(
            f"'{source}' holds frames ({pictures[0].name}, ...) and also clips ({members[0].output}, ...): name one of the "
            "clips, move the frames into a folder of their own, or use --stills to upscale each picture separately"
        )
