"""VISO as it is published, and data sets of the same structure: frames in SEQ/img, boxes in SEQ/gt/gt.txt."""

from __future__ import annotations

from pathlib import Path

from data.layouts.boxes import SINGLE
from data.layouts.listing import ClipFiles, ClipQuery, Found, folders, if_file, named
from errors import InputError

VISO_CLASSES = ("car", "plane", "ship", "train")


def is_viso(root: Path) -> bool:
    """Folders car, plane, ship, train, or their parent mot/. A single `train` is a split, not a class."""
    if not root.is_dir():
        return False
    names = {path.name.lower() for path in folders(root)}
    if len(names & set(VISO_CLASSES)) >= 2 or names & {"mot", "sot"}:
        return True
    return bool(names & {"car", "plane", "ship"})


def find_raw_viso(root: Path, query: ClipQuery) -> Found:
    """ROOT/mot/car/SEQ/img/FRAME.jpg with SEQ/gt/gt.txt; the root may be any folder of these from ROOT to SEQ."""
    if not root.is_dir():
        return None
    entries: list[ClipFiles] = []
    if is_viso(root):
        tops = [path for path in folders(root) if path.name.lower() in ("mot", "sot", "mod", "det")] or [root]
        for top in tops:
            prefix = f"{top.name}/" if len(tops) > 1 else ""
            for group in (path for path in folders(top) if path.name.lower() in VISO_CLASSES):
                entries += [_viso_entry(sequence, f"{prefix}{group.name}/") for sequence in folders(group)]
    elif _is_class(root) and any(_viso_frames(sequence) for sequence in folders(root)):
        entries = [_viso_entry(sequence) for sequence in folders(root)]
    elif _viso_frames(root) and _box_file(root):
        entries = [_viso_entry(root)]
    elif any(_viso_frames(sequence) and _box_file(sequence) for sequence in folders(root)):
        entries = [_viso_entry(sequence) for sequence in folders(root)]  # AIR-MOT's train/ and test/, SatSOT
        with_boxes = sum(entry.boxes is not None for entry in entries)
        return entries, f"{len(entries)} sequences with frames in img/, {with_boxes} with boxes"
    with_boxes = sum(entry.boxes is not None for entry in entries)
    return (entries, f"{len(entries)} VISO sequences, {with_boxes} with boxes") if entries else None


def _viso_frames(sequence: Path) -> Path | None:
    return named(sequence, ("img", "img1", "images"))


def _viso_entry(sequence: Path, prefix: str = "") -> ClipFiles:
    frames, group = _viso_frames(sequence), sequence.resolve().parent.name.lower()
    if frames is None:
        raise InputError(f"{sequence}: has no folder img with the frames; add it or remove the sequence")
    own = sequence.resolve().name.lower().partition("_")[0]  # SatSOT: car_01
    label = group if _is_class(sequence.resolve().parent) else own if own in VISO_CLASSES else "object"
    return ClipFiles(prefix + sequence.resolve().name, frames, None, _box_file(sequence), label)


def _box_file(sequence: Path) -> Path | None:
    return if_file(sequence / "gt" / "gt.txt") or if_file(sequence / SINGLE)


def _is_class(folder: Path) -> bool:
    """Whether a folder holds the sequences of one VISO class; a `train` next to a `test` is a split instead."""
    name = folder.resolve().name.lower()
    splits = {"test", "val", "training", "testing"}
    return name in VISO_CLASSES and not (name == "train" and any(named(folder.resolve().parent, [s]) for s in splits))
