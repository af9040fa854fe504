"""Scene cuts: where two neighbouring frames show different things.

Test: the colour histograms of the two frames (16 levels per channel, every fourth pixel) share less than half of their
mass, and the change stands out from those around it, so that fast motion, fades and flicker are no cuts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from data.clips import Clip
from data.media import LEVELS, replacing, rgb

LEVELS_PER_CHANNEL = 16
STRIDE = 4
THRESHOLD = 0.5  # share of the histogram's mass that must change
CONTRAST = 3.0  # times the median change of the frames around
AROUND = 4  # frames before and after that the change is compared with


def histogram(array: np.ndarray) -> np.ndarray:
    """(3, 16) histogram of an (H, W, C) frame as stored, each row summing to 1."""
    pixels = rgb(array)[::STRIDE, ::STRIDE].reshape(-1, 3)
    unit = pixels.astype(np.float32) / LEVELS[array.dtype]
    levels = np.clip(unit * LEVELS_PER_CHANNEL, 0, LEVELS_PER_CHANNEL - 1).astype(np.int64)
    counts = [np.bincount(levels[:, channel], minlength=LEVELS_PER_CHANNEL) for channel in range(3)]
    return np.stack(counts) / len(pixels)


def histogram_changes(clip: Clip) -> np.ndarray:
    """(len - 1,) share of mass in [0, 1] that changes from each frame to the next, mean over the channels."""
    previous, changes = histogram(clip.array(0)), []
    for index in range(1, len(clip)):
        current = histogram(clip.array(index))
        changes.append(np.abs(current - previous).sum(axis=1).mean() / 2)
        previous = current
    return np.array(changes)


def scene_cuts(clip: Clip) -> list[int]:
    """Numbers of the frames that begin a new scene (a cut lies before them)."""
    return cuts_in(histogram_changes(clip))


def cuts_in(changes: np.ndarray) -> list[int]:
    """The same from the histogram changes (len - 1,) of a clip."""
    cuts = []
    for position, change in enumerate(changes):
        around = np.delete(changes[max(position - AROUND, 0) : position + AROUND + 1], min(position, AROUND))
        usual = float(np.median(around)) if len(around) else 0.0
        if change > THRESHOLD and change > CONTRAST * usual:
            cuts.append(position + 1)
    return cuts


def all_scene_cuts(clips: Sequence[Clip], folder: str | Path | None = None) -> list[list[int]]:
    """Scene cuts of many clips, in threads (decoding and counting leave Python's lock).

    folder: where results are kept between runs, under a name that changes with the files.
    """

    def one(clip: Clip) -> list[int]:
        if folder is None:
            return scene_cuts(clip)
        names = "\n".join(clip.identity(index) for index in range(len(clip)))
        path = Path(folder) / f"{hashlib.sha256(names.encode()).hexdigest()[:24]}.json"
        if path.is_file():
            return json.loads(path.read_text())
        cuts = scene_cuts(clip)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(cuts))
        return cuts

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(one, clips))
