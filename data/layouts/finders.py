"""One function per kind of data set: does this folder look like it, why, and which clips does it hold?

Each finder returns None (not this kind) or (entries, reason). Nothing is decoded here, folders are listed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.clips import Clip, FolderClip, image_files
from data.naming import natural_key
from errors import InputError

VISO_CLASSES = ("car", "plane", "ship", "train")
GT_NAMES = ("gt", "hr", "truth", "sharp")  # folder of ground truth inside a clip (spmcs, gopro) or above clips (jilin)
Source = Path | Sequence[Path]  # a folder of frames, a film, or a list of files


@dataclass(frozen=True)
class Query:
    """What the caller asked for. scale: None where it is not an integer (LR files then do not count)."""

    scale: int | None
    split: str | None
    allow_gaps: bool


@dataclass(frozen=True)
class Entry:
    """Where one clip's files are; `label` is the class of its boxes where the box file has none."""

    name: str
    gt: Source | None
    lr: Source | None = None
    boxes: Path | None = None
    label: str = "object"
    fps: float | None = None

    def renamed(self, name: str) -> Entry:
        return replace(self, name=name)

    def open_gt(self, allow_gaps: bool) -> Clip | None:
        return None if self.gt is None else self._open(self.gt, allow_gaps)

    def open_lr(self, allow_gaps: bool) -> Clip | None:
        return None if self.lr is None else self._open(self.lr, allow_gaps)

    def stems(self) -> Sequence[str]:
        clip = self.open_gt(True) or self.open_lr(True)
        assert clip is not None
        return clip.frame_names

    def _open(self, source: Source, allow_gaps: bool) -> Clip:
        return FolderClip(source, name=self.name, fps=self.fps, allow_gaps=allow_gaps)


Found = tuple[list[Entry], str] | None


# --- listing ----------------------------------------------------------------------------------------------------------


def folders(root: Path) -> list[Path]:
    """Sub-folders in natural order, hidden ones left out. InputError for a link that leads nowhere or in a circle."""
    found = []
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                if entry.is_symlink() and not Path(entry.path).exists():
                    raise InputError(f"{entry.path}: a link that leads nowhere; remove or mend it")
                if entry.is_dir():
                    found.append(root / entry.name)
    except OSError as error:
        raise InputError(f"{root}: cannot be listed ({error.strerror})") from None
    return sorted(found, key=lambda path: natural_key(path.name))


def _named(root: Path, names: Sequence[str]) -> Path | None:
    """The first sub-folder whose name, without case, is one of `names` (in their order)."""
    present = {path.name.lower(): path for path in folders(root)}
    return next((present[name] for name in names if name in present), None)


def _lr_folder(root: Path, scale: int | None) -> Path | None:
    """LR4x, LRx4, LR_x4, BIx4, X4, LR: the low resolution for this scale, beside a folder of ground truth."""
    if scale is None:
        return None
    wanted = (*(form.format(scale) for form in ("lr{}x", "lrx{}", "lr{}", "bix{}", "bdx{}", "x{}", "input{}")), "lr")
    present = {re.sub(r"[_\-]", "", path.name.lower()): path for path in folders(root)}
    return next((present[name] for name in wanted if name in present), None)


def _other_scales(root: Path) -> list[str]:
    return [path.name for path in folders(root) if re.fullmatch(r"(lr|bi|bd)_?x?\d+x?|x\d+", path.name.lower())]


def clip_folders(root: Path) -> list[Path]:
    """Sub-folders that hold frames. One without any image is an error: an empty clip must not pass unseen."""
    found = folders(root)
    filled = [path for path in found if image_files(path)]
    if filled and len(filled) < len(found):
        empty = next(path for path in found if path not in filled)
        raise InputError(f"{empty}: the clip is empty (no image files); remove the folder or fill it")
    return filled


# --- kinds ------------------------------------------------------------------------------------------------------------


def find_jilin(root: Path, query: Query) -> Found:
    """ROOT/GT/CLIP/FRAME.png, with LR4x/CLIP and Bicubic4x/CLIP beside it or not (splits were entered before)."""
    if not root.is_dir():
        return None
    gt = _named(root, ("gt", "hr"))
    lr = _lr_folder(root, query.scale)
    if gt is not None:
        clips = clip_folders(gt)
        if not clips:
            return None
        low = {path.name: path for path in clip_folders(lr)} if lr else {}
        missing = next((clip for clip in clips if lr and clip.name not in low), None)
        if missing is not None:
            raise InputError(f"{lr}: lacks the clip {missing.name} of {gt}; add it or remove the LR folder")
        boxes = root / "boxes"
        entries = [Entry(c.name, c, low.get(c.name), _if_file(boxes / f"{c.name}.txt")) for c in clips]
        reason = f"{len(clips)} clips in {gt.name}/, " + (f"LR in {lr.name}/" if lr else "LR made from GT")
        return entries, reason
    if lr is not None and clip_folders(lr):
        return [Entry(c.name, None, c) for c in clip_folders(lr)], f"LR only, in {lr.name}/"
    others = _other_scales(root)
    if others:
        raise InputError(
            f"{root}: holds {', '.join(others)} but no GT and no LR for scale {query.scale}; change the scale"
        )
    return None


def _if_file(path: Path) -> Path | None:
    return path if path.is_file() else None


def find_inside(root: Path, query: Query) -> Found:
    """ROOT/CLIP/truth/FRAME.png (SPMCS; also HR, GT, GoPro's sharp), with CLIP/LRx4 or CLIP/input4 or without."""
    if not root.is_dir():
        return None
    found = [(clip, _named(clip, GT_NAMES)) for clip in folders(root)]
    lacking = [clip for clip, gt in found if gt is None]
    if not found or len(lacking) == len(found):
        return None
    if lacking:
        raise InputError(
            f"{lacking[0]}: has no folder {', '.join(GT_NAMES)} as its neighbours have; add it or remove the clip"
        )
    entries, names = [], []
    for clip, gt in found:
        assert gt is not None
        if not image_files(gt):
            raise InputError(f"{gt}: the clip is empty (no image files); remove the folder or fill it")
        lr = _lr_folder(clip, query.scale)
        entries.append(Entry(clip.name, gt, lr, _if_file(clip / "gt" / "gt.txt")))
        names.append(f"{gt.name}/" + (f" and {lr.name}/" if lr else ""))
    return entries, f"{len(entries)} clips with frames in {', '.join(dict.fromkeys(names))}"


def find_clips(root: Path, query: Query) -> Found:
    """ROOT/CLIP/FRAME.png, or a root that is itself one folder of frames."""
    if not root.is_dir():
        return None
    here = image_files(root)
    below = clip_folders(root)
    if here and below:
        raise InputError(f"{root}: holds frames and also folders of frames ({below[0].name}, ...); choose one as root")
    if here:
        return [Entry(root.resolve().name, root)], f"one folder of {len(here)} frames"
    return ([Entry(clip.name, clip) for clip in below], f"{len(below)} folders of frames") if below else None


FINDERS: dict[str, Callable[[Path, Query], Found]] = {
    "jilin": find_jilin,
    "spmcs": find_inside,
    "clips": find_clips,
}
DETECTION = tuple(FINDERS)  # the order of trying
