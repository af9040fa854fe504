"""Layout finders: one function per layout checks whether a folder matches and lists its clips.

Each finder returns None (no match) or (entries, reason). Finders list folders and decode nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from data.clips import image_files
from data.layouts.listing import (
    ClipFiles,
    ClipQuery,
    Found,
    clip_folders,
    files_with,
    folders,
    if_file,
    lr_folder,
    named,
    other_scales,
    read_lines,
)
from data.layouts.viso import find_raw_viso
from data.media import IMAGE_SUFFIXES, probe
from data.video.opening import VIDEO_SUFFIXES
from errors import InputError

GT_NAMES = ("gt", "hr", "truth", "sharp")  # folder of ground truth inside a clip (spmcs, gopro) or above clips (jilin)


# --- kinds ------------------------------------------------------------------------------------------------------------


def find_jilin(root: Path, query: ClipQuery) -> Found:
    """ROOT/GT/CLIP/FRAME.png or ROOT/GT/CLIP.mp4, optionally with LR4x/CLIP (frames or a video) and Bicubic4x/CLIP, below a split
    folder if there are any.
    """
    if not root.is_dir():
        return None
    gt = named(root, ("gt", "hr"))
    lr = lr_folder(root, query.scale)
    low = clip_sources(lr) if lr else {}
    if gt is not None:
        clips = clip_sources(gt)
        if not clips:
            return None
        missing = next((name for name in clips if lr and name not in low), None)
        if missing is not None:
            raise InputError(f"{lr}: lacks the clip {missing} of {gt}; add it or remove the LR folder")
        boxes = root / "boxes"
        entries = [ClipFiles(name, c, low.get(name), if_file(boxes / f"{name}.txt")) for name, c in clips.items()]
        unpaired = [name for name in low if name not in clips]
        return entries, f"{len(clips)} clips in {gt.name}/, {_lr_reason(root, gt, lr, unpaired)}"
    if lr is not None and low:
        return [ClipFiles(name, None, clip) for name, clip in low.items()], f"LR only, in {lr.name}/"
    others = other_scales(root)
    if others:
        raise InputError(
            f"{root}: contains {', '.join(others)} but no GT and no LR for scale {query.scale}; change the scale"
        )
    return None


def _lr_reason(root: Path, gt: Path, lr: Path | None, unpaired: Sequence[str]) -> str:
    """Where low resolution comes from, and what is not used. unpaired: clips of `lr` that `gt` lacks."""
    if lr is None:
        unused = [path.name for path in folders(root) if path not in (gt, root / "boxes")]
        return "LR made from GT" + (f" (not used: {', '.join(unused)})" if unused else "")
    some = ", ".join(unpaired[:3]) + (", ..." if len(unpaired) > 3 else "")
    return f"LR in {lr.relative_to(root)}/" + (f" (not in {gt.name}/: {some})" if unpaired else "")


def clip_sources(root: Path) -> dict[str, Path]:
    """The folders of frames or the videos in a folder, by the clip's name. InputError for both kinds or a name that occurs twice."""
    videos, frames = files_with(root, VIDEO_SUFFIXES), clip_folders(root)
    if videos and frames:
        raise _mixed(root, videos[0], frames[0].name)
    found: dict[str, Path] = {}
    for path in frames or videos:
        other = found.setdefault(path.stem if videos else path.name, path)
        if other != path:
            raise InputError(f"{root}: {other.name} and {path.name} are clips of the same name; rename one")
    return found


def _mixed(root: Path, video: Path, folder: str) -> InputError:
    return InputError(
        f"{root}: holds videos and folders of frames ({video.name}, {folder}, ...); put them into two folders"
    )


def belongs_to_gt(folder: Path) -> bool:
    """Whether a folder holds ground truth, low resolution or enlarged frames of a clip, and is not a clip."""
    return bool(
        re.fullmatch(r"(gt|hr|truth|sharp|boxes|(lr|lq|bi|bd|bicubic|x|input|blur)[\w-]*)", folder.name.lower())
    )


def find_inside(root: Path, query: ClipQuery) -> Found:
    """ROOT/CLIP/truth/FRAME.png (SPMCS; also HR, GT, GoPro's sharp), with CLIP/LRx4 or CLIP/input4 or without."""
    if not root.is_dir():
        return None
    if (own := named(root, GT_NAMES)) and image_files(own) and all(map(belongs_to_gt, folders(root))):
        lr = lr_folder(root, query.scale)
        entry = ClipFiles(root.resolve().name, own, lr, if_file(root / "gt" / "gt.txt"))
        return [entry], f"one clip with frames in {own.name}/" + (f" and {lr.name}/" if lr else "")
    found = [(clip, named(clip, GT_NAMES)) for clip in folders(root)]
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
        lr = lr_folder(clip, query.scale)
        entries.append(ClipFiles(clip.name, gt, lr, if_file(clip / "gt" / "gt.txt")))
        names.append(f"{gt.name}/" + (f" and {lr.name}/" if lr else ""))
    return entries, f"{len(entries)} clips with frames in {', '.join(dict.fromkeys(names))}"


def find_file(root: Path, query: ClipQuery) -> Found:
    """A root that is a video, an animation, a TIFF stack or an image; or a folder of videos or of TIFF stacks, one clip each."""
    if root.is_file():
        kind = root.suffix.lower()
        if kind not in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
            raise InputError(f"{root}: unknown kind of file; expected a video, an image or a folder")
        if kind in VIDEO_SUFFIXES:
            return [ClipFiles(root.stem, root)], "one video"
        pages, stack = probe(root).pages, kind in (".tif", ".tiff")
        if pages == 1:
            return [ClipFiles(root.stem, [root])], "one image"
        return [ClipFiles(root.stem, root)], f"a TIFF of {pages} pages" if stack else f"an animation of {pages} frames"
    videos = files_with(root, VIDEO_SUFFIXES)
    images = image_files(root)
    if videos and images:
        raise InputError(
            f"{root}: holds videos and images ({videos[0].name}, {images[0].name}, ...); put them into two folders"
        )
    below = [path.name for path in folders(root) if image_files(path)]
    if videos and below:
        raise _mixed(root, videos[0], below[0])
    if videos:
        return [
            ClipFiles(video.stem, video) for video in videos
        ], f"{len(videos)} video{'s' if len(videos) > 1 else ''}"
    if images and images[0].suffix.lower() in (".tif", ".tiff") and probe(images[0]).pages > 1:
        return [ClipFiles(stack.stem, stack) for stack in images], f"{len(images)} TIFF stacks"
    return None


def find_vimeo90k(root: Path, query: ClipQuery) -> Found:
    """ROOT/sequences/00001/0001/im1.png ... im7.png with sep_trainlist.txt and sep_testlist.txt."""
    sequences = root / "sequences"
    if not sequences.is_dir():
        return None
    lists = {"train": "sep_trainlist.txt", "val": "sep_testlist.txt", "test": "sep_testlist.txt"}
    if query.split in lists:
        path = root / lists[query.split]
        if not path.is_file():
            raise InputError(f"{path}: the list of the split '{query.split}' is missing; add it or use split all")
        clips = [sequences / name for name in _vimeo_names(path)]
        reason = f"{len(clips)} clips of {path.name}"
    elif query.split is None and all((root / name).is_file() for name in set(lists.values())):
        raise InputError(f"{root}: has a training and a test list; choose with split: train, test or all")
    else:
        clips = [clip for group in folders(sequences) for clip in folders(group)]
        reason = f"{len(clips)} clips in sequences/"
    frames = [f"im{number}.png" for number in range(1, 8)]
    low = lr_folder(root, query.scale)
    entries = []
    for clip in clips:
        name = f"{clip.parent.name}/{clip.name}"
        lr = [low / name / frame for frame in frames] if low else None
        entries.append(ClipFiles(name, [clip / frame for frame in frames], lr))
    return entries, reason + (f", LR in {low.name}/" if low else "")


def _vimeo_names(path: Path) -> list[str]:
    """Read lines of the form GROUP/CLIP; any other path is an error, because clip names are also output names."""
    names = []
    for number, line in enumerate(read_lines(path, "a list of clips"), start=1):
        name = line.strip().replace("\\", "/").rstrip("/")
        if name and not re.fullmatch(r"[^/.][^/]*/[^/.][^/]*", name):
            raise InputError(f"{path}, line {number}: expected GROUP/CLIP such as 00001/0266, got {name[:80]!r}")
        names += [name] if name else []
    return names


def has_own_splits(root: Path) -> bool:
    """REDS: the split is part of the name (train_sharp), not a separate folder."""
    return any(re.fullmatch(r"(train|val|test)_sharp", path.name.lower()) for path in folders(root))


def find_reds(root: Path, query: ClipQuery) -> Found:
    """ROOT/train_sharp/CLIP/FRAME.png optionally with ROOT/train_sharp_bicubic/X4/CLIP (also val_sharp)."""
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
        low = lr_folder(bicubic, query.scale) if bicubic.is_dir() else None
        prefix = f"{gt.name}/" if len(wanted) > 1 else ""
        entries += [ClipFiles(prefix + c.name, c, low / c.name if low else None) for c in clip_folders(gt)]
        reasons.append(f"{gt.name}/" + (f" with {bicubic.name}/{low.name}/" if low else ", LR made from GT"))
    return (entries, ", ".join(reasons)) if entries else None


def find_viso(root: Path, query: ClipQuery) -> Found:
    """VISO asked for by name: raw, or processed (the layout `jilin`, with boxes/CLIP.txt or without)."""
    return find_raw_viso(root, query) or find_jilin(root, query)


def find_adobe240(root: Path, query: ClipQuery) -> Found:
    """Folders of frames at 240 per second, as extracted from the Adobe240 videos; only by name."""
    found = find_clips(root, query)
    return found and ([replace(entry, fps=240.0) for entry in found[0]], found[1] + " at 240 per second")


def find_gopro(root: Path, query: ClipQuery) -> Found:
    """ROOT/CLIP/sharp/FRAME.png or ROOT/CLIP/FRAME.png at 240 frames per second; asked for by name."""
    found = find_inside(root, query) or find_clips(root, query)
    return found and ([replace(entry, fps=240.0) for entry in found[0]], found[1] + " at 240 per second")


def find_clips(root: Path, query: ClipQuery) -> Found:
    """ROOT/CLIP/FRAME.png, or a root that is itself one folder of frames."""
    if not root.is_dir():
        return None
    here = image_files(root)
    below = clip_folders(root)
    if here and below:
        raise InputError(f"{root}: holds frames and also folders of frames ({below[0].name}, ...); choose one as root")
    if here:
        return [ClipFiles(root.resolve().name, root)], f"one folder of {len(here)} frames"
    reason = f"{len(below)} folders of frames" if len(below) > 1 else "one folder of frames"
    return ([ClipFiles(clip.name, clip) for clip in below], reason) if below else None


FINDERS: dict[str, Callable[[Path, ClipQuery], Found]] = {
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
# in the order of detection; processed VISO cannot be distinguished from jilin
DETECTION = {"viso": find_raw_viso} | {
    name: FINDERS[name] for name in ("vimeo90k", "reds", "jilin", "file", "spmcs", "clips")
}
