"""Find a method's frames: any layout, matched with the clips and frames of the ground truth by name.

A method's folder is searched for folders of images, videos and TIFF stacks. A clip is matched with the one whose path
contains the clip's name; frame_names.py matches the frames. An ambiguous match raises InputError, because a wrong match
would silently give wrong numbers.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.bands import BandMap, Bands
from data.clips import Clip, FolderClip, TiffStackClip, VideoClip, image_files
from data.media import probe
from data.naming import is_hidden, natural_key
from data.video.opening import VIDEO_SUFFIXES
from engine.compare.frame_names import SEPARATOR, match_frames
from errors import InputError

STACK_SUFFIXES = (".tif", ".tiff")
SHOWN = 6  # names in a message


@dataclass(frozen=True)
class Candidate:
    """A candidate for a clip: the files of one folder, a video or a TIFF stack; `parts` is its path below the root."""

    parts: tuple[str, ...]
    source: Path | tuple[Path, ...]

    @property
    def name(self) -> str:
        return "/".join(self.parts)

    @property
    def lowered(self) -> tuple[str, ...]:
        return tuple(part.lower() for part in self.parts)

    def open(self) -> Clip:
        if isinstance(self.source, tuple):
            return FolderClip(list(self.source), name=self.name, allow_gaps=True)
        if self.source.suffix.lower() in VIDEO_SUFFIXES:
            return VideoClip(self.source)
        return TiffStackClip(self.source)


@dataclass
class ResultClip:
    """A method's version of one clip. `frames` maps the ground truth's frame numbers to those of `clip`."""

    clip: Clip
    frames: dict[int, int]
    size: tuple[int, int]  # (H, W) that is compared, from the upper left corner
    band_map: BandMap | None = None  # stretch of the ground truth, also applied to results in stored units
    notes: list[str] = field(default_factory=list)
    gt: Clip | None = None  # may lack values too

    def array(self, index: int) -> np.ndarray:
        """This method's version of the ground truth's frame `index`, (H, W, C) as stored or stretched.

        Raises InputError for values that are missing (NaN, nodata) where the ground truth has some.
        """
        array = self.clip.array(self.frames[index])
        self._check_complete(index)
        bands = self.band_map
        if bands is not None:
            array = bands.stretch(array) if array.shape[-1] == len(bands.choice) else bands.apply(array)
        return array[: self.size[0], : self.size[1]]

    def _check_complete(self, index: int) -> None:
        number = self.frames[index]
        path = self.clip.file(number)
        holes = self.clip.holes(number) if path is None or path.suffix.lower() in STACK_SUFFIXES else None
        if holes is None:
            return
        missing = ~holes[1][: self.size[0], : self.size[1]].all(axis=-1)
        known = self.gt.holes(index) if self.gt is not None else None
        if known is not None:
            missing &= known[1].all(axis=-1)
        if missing.any():
            raise InputError(
                f"{self.clip.source(number)}: {missing.sum()} of its pixels have no value (NaN or nodata), where the ground truth "
                "has one: repair the result, or leave the method out"
            )


def parse_results(words: Sequence[str]) -> dict[str, Path]:
    """`NAME=FOLDER` words -> name and folder, in their order. Raises InputError for invalid words."""
    found: dict[str, Path] = {}
    for word in words:
        name, separator, folder = word.partition("=")
        name = name.strip()
        if not separator or not name or not folder:
            raise InputError(f"--results '{word}': expected NAME=FOLDER, such as ours=runs/eval/frames")
        if name.lower() in ("bicubic", "gt", "lr"):
            raise InputError(f"--results '{word}': the name '{name}' is reserved: choose another one")
        if name in found:
            raise InputError(f"--results: the name '{name}' occurs twice: give every method a different name")
        if not Path(folder).exists():
            raise InputError(f"--results {name}: '{folder}' does not exist: expected a folder of frames, or a video")
        found[name] = _frames_of(Path(folder))
    return found


def _frames_of(folder: Path) -> Path:
    """The frames in the folder of an evaluation (`eval.py --save-frames`), which also holds pictures of its report."""
    evaluated = (folder / "report.json").is_file() and (folder / "frames").is_dir()
    return folder / "frames" if evaluated else folder


def candidates(root: Path) -> list[Candidate]:
    """Every folder of images, video and TIFF stack below `root` (or `root` itself)."""
    if root.is_file():
        return _files(root.parent, [root], ())
    found: list[Candidate] = []
    for folder, below, names in os.walk(root, followlinks=True):
        below[:] = sorted((name for name in below if not is_hidden(name)), key=natural_key)
        place = Path(folder)
        parts = place.relative_to(root).parts
        videos = sorted(place / name for name in names if Path(name).suffix.lower() in VIDEO_SUFFIXES)
        found += _files(place, videos + image_files(place), parts)
    if not found:
        raise InputError(f"'{root}' contains no frames and no videos: name the folder of the method's results")
    return found


def _files(folder: Path, files: list[Path], parts: tuple[str, ...]) -> list[Candidate]:
    single = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES or _is_stack(path, files)]
    frames = tuple(path for path in files if path not in single)
    found = [Candidate((*parts, path.stem), path) for path in single]
    return [*found, Candidate(parts or (folder.resolve().name,), frames)] if frames else found


def _is_stack(path: Path, files: list[Path]) -> bool:
    """A TIFF of several pages. Only the first of a folder is opened: the others are like it."""
    if path.suffix.lower() not in STACK_SUFFIXES:
        return False
    first = next(other for other in files if other.suffix.lower() in STACK_SUFFIXES)
    return probe(first).pages > 1


def match_clips(method: str, root: Path, names: Sequence[str]) -> dict[str, Candidate]:
    """The candidate of every clip in `names`. Raises InputError for a clip that is missing or found twice."""
    found = candidates(root)
    if len(names) == 1 and len(found) == 1:
        return {names[0]: found[0]}
    index: dict[str, list[Candidate]] = {}  # by every folder of the path, for speed: data sets have thousands of clips
    for candidate in found:
        for part in dict.fromkeys(part.lower() for part in candidate.parts):
            index.setdefault(part, []).append(candidate)
    last_parts = Counter(name.split("/")[-1].lower() for name in names)
    matched: dict[str, Candidate] = {}
    for name in names:
        wanted = tuple(part.lower() for part in name.split("/"))
        near = index.get(wanted[-1], [])
        fitting = [candidate for candidate in near if _contains(candidate.lowered, wanted)]
        fitting = fitting or (near if last_parts[wanted[-1]] == 1 else []) or _named_after(name, found, names)
        if not fitting:
            known = ", ".join(candidate.name for candidate in found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
            raise InputError(
                f"--results {method}: no clip '{name}' in '{root}' (it contains {known}): name its folder after the clip, "
                f"or choose clips with data.val.clips=[...]"
            )
        if len(fitting) > 1:
            twice = " and ".join(f"'{candidate.name}'" for candidate in fitting[:2])
            raise InputError(f"--results {method}: clip '{name}' is found twice in '{root}', {twice}: name one folder")
        matched[name] = fitting[0]
    return matched


def _named_after(name: str, found: list[Candidate], names: Sequence[str]) -> list[Candidate]:
    """Candidates, or frames of one folder, whose file names begin with the clip's name."""
    last = name.split("/")[-1].lower()
    begins = re.compile(re.escape(last) + SEPARATOR)
    longer = [
        re.compile(re.escape(o.split("/")[-1].lower()) + rf"({SEPARATOR}|$)") for o in names if len(o) > len(name)
    ]

    def belongs(stem: str) -> bool:
        return bool(begins.match(stem)) and not any(other.match(stem) for other in longer)

    named = [candidate for candidate in found if belongs(candidate.lowered[-1])]
    if named:
        return named
    flat = [
        Candidate(candidate.parts, tuple(path for path in candidate.source if belongs(path.stem.lower())))
        for candidate in found
        if isinstance(candidate.source, tuple)
    ]
    return [candidate for candidate in flat if candidate.source]


def _contains(parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    return any(parts[k : k + len(wanted)] == wanted for k in range(len(parts) - len(wanted) + 1))


def open_result(method: str, candidate: Candidate, gt: Clip, lr: Clip, full: tuple[int, int]) -> ResultClip:
    """A method's version of a clip, checked against the ground truth.

    gt: already cut to a multiple of the scale.   full: (H, W) before that. Results may have either size, or
    that of LR rounded up and enlarged; the common part is compared. Raises InputError for other sizes.
    """
    clip = candidate.open()
    chosen = gt.band_map.choice if gt.band_map else ()
    if chosen and isinstance(clip, (FolderClip, TiffStackClip)):
        first = clip.path if isinstance(clip, TiffStackClip) else clip.paths[0]
        if probe(first).bands > len(chosen):  # the result has all bands of the source: select the compared ones
            clip.bands = Bands(tuple(number + 1 for number in chosen))
    what = f"--results {method}, clip '{gt.name}'"
    ordered = not isinstance(clip, FolderClip)
    frames, how = match_frames(gt.frame_names, clip.frame_names, what, ordered=ordered)
    _check_size(what, clip.size, gt.size, lr.size, full)
    result = ResultClip(clip, frames, gt.size, gt.band_map, gt=gt)
    if how == "order" and not ordered:
        result.notes.append(
            f"{method}, {gt.name}: frames matched by their order ({clip.frame_names[0]} with {gt.frame_names[0]} ...)"
        )
    if clip.size != gt.size:
        result.notes.append(
            f"{method}, {gt.name}: {_size(clip.size)} cropped to {_size(gt.size)}, from the upper left corner"
        )
    return result


def _check_size(
    what: str, size: tuple[int, int], gt: tuple[int, int], lr: tuple[int, int], full: tuple[int, int]
) -> None:
    scale = [large / low for large, low in zip(gt, lr, strict=True)]
    largest = [max(f, g + int(np.ceil(s))) for f, g, s in zip(full, gt, scale, strict=True)]
    if all(g <= s <= most for s, g, most in zip(size, gt, largest, strict=True)):
        return
    if size == lr or (size[0] <= lr[0] + 1 and size[1] <= lr[1] + 1 and min(scale) > 1):
        raise InputError(f"{what}: {_size(size)} pixels, the size of the low resolution: give the method's output")
    kind = "the position of a crop is unknown" if size[0] <= gt[0] and size[1] <= gt[1] else "no such size"
    raise InputError(
        f"{what}: {_size(size)} pixels, the ground truth has {_size(full)} ({_size(gt)} at this scale): {kind}: "
        "give full frames, or another --scale"
    )


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
