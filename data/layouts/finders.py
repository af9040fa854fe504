"""One function per kind of data set: does this folder look like it, why, and which clips does it hold?

Each finder returns None (not this kind) or (entries, reason). Nothing is decoded here, folders are listed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.bands import Bands
from data.clips import Clip, FolderClip, TiffStackClip, VideoClip, image_files
from data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, probe
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

    def open_gt(self, allow_gaps: bool = False, bands: Bands | None = None) -> Clip | None:
        return None if self.gt is None else self._open(self.gt, allow_gaps, bands)

    def open_lr(self, allow_gaps: bool = False, bands: Bands | None = None) -> Clip | None:
        return None if self.lr is None else self._open(self.lr, allow_gaps, bands)

    def stems(self) -> Sequence[str]:
        """Names of the frames, as list files have them."""
        clip = self.open_gt(allow_gaps=True) or self.open_lr(allow_gaps=True)
        assert clip is not None
        return clip.frame_names

    def _open(self, source: Source, allow_gaps: bool, bands: Bands | None) -> Clip:
        if isinstance(source, Path) and source.is_file():
            if source.suffix.lower() in VIDEO_SUFFIXES:
                return VideoClip(source, name=self.name)
            return TiffStackClip(source, name=self.name, fps=self.fps, bands=bands)
        return FolderClip(source, name=self.name, fps=self.fps, allow_gaps=allow_gaps, bands=bands)


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


def files_with(root: Path, suffixes: frozenset[str]) -> list[Path]:
    """Files of a folder with one of `suffixes`, hidden ones left out, in natural order."""
    found = [path for path in root.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    return sorted((path for path in found if path.is_file()), key=lambda path: natural_key(path.name))


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
        if any(image_files(path) for path in folders(empty)):
            raise InputError(f"{empty}: holds folders of frames, {filled[0]} frames; choose one of the two as root")
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


def find_file(root: Path, query: Query) -> Found:
    """A root that is one film, one TIFF stack or one image; or a folder of films, or of TIFF stacks, one clip each."""
    if root.is_file():
        kind = root.suffix.lower()
        if kind not in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
            raise InputError(f"{root}: unknown kind of file; expected a film, an image or a folder")
        if kind in VIDEO_SUFFIXES:
            return [Entry(root.stem, root)], "one film"
        pages = probe(root).pages
        return [
            Entry(root.stem, root if pages > 1 else [root])
        ], f"a TIFF of {pages} pages" if pages > 1 else "one image"
    films = files_with(root, VIDEO_SUFFIXES)
    images = image_files(root)
    if films and images:
        raise InputError(
            f"{root}: holds films and images ({films[0].name}, {images[0].name}, ...); put them into two folders"
        )
    if films:
        return [Entry(film.stem, film) for film in films], f"{len(films)} films"
    if images and images[0].suffix.lower() in (".tif", ".tiff") and probe(images[0]).pages > 1:
        return [Entry(stack.stem, stack) for stack in images], f"{len(images)} TIFF stacks"
    return None


def find_vimeo90k(root: Path, query: Query) -> Found:
    """ROOT/sequences/00001/0001/im1.png ... im7.png with sep_trainlist.txt and sep_testlist.txt."""
    sequences = root / "sequences"
    if not sequences.is_dir():
        return None
    lists = {"train": "sep_trainlist.txt", "val": "sep_testlist.txt", "test": "sep_testlist.txt"}
    if query.split in lists:
        path = root / lists[query.split]
        if not path.is_file():
            raise InputError(f"{path}: the list of the split '{query.split}' is missing; add it or use split all")
        names = [line.strip().replace("\\", "/") for line in path.read_text(encoding="utf-8-sig").split("\n")]
        clips = [sequences / name for name in names if name]
        reason = f"{len(clips)} clips of {path.name}"
    elif query.split is None and all((root / name).is_file() for name in set(lists.values())):
        raise InputError(f"{root}: has a training and a test list; choose with split: train, test or all")
    else:
        clips = [clip for group in folders(sequences) for clip in folders(group)]
        reason = f"{len(clips)} clips in sequences/"
    frames = [f"im{number}.png" for number in range(1, 8)]
    low = _lr_folder(root, query.scale)
    entries = []
    for clip in clips:
        name = f"{clip.parent.name}/{clip.name}"
        lr = [low / name / frame for frame in frames] if low else None
        entries.append(Entry(name, [clip / frame for frame in frames], lr))
    return entries, reason + (f", LR in {low.name}/" if low else "")


def has_own_splits(root: Path) -> bool:
    """REDS: the split is part of the name (train_sharp), not a folder of its own."""
    return any(re.fullmatch(r"(train|val|test)_sharp", path.name.lower()) for path in folders(root))


def find_reds(root: Path, query: Query) -> Found:
    """ROOT/train_sharp/CLIP/FRAME.png with ROOT/train_sharp_bicubic/X4/CLIP beside it or not (also val_sharp)."""
    if not root.is_dir():
        return None
    sharp = [path for path in folders(root) if re.fullmatch(r"(train|val|test)_sharp", path.name.lower())]
    wanted = [path for path in sharp if query.split in (None, "all") or path.name.lower().startswith(query.split)]
    if len(sharp) > 1 and query.split is None:
        raise InputError(
            f"{root}: holds {' and '.join(p.name for p in sharp)}; choose with split: train, val, test or all"
        )
    if sharp and not wanted:
        raise InputError(f"{root}: has no split '{query.split}', only {', '.join(path.name for path in sharp)}")
    entries, reasons = [], []
    for gt in wanted:
        bicubic = root / f"{gt.name}_bicubic"
        low = _lr_folder(bicubic, query.scale) if bicubic.is_dir() else None
        prefix = f"{gt.name}/" if len(wanted) > 1 else ""
        entries += [Entry(prefix + c.name, c, low / c.name if low else None) for c in clip_folders(gt)]
        reasons.append(f"{gt.name}/" + (f" with {bicubic.name}/{low.name}/" if low else ", LR made from GT"))
    return (entries, ", ".join(reasons)) if entries else None


def is_viso(root: Path) -> bool:
    """Folders car, plane, ship, train, or mot/ over them. A `train` alone is a split, not a class."""
    if not root.is_dir():
        return False
    names = {path.name.lower() for path in folders(root)}
    if len(names & set(VISO_CLASSES)) >= 2 or names & {"mot", "sot"}:
        return True
    return bool(names & {"car", "plane", "ship"})


def find_raw_viso(root: Path, query: Query) -> Found:
    """ROOT/mot/car/SEQ/img/FRAME.jpg with SEQ/gt/gt.txt; the root may be any folder of these from ROOT to SEQ."""
    if not root.is_dir():
        return None
    entries: list[Entry] = []
    if is_viso(root):
        tops = [path for path in folders(root) if path.name.lower() in ("mot", "sot", "mod", "det")] or [root]
        for top in tops:
            prefix = f"{top.name}/" if len(tops) > 1 else ""
            for group in (path for path in folders(top) if path.name.lower() in VISO_CLASSES):
                entries += [_viso_entry(sequence, f"{prefix}{group.name}/") for sequence in folders(group)]
    elif root.resolve().name.lower() in VISO_CLASSES and any(_viso_frames(sequence) for sequence in folders(root)):
        entries = [_viso_entry(sequence) for sequence in folders(root)]
    elif _viso_frames(root) and (root / "gt" / "gt.txt").is_file():
        entries = [_viso_entry(root)]
    with_boxes = sum(entry.boxes is not None for entry in entries)
    return (entries, f"{len(entries)} VISO sequences, {with_boxes} with boxes") if entries else None


def _viso_frames(sequence: Path) -> Path | None:
    return _named(sequence, ("img", "img1", "images"))


def _viso_entry(sequence: Path, prefix: str = "") -> Entry:
    frames, group = _viso_frames(sequence), sequence.resolve().parent.name.lower()
    if frames is None:
        raise InputError(f"{sequence}: has no folder img with the frames; add it or remove the sequence")
    label = group if group in VISO_CLASSES else "object"
    return Entry(prefix + sequence.resolve().name, frames, None, _if_file(sequence / "gt" / "gt.txt"), label)


def find_viso(root: Path, query: Query) -> Found:
    """VISO asked for by name: raw, or processed (the layout `jilin`, with boxes/CLIP.txt or without)."""
    return find_raw_viso(root, query) or find_jilin(root, query)


def find_adobe240(root: Path, query: Query) -> Found:
    """Folders of frames at 240 per second, as extracted from the Adobe240 films; asked for by name."""
    found = find_clips(root, query)
    return found and ([replace(entry, fps=240.0) for entry in found[0]], found[1] + " at 240 per second")


def find_gopro(root: Path, query: Query) -> Found:
    """ROOT/CLIP/sharp/FRAME.png or ROOT/CLIP/FRAME.png at 240 frames per second; asked for by name."""
    found = find_inside(root, query) or find_clips(root, query)
    return found and ([replace(entry, fps=240.0) for entry in found[0]], found[1] + " at 240 per second")


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
    "viso": find_viso,
    "vimeo90k": find_vimeo90k,
    "reds": find_reds,
    "jilin": find_jilin,
    "file": find_file,
    "spmcs": find_inside,
    "clips": find_clips,
    "adobe240": find_adobe240,
    "gopro": find_gopro,
}
# in the order of trying; processed VISO is not to be told from jilin
DETECTION = {"viso": find_raw_viso} | {
    name: FINDERS[name] for name in ("vimeo90k", "reds", "jilin", "file", "spmcs", "clips")
}
