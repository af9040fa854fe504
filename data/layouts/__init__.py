"""Dataset layouts: find the clips under a root and pair ground truth with low resolution.

`open_layout(root)` detects the layout and reports the reason; `data.layouts.finders` has one finder per layout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data.bands import Bands
from data.clips import Clip, CroppedClip, DegradedClip, RegionClip, frame_numbers, image_files
from data.degrade import Degradation
from data.layouts.boxes import Box, read_boxes
from data.layouts.finders import DETECTION, FINDERS, ClipFiles, ClipQuery
from data.layouts.listing import files_with, folders
from data.layouts.lists import apply_list
from data.layouts.splits import enter_split
from data.video.opening import VIDEO_SUFFIXES
from errors import InputError

__all__ = ["Box", "ClipFiles", "ClipQuery", "Layout", "Pair", "find_entries", "open_layout", "read_boxes"]


@dataclass
class Pair:
    """One clip as ground truth and low resolution.

    gt: None where only an input exists (`need="lr"`); cropped to a multiple of the scale for integer scales.
    lr: from files, or computed from `gt` on reading.
    boxes: moving objects per frame, in GT pixels; None where the data set has none.
    listed: the frames that a list file names, None for all; the other frames are still used as neighbours.
    """

    name: str
    gt: Clip | None
    lr: Clip
    boxes: Sequence[list[Box]] | None = None
    listed: list[int] | None = None

    def __len__(self) -> int:
        return len(self.lr)

    def wanted(self, count: int | None = None) -> Sequence[int]:
        """The frames to train with or to measure: the first `count` (None: all) of `listed`, or of the clip."""
        return (range(len(self)) if self.listed is None else self.listed)[:count]


@dataclass
class Layout:
    """The pairs found, the `kind` of layout and the `reason` for choosing it, and `notes` for the user."""

    kind: str
    root: Path
    reason: str
    pairs: list[Pair]
    scale: float | None = None
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index]


def open_layout(
    root: str | Path,
    kind: str = "auto",
    *,
    scale: float = 4,
    split: str | None = None,
    list_file: str | Path | None = None,
    degradation: Degradation | None = None,
    need: str = "gt",
    allow_gaps: bool = False,
    bands: Bands | None = None,
) -> Layout:
    """Open a data set folder, a folder of frames, a video or a TIFF stack as clips.

    Args:
        kind: "auto" or one of `data.layouts.finders.FINDERS`.
        scale: GT pixels per LR pixel. Integer scales use LR files where they exist and crop GT to a multiple.
        split: "train", "val" or "test" (also folders named `training_set`, `eval`, ...); "all" for all splits.
        list_file: lines CLIP/FRAME.png or CLIP, relative to the root, its split or the working folder.
        degradation: computes LR if there are no LR files; default bicubic.
        need: "gt" for training and evaluation; "lr" for upscaling: LR files if there are, else the frames themselves.
        allow_gaps: accept clips whose frame numbers have gaps.
        bands: which bands of many-band images to take and how to stretch them (`data.bands`).

    Raises InputError (one line) for a missing root, an unknown layout, an empty clip, GT and LR that do not fit.
    """
    root = Path(root)
    if kind != "auto" and kind not in FINDERS:
        raise InputError(f"unknown layout '{kind}': expected auto or one of {', '.join(FINDERS)}")
    if need not in ("gt", "lr"):
        raise InputError(f"need is {need!r}: expected 'gt' or 'lr'")
    if not scale >= 1:
        raise InputError(f"scale is {scale}: expected 1 or more")
    if not root.exists():
        raise InputError(f"{root}: no such file or folder; check the root of the data set")
    query = ClipQuery(scale=int(scale) if float(scale).is_integer() else None, split=split)
    found_kind, entries, reason = find_entries(root, kind, query)
    notes: list[str] = []
    listed = apply_list(list_file, root, entries) if list_file else {}
    if listed:
        entries = [entry for entry in entries if entry.name in listed]
    made = degradation or Degradation()
    pairs = []
    for entry in entries:
        gt, lr = entry.open_gt(allow_gaps, bands), entry.open_lr(allow_gaps, bands)
        pair = _input_only(entry, gt, lr) if need == "lr" else _pair(entry, gt, lr, scale, made, notes)
        pairs.append(replace(pair, listed=listed.get(entry.name)))
    return Layout(found_kind, root, reason, pairs, scale if need == "gt" else None, notes)


def find_entries(root: Path, kind: str, query: ClipQuery) -> tuple[str, list[ClipFiles], str]:
    """Return kind, entries and reason. With several split folders, clip names start with the split."""
    entries: list[ClipFiles] = []
    reasons: list[str] = []
    found_kind = kind
    for place, prefix, why in enter_split(root, query.split):
        part = _find_here(place, kind, query)
        if part is None:
            deeper = f"; clips are in {below}: name it" if (below := clips_below(place)) else ""
            raise InputError(
                f"{place}: no known layout ({', '.join(FINDERS)}); expected CLIP/FRAME.png or a video, or name the kind{deeper}"
            )
        found_kind, found, reason = part
        entries += [entry.renamed(f"{prefix}/{entry.name}") if prefix else entry for entry in found]
        reasons.append(why + reason)
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            raise InputError(f"{root}: two clips have the name '{entry.name}'; rename one of them")
        seen.add(entry.name)
    return found_kind, entries, "; ".join(dict.fromkeys(reasons))


def clips_below(root: Path, depth: int = 3) -> Path | None:
    """The first folder below `root` that holds folders of frames or videos, as after unpacking data into a folder of the same name."""
    for folder in folders(root) if root.is_dir() and depth else ():
        inside = folders(folder)
        if files_with(folder, VIDEO_SUFFIXES) or any(map(image_files, inside)):
            return folder
        if found := clips_below(folder, depth - 1):
            return found
    return None


def _find_here(root: Path, kind: str, query: ClipQuery) -> tuple[str, list[ClipFiles], str] | None:
    for name, find in (DETECTION if kind == "auto" else {kind: FINDERS[kind]}).items():
        found = find(root, query)
        if found is not None:
            entries, reason = found
            if not entries:
                raise InputError(f"{root}: looks like {name} ({reason}) but holds no clip")
            return name, entries, reason
    if kind != "auto":
        raise InputError(f"{root}: is not of the layout '{kind}'; check the root or try kind auto")
    return None


def _input_only(entry: ClipFiles, gt: Clip | None, lr: Clip | None) -> Pair:
    source = lr or gt
    assert source is not None
    return Pair(entry.name, None, source)


def _pair(
    entry: ClipFiles, gt: Clip | None, lr: Clip | None, scale: float, degradation: Degradation, notes: list[str]
) -> Pair:
    if gt is None:
        raise InputError(f"{entry.lr}: low resolution only, no ground truth; training and evaluation need it")
    boxes = read_boxes(entry.boxes, gt.frame_names, entry.label, notes) if entry.boxes else None
    if float(scale).is_integer():
        full = gt.size
        gt = CroppedClip(gt, int(scale)) if scale > 1 else gt
        if lr is not None:
            lr = _cut_to(gt.size, full, lr, int(scale), notes)
            _check_pair(gt, lr, int(scale))
            if note := _paired_by_order(gt, lr):
                notes.append(note)
            return Pair(entry.name, gt, lr, boxes)
    return Pair(entry.name, gt, DegradedClip(gt, degradation, scale), boxes)


def _cut_to(size: tuple[int, int], full: tuple[int, int], lr: Clip, scale: int, notes: list[str]) -> Clip:
    """LR for ground truth cropped to `size`: without the last row and column if it was made of the full frame and its size was
    rounded up, as MATLAB's imresize does; its pixels are aligned with the upper left corner.
    """
    if full == size or lr.size != (-(-full[0] // scale), -(-full[1] // scale)):
        return lr
    height, width = size[0] // scale, size[1] // scale
    notes.append(
        f"clip {lr.name}: low resolution of {lr.size[1]}x{lr.size[0]} for {full[1]}x{full[0]} was rounded up: both are cropped, to "
        f"{width}x{height} and {size[1]}x{size[0]}"
    )
    return RegionClip(lr, 0, 0, height, width)


def _paired_by_order(gt: Clip, lr: Clip) -> str:
    """A note if frames of GT and LR have other numbers: their names do not tell which belong together."""
    high, low = frame_numbers(gt.frame_names), frame_numbers(lr.frame_names)
    if not high or not low or high == low:
        return ""
    return f"clip {gt.name}: frames are paired by their order: {gt.frame_names[0]} with low resolution {lr.frame_names[0]}, ..."


def _check_pair(gt: Clip, lr: Clip, scale: int) -> None:
    """Check that GT (already cropped to a multiple of the scale) and LR have as many frames and sizes in the ratio of the scale."""
    if len(gt) != len(lr):
        raise InputError(
            f"clip {gt.name}: {len(gt)} frames of ground truth ({gt.source(0)} ...) but {len(lr)} of low resolution "
            f"({lr.source(0)} ...); their lengths must be equal"
        )
    (height, width), (low_height, low_width) = gt.size, lr.size
    if (height, width) != (low_height * scale, low_width * scale):
        raise InputError(
            f"{lr.source(0)}: low resolution {low_width}x{low_height} does not fit ground truth {width}x{height} at "
            f"scale {scale} (expected {width // scale}x{height // scale}); change the scale or remove the LR folder"
        )
