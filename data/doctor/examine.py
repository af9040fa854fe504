"""Examine a data set: first each clip, then all clips against each other."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np

from data.clips import Clip, FolderClip, alike, counted_frames
from data.doctor.findings import FAULT, WARNING, ClipReport, Diagnosis, Finding
from data.doctor.frames import judge
from data.doctor.pairs import pair
from data.layouts import ClipFiles, ClipQuery, find_entries, read_boxes
from data.layouts.splits import ALIASES
from data.media import probe
from errors import InputError

SPLIT_FOLDERS = {name for names in ALIASES.values() for name in names}
SAMPLED_PAIRS = 4  # pairs of neighbouring frames decoded per clip, without `full`


def examine(
    root: str | Path,
    kind: str = "auto",
    *,
    scale: int = 4,
    full: bool = False,
    progress: Callable[[Iterable[ClipReport], int], Iterable[ClipReport]] | None = None,
) -> Diagnosis:
    """Examine the data set under `root`.

    scale: GT pixels per LR pixel, to find the LR folders.   full: decode every frame.
    progress: wraps the iterable of reports (a progress bar). Raises InputError if there is nothing to examine, or for a scale below 1.
    """
    root = Path(root)
    if not root.exists():
        raise InputError(f"{root}: no such file or folder; check the root of the data set")
    if scale < 1:
        raise InputError(f"scale: expected an integer from 1, got {scale}")
    general: list[Finding] = []
    entries: list[ClipFiles] = []
    try:
        kind, entries, reason = find_entries(root, kind, ClipQuery(scale=scale, split="all"))
    except InputError as error:
        general.append(Finding(FAULT, "structure", "", str(error)))
        try:  # examine the ground truth even if the LR folder is broken
            kind, entries, reason = find_entries(root, kind, ClipQuery(scale=None, split="all"))
        except InputError:
            reason = "not understood"
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        reports = pool.map(lambda entry: examine_clip(entry, scale, full), entries)
        clips = list(progress(reports, len(entries)) if progress else reports)
    findings = general + [finding for clip in clips for finding in clip.findings] + duplicates(clips)
    return Diagnosis(str(root), kind, reason, full, clips, findings)


def examine_clip(entry: ClipFiles, scale: int = 4, full: bool = False) -> ClipReport:
    """One clip: names, headers, frames, low resolution, boxes."""
    report = ClipReport(entry.name)
    gt, low = (_opened(report, part) for part in (entry.open_gt, entry.open_lr))
    clip = gt or low
    if clip is None:
        return report
    report.frames, report.fps = len(clip), clip.fps
    names(report, clip)
    sound, indices = _without(clip, headers(report, clip))
    if sound is None:
        return report
    report.size, report.bits = sound.size, sound.bit_depth
    judge(report, sound, [index for index in _sample(len(sound), full) if index in indices], full)
    if gt is not None and low is not None:
        report.lr_frames = len(low)
        names(report, low)
        sound_low, _ = _without(low, headers(report, low))
        report.lr_size = sound_low.size if sound_low else None
        if sound is gt and sound_low is low:
            pair(report, gt, low, scale, full)
    if entry.boxes is not None:
        boxes(report, entry, clip, sound.size)
    return report


def _opened(report: ClipReport, open_part: Callable[..., Clip | None]) -> Clip | None:
    try:
        clip = open_part(allow_gaps=True)
        if clip is not None and not isinstance(clip, FolderClip):
            _ = clip.size, clip.bit_depth
        return clip
    except InputError as error:
        report.add(FAULT, "unreadable", str(error))
        return None


def _without(clip: Clip, bad: set[int]) -> tuple[Clip | None, set[int]]:
    """A readable clip and its usable frames. The reader expects all frames to match the first: if that one is bad, the
    good frames form a new clip."""
    good = [index for index in range(len(clip)) if index not in bad]
    if not good:
        return None, set()
    if 0 not in bad or not isinstance(clip, FolderClip):
        return clip, set(good)
    return FolderClip([clip.paths[index] for index in good], clip.name, clip.fps, allow_gaps=True), set(
        range(len(good))
    )


def _sample(length: int, full: bool) -> list[int]:
    """Frames to decode: all, or pairs of neighbours spread over the clip with its first and last frame."""
    if full or length <= 2 * SAMPLED_PAIRS:
        return list(range(length))
    starts = np.linspace(0, length - 2, SAMPLED_PAIRS).astype(int)
    return sorted({int(index) for start in starts for index in (start, start + 1)})


def names(report: ClipReport, clip: Clip) -> None:
    """Gaps and doubles in the frame numbers, and pictures with names of another kind."""
    series, others = alike(clip.frame_names)
    if series and len(series) + bool(others) > 1:
        other = [clip.frame_names[index] for index in others or series[1]]
        message = f"{_folder(clip)}: other pictures next to the numbered frames; move them into another folder"
        report.add(FAULT, "other-pictures", message, other)
    numbers = counted_frames(clip.frame_names)
    if not numbers or len(numbers) < 2:
        return
    steps = [after - before for before, after in pairwise(numbers)]
    usual = Counter(step for step in steps if step > 0).most_common(1)
    step = usual[0][0] if usual else 1
    doubled = [clip.frame_names[i + 1] for i, found in enumerate(steps) if found == 0]
    if doubled:
        message = f"{_folder(clip)}: two files for the same frame; remove one of them"
        report.add(FAULT, "doubled-number", message, doubled)
    before_gap = [clip.frame_names[i] for i, found in enumerate(steps) if found > step]
    if before_gap:
        missing = sum(max(round(found / step) - 1, 1) for found in steps if found > step)
        message = f"{_folder(clip)}: {missing} frame(s) missing after the named; add them or split the clip"
        report.add(FAULT, "gap", message, before_gap)


def _folder(clip: Clip) -> str:
    return str(Path(clip.source(0)).parent)


def headers(report: ClipReport, clip: Clip) -> set[int]:
    """Check size and depth of every image file by its header, and truncation by its end. Returns the bad frames."""
    paths = getattr(clip, "paths", None)
    if paths is None:
        return set()
    infos, bad = [], set()
    for index, path in enumerate(paths):
        try:
            if _cut_off(path):
                clip.array(index)  # decoding decides: data after the end mark is harmless
            infos.append((index, probe(path)))
        except InputError as error:
            bad.add(index)
            report.add(FAULT, "unreadable", str(error), [clip.frame_names[index]])
    for kind, value in (("size", lambda info: info.size), ("depth", lambda info: info.bits)):
        usual = Counter(value(info) for _, info in infos).most_common(1)
        odd = [index for index, info in infos if value(info) != usual[0][0]]
        if odd:
            shape = "{1}x{0}".format(*usual[0][0]) if kind == "size" else f"{usual[0][0]} bits"
            frames = [clip.frame_names[index] for index in odd]
            report.add(
                FAULT,
                kind,
                f"{_folder(clip)}: {len(odd)} frame(s) differ from the clip's usual {shape}; all must be alike",
                frames,
            )
            bad.update(odd)
    return bad


def _cut_off(path: Path) -> bool:
    """Whether a PNG or JPEG lacks the mark that ends it."""
    suffix = path.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        return False
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 4096, 0))
        tail = file.read()
    return (b"IEND" not in tail[-64:]) if suffix == ".png" else (b"\xff\xd9" not in tail)


def boxes(report: ClipReport, entry: ClipFiles, clip: Clip, size: tuple[int, int]) -> None:
    """Boxes of moving objects: readable, and inside the frame."""
    assert entry.boxes is not None
    notes: list[str] = []
    try:
        found = read_boxes(entry.boxes, clip.frame_names, entry.label, notes)
    except InputError as error:
        report.add(FAULT, "boxes", str(error))
        return
    for note in notes:
        report.add(WARNING, "boxes", note)
    report.boxes = sum(map(len, found))
    height, width = size
    outside = [
        name
        for name, frame in zip(clip.frame_names, found, strict=True)
        if any(box.x + box.w <= 0 or box.y + box.h <= 0 or box.x >= width or box.y >= height for box in frame)
    ]
    if outside:
        report.add(WARNING, "boxes", f"boxes are outside the frame of {width}x{height}", outside)


def duplicates(clips: list[ClipReport]) -> list[Finding]:
    """Frames that occur in two clips; a fault if the clips belong to different splits."""
    seen: dict[str, str] = {}
    shared: Counter[tuple[str, str]] = Counter()
    for clip in clips:
        for digest in clip.digests:
            if digest in seen and seen[digest] != clip.name:
                shared[seen[digest], clip.name] += 1
            seen.setdefault(digest, clip.name)
    found = []
    for (first, second), count in shared.items():
        tops = [name.split("/")[0].lower() for name in (first, second)]
        across = tops[0] != tops[1] and all(top in SPLIT_FOLDERS for top in tops)
        tail = ", in another split: results on it are not valid" if across else ""
        message = f"{count} of the decoded frames are also in {first}{tail}; remove one of the clips"
        found.append(Finding(FAULT if across else WARNING, "duplicate", second, message))
    return found
