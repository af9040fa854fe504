"""List files: lines CLIP/FRAME.png or CLIP, from any operating system."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from data.layouts.finders import ClipFiles, folders
from data.layouts.listing import read_lines
from errors import InputError

META = re.compile(r"\s+\d+\s+\(\s*\d+\s*,\s*\d+\s*,\s*\d+\s*\)$")  # frames and size


def read_list(path: Path) -> list[tuple[str, str | None]]:
    """(clip, frame file or None) per line. Windows separators, CRLF, a byte-order mark, blank lines and comments (#) are accepted, and
    so are the columns that BasicSR's meta_info files add to a clip: `000 100 (720,1280,3)`.
    """
    items: list[tuple[str, str | None]] = []
    for line in read_lines(path, "a list of clips"):
        name = META.sub("", line.strip()).replace("\\", "/").strip("/")
        if not name or name.startswith("#"):
            continue
        clip, _, frame = name.rpartition("/")
        items.append((clip, frame) if clip and Path(frame).suffix else (name, None))
    if not items:
        raise InputError(f"{path}: the list is empty; expected lines CLIP/FRAME.png or CLIP")
    return items


def apply_list(list_file: str | Path, root: Path, entries: list[ClipFiles]) -> dict[str, list[int] | None]:
    """Clip name -> listed frame numbers (None: all). InputError for names that the layout lacks."""
    path = _locate(Path(list_file), root)
    frames = {entry.name: entry for entry in entries}
    listed: dict[str, list[int] | None] = {}
    known: dict[str, dict[str, int]] = {}
    for clip, frame in read_list(path):
        name = _match(clip, frames)
        parent, _, stem = clip.rpartition("/")
        if name is None and parent in frames:  # a frame without its suffix
            name, frame = parent, stem
        if name is None:
            raise InputError(f"{path}: names the clip {clip!r}, which {root} does not hold")
        if frame is None:
            listed[name] = None
            continue
        stems = known.setdefault(name, {stem: index for index, stem in enumerate(frames[name].stems())})
        index = stems.get(Path(frame).stem)
        if index is None:
            raise InputError(f"{path}: names the frame {name}/{frame}, which {root} does not hold")
        chosen = listed.setdefault(name, [])
        if chosen is not None and index not in chosen:
            chosen.append(index)
    return listed


def _match(clip: str, known: Mapping[str, ClipFiles]) -> str | None:
    """The clip of that name, or of the end of that path (list files refer to different folders)."""
    parts = clip.split("/")
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if end in known), None)


def _locate(path: Path, root: Path) -> Path:
    places = [path, root / path, *(folder / path for folder in (folders(root) if root.is_dir() else []))]
    for place in places:
        if place.is_file():
            return place
    raise InputError(f"{path}: no such list file, neither here nor under {root}")
