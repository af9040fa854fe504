"""Detect scene cuts between neighbouring frames.

A frame begins a new scene under three conditions: thumbnails of it and of the previous frame (longer side 64 pixels, to
reduce the effect of motion) are hardly correlated; their colour histograms differ; and the histograms differ by more than is
usual for nearby frames, so that fast motion, fades and flicker are not cuts. Training and the data doctor use this rule.
docs/data.md reports its accuracy on real clips (benchmarks/thresholds.py).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from data.clips import Clip
from data.files import replacing
from data.media import LEVELS, LUMA, rgb
from errors import InputError

LEVELS_PER_CHANNEL = 16  # bins of the colour histograms
STRIDE = 4  # histograms use every fourth pixel and row
SIDE = 64  # pixels of the thumbnail's longer side
UNLIKE = 0.6  # correlation below which two thumbnails show different scenes
CHANGED = 0.1  # share of the histogram's mass that changes at least ...
CONTRAST = 4.0  # ... and times the median change around
AROUND = 4  # number of frames before and after that a change is compared with
MOST_PIXELS = 2**18  # of the histograms of two single pictures
FLAT = 0.01  # deviation (share of the full range) below which a thumbnail is too flat to be correlated
RULE = f"{SIDE} {UNLIKE} {CHANGED} {CONTRAST} {AROUND}"  # version of the rule: cached results of other versions are ignored


class Look(NamedTuple):
    """Summary of a frame: histogram (3, 16), rows summing to 1, and luma thumbnail in [0, 1]."""

    histogram: np.ndarray
    small: np.ndarray


class Change(NamedTuple):
    """Change from one frame to the next: share of the histogram's mass that changes, and correlation of the thumbnails."""

    mass: float
    correlation: float


UNCHANGED = Change(0.0, 1.0)


def look(array: np.ndarray) -> Look:
    """Summarise an (H, W, C) frame as stored."""
    pixels = rgb(array)
    height, width = pixels.shape[:2]
    shrink = min(SIDE / max(height, width), 1.0)
    size = max(round(width * shrink), 1), max(round(height * shrink), 1)
    small = cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA).astype(np.float32)
    luma = small @ (LUMA / np.float32(LEVELS[array.dtype]))
    return Look(histogram(array), luma)


def histogram(array: np.ndarray, stride: int = STRIDE) -> np.ndarray:
    """(3, 16) histogram of every `stride`-th row and column of an (H, W, C) frame as stored, each row summing to 1."""
    pixels = rgb(array)[::stride, ::stride].reshape(-1, 3)
    unit = pixels.astype(np.float32) / LEVELS[array.dtype]
    levels = np.clip(unit * LEVELS_PER_CHANNEL, 0, LEVELS_PER_CHANNEL - 1).astype(np.int64)
    counts = [np.bincount(levels[:, channel], minlength=LEVELS_PER_CHANNEL) for channel in range(3)]
    return np.stack(counts) / len(pixels)


def change(before: Look, after: Look) -> Change:
    """Compare the summaries of two frames of one size."""
    mass = float(np.abs(after.histogram - before.histogram).sum()) / 6
    return Change(mass, correlation(before.small, after.small))


def correlation(before: np.ndarray, after: np.ndarray) -> float:
    """Correlation in [-1, 1]. It is undefined for flat thumbnails: 1 if they differ by less than one histogram bin, else 0."""
    if min(before.std(), after.std()) < FLAT:
        return float(np.abs(after - before).mean() < 1 / LEVELS_PER_CHANNEL)
    a, b = before - before.mean(), after - after.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def unlike(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether two (H, W, C) pictures of one size show different things, without other pictures to compare the change with:
    their thumbnails are hardly correlated, and their histograms differ by more than those of two samples of the same values.
    """
    if correlation(look(before).small, look(after).small) >= UNLIKE:
        return False
    stride = max(int((before.shape[0] * before.shape[1] / MOST_PIXELS) ** 0.5), 1)
    one, two = histogram(before, stride), histogram(after, stride)
    samples = before[::stride, ::stride, 0].size
    chance = (LEVELS_PER_CHANNEL / (np.pi * samples)) ** 0.5  # expected change of 16 equally filled bins
    return float(np.abs(one - two).sum()) / 6 > CHANGED + chance


def changes(clip: Clip, skip: bool = False) -> list[Change]:
    """Changes from each frame to the next, len(clip) - 1 of them.

    skip: pass over frames that cannot be read: the frame after them is compared with the one before them.
    """
    previous, found = None, []
    for index in range(len(clip)):
        try:
            current = look(clip.array(index))
        except (InputError, OSError):
            if not skip:
                raise
            current = None
        found.append(change(previous, current) if previous and current else UNCHANGED)
        previous = current or previous
    return found[1:]


def scene_cuts(clip: Clip, skip: bool = False) -> list[int]:
    """Numbers of the frames that begin a new scene, after a cut.   skip: as in `changes`."""
    return cuts_in(changes(clip, skip))


def cuts_in(found: Sequence[Change]) -> list[int]:
    """Find the cuts from the changes of a clip, in their order."""
    masses = np.array([one.mass for one in found])
    cuts = []
    for position, one in enumerate(found):
        around = np.delete(masses[max(position - AROUND, 0) : position + AROUND + 1], min(position, AROUND))
        usual = float(np.median(around)) if len(around) else 0.0
        if one.correlation < UNLIKE and one.mass > max(CHANGED, CONTRAST * usual):
            cuts.append(position + 1)
    return cuts


def _read_cuts(path: Path, length: int) -> list[int] | None:
    """Read scene cuts from a file; None if it does not hold rising frame numbers of a clip of this length."""
    try:
        cuts = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    valid = isinstance(cuts, list) and all(type(cut) is int and 0 < cut < length for cut in cuts)
    return cuts if valid and cuts == sorted(set(cuts)) else None


def all_scene_cuts(clips: Sequence[Clip], folder: str | Path | None = None, skip: bool = False) -> list[list[int]]:
    """Find scene cuts of many clips in threads (decoding and histograms release the GIL).

    folder: where results are kept between runs, under a name that changes with the files. If it cannot be written, a line says so.
    skip: as in `changes`.
    """
    problems: list[str] = []

    def one(clip: Clip) -> list[int]:
        if folder is None:
            return scene_cuts(clip, skip)
        names = "\n".join([RULE, *(clip.identity(index) for index in range(len(clip)))])
        path = Path(folder) / f"{hashlib.sha256(names.encode()).hexdigest()[:24]}.json"
        if path.is_file():
            kept = _read_cuts(path, len(clip))
            if kept is not None:
                return kept
            print(f"{path}: is damaged: detecting the scene cuts of '{clip.name}' again", flush=True)
        cuts = scene_cuts(clip, skip)
        try:
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(cuts))
        except InputError as error:
            problems.append(str(error).partition(";")[0])
        return cuts

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = list(pool.map(one, clips))
    if problems:
        print(f"{problems[0]}: the next run detects the scene cuts again", flush=True)
    return found
