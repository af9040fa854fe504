"""Find the clips in a folder given to upscale.py: one clip of frames, several clips, or unrelated pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from data.clips import FolderClip, frame_numbers, image_files
from data.files import resolved
from data.frame_writer import STACK_SUFFIXES
from data.media import VIDEO_SUFFIXES, ImageInfo, probe
from data.naming import natural_key
from data.scenes import UNLIKE, changes
from data.video.containers import OUTPUT_SUFFIXES
from errors import InputError


@dataclass(frozen=True)
class Member:
    """One clip of a folder and the name of its output. still: a single picture."""

    path: Path
    output: str
    still: bool = False


def find_members(
    source: Path, out: Path, stills: bool, image_suffix: str, note: Callable[[str], None]
) -> list[Member] | None:
    """The clips in a folder, in natural order; None if the folder itself is one clip of frames.

    stills: every picture is a separate clip. image_suffix: of the pictures written for them; TIFF stays TIFF.
    Raises InputError if the folder is ambiguous or has no clips. `note` is called with skipped files.
    """
    pictures = image_files(source)
    stacks = [path for path in pictures if is_stack(path)]
    pictures = [path for path in pictures if path not in stacks]
    clips = sorted([*clips_in(source, out), *stacks], key=lambda path: natural_key(path.name))
    inner = [path for path in source.iterdir() if path.is_dir() and resolved(path) != resolved(out)]
    hollow = [path.name for path in inner if path not in clips and path.name[0] != "."]
    if not clips and not pictures:
        raise InputError(f"'{source}' holds no frames, videos or folders of frames")
    if hollow:
        note(f"'{source}': left out, because they hold no frames: {_some(hollow)}")
    if not clips and not stills and not _unrelated(pictures, note):
        return None
    if clips and pictures and not stills:
        _check_clear(source, pictures, clips)
        note(
            f"'{source}': left out, because they are no clips: {_some([path.name for path in pictures])} (--stills: also)"
        )
        pictures = []
    return [Member(path, clip_output(path)) for path in clips] + _stills(pictures, image_suffix)


def clips_in(source: Path, out: Path) -> list[Path]:
    """Videos and folders of frames in a folder, without the results of an earlier run."""
    return [path for path in source.iterdir() if is_clip(path) and resolved(path) != resolved(out)]


def is_clip(path: Path) -> bool:
    """Whether a folder's entry is a video or a folder of frames."""
    if path.name.startswith("."):
        return False
    return bool(image_files(path)) if path.is_dir() else path.suffix.lower() in VIDEO_SUFFIXES


def is_stack(path: Path) -> bool:
    """Whether a file is a TIFF of several pages; False for a damaged file."""
    try:
        return path.suffix.lower() in STACK_SUFFIXES and probe(path).pages > 1
    except InputError:
        return False


def clip_output(path: Path) -> str:
    """The output of one clip of many: of the same kind as the source."""
    if path.is_dir() or path.suffix.lower() in (*OUTPUT_SUFFIXES, *STACK_SUFFIXES):
        return path.name
    return f"{path.stem}.mp4"


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


def _check_clear(source: Path, pictures: Sequence[Path], clips: Sequence[Path]) -> None:
    """Raises InputError for numbered frames next to clips, which may be a clip themselves; other pictures are allowed."""
    if len(pictures) > 1 and frame_numbers([path.stem for path in pictures]):
        raise InputError(
            f"'{source}' holds frames ({pictures[0].name}, ...) and also clips ({clips[0].name}, ...): name one of the "
            "clips, move the frames into a folder of their own, or say --stills to upscale each picture by itself"
        )


def _unrelated(pictures: Sequence[Path], note: Callable[[str], None]) -> bool:
    """Whether pictures are not frames of one clip: they have many sizes, or gaps in their numbers and unrelated content."""
    if len(pictures) < 2:
        return False
    infos = {path: _header(path) for path in pictures}
    sizes = Counter(info.size for info in infos.values() if info)
    numbers = frame_numbers([path.stem for path in pictures])
    reason = ""
    if len(sizes) > 1 and (not numbers or 2 * max(sizes.values()) <= len(pictures)):
        reason = f"they have {len(sizes)} sizes"
    elif len(sizes) == 1 and numbers and _has_gaps(numbers) and _nothing_in_common(pictures):
        reason = "their numbers have gaps, and they have nothing in common"
    if reason:
        note(f"{len(pictures)} pictures are upscaled one by one: {reason}")
    return bool(reason)


def _header(path: Path) -> ImageInfo | None:
    try:
        return probe(path)
    except InputError:
        return None  # opening the clip or the still raises the error with its reason


def _has_gaps(numbers: Sequence[int]) -> bool:
    return len({after - before for before, after in pairwise(numbers)}) > 1


def _nothing_in_common(pictures: Sequence[Path]) -> bool:
    try:
        return all(change.correlation < UNLIKE for change in changes(FolderClip(pictures, allow_gaps=True)))
    except InputError:
        return False


def _some(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
