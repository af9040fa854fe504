"""Measurements behind the thresholds of the data doctor and of scene cuts.

    python benchmarks/thresholds.py --stills FOLDER ... [--count 24]      measures of sound pictures, and of pictures with a fault
    python benchmarks/thresholds.py --clips FOLDER ... [--joins 400]      cuts found between joined clips, and false alarms

Stills: the middle 512x512 of pictures taken at regular intervals from the sorted list. Clips: pieces of six frames of two clips
drawn by a seed, the second resized to the first's size; and all neighbouring frames of the clips.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import numpy as np

import cli
from data import scenes
from data.clips import Clip
from data.doctor import checks
from data.layouts import open_layout
from data.media import IMAGE_SUFFIXES, read_image
from errors import InputError

SIDE, PIECE = 512, 6


def compressed(quality: int) -> Callable[[np.ndarray], np.ndarray]:
    def fault(picture: np.ndarray) -> np.ndarray:
        coded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]

    return fault


def enlarged(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    def fault(picture: np.ndarray) -> np.ndarray:
        height, width = (round(side / factor) for side in picture.shape[:2])
        return cv2.resize(picture[:height, :width], None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)

    return fault


FAULTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as they are": lambda picture: picture,
    **{f"JPEG quality {quality}": compressed(quality) for quality in (75, 50, 30)},
    **{f"enlarged {factor:g} times": enlarged(factor) for factor in (1.5, 2, 4)},
}


def stills(folders: Sequence[Path], count: int) -> None:
    """Range of each measure, and the number of pictures beyond its threshold."""
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    files = files[:: max(1, len(files) // count)][:count]
    print(f"{len(files)} pictures\n")
    limits = [("blockiness", checks.BLOCKY, 1), ("high coefficients", checks.ROUNDED, -1), ("detail", checks.SOFT, -1)]
    print("| | " + " | ".join(f"{name} (limit {limit:g})" for name, limit, _ in limits) + " |\n|---|---|---|---|")
    for fault, change in FAULTS.items():
        found = []
        for path in files:
            levels = checks.grey_levels(read_image(path)).round().astype(np.uint8)
            top, left = (max(0, side - SIDE) // 2 for side in levels.shape[:2])
            levels = change(np.ascontiguousarray(levels[top : top + SIDE, left : left + SIDE]))
            seen = checks.Quality.of(0, checks.luma(levels.astype(np.float32)))
            found.append([seen.blockiness, seen.rounded, np.nan if seen.detail is None else seen.detail])
        cells = []
        for values, (_, limit, sign) in zip(np.array(found).T, limits, strict=True):
            low, middle, high = np.nanpercentile(values, [5, 50, 95])
            beyond = int((sign * (values - limit) > 0).sum())
            cells.append(f"{low:.2f} to {high:.2f}, median {middle:.2f}; {beyond} beyond")
        print(f"| {fault} | {' | '.join(cells)} |")


def looks(clip: Clip, first: int, step: int, size: tuple[int, int]) -> list[scenes.Look]:
    frames = (np.ascontiguousarray(clip.array(first + step * k)) for k in range(PIECE))
    return [scenes.look(cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)) for frame in frames]


def clips(folders: Sequence[Path], joins: int) -> None:
    """Cuts found at the joint, and false alarms inside clips, for three distances of frames."""
    found = [pair.lr if pair.gt is None else pair.gt for folder in folders for pair in open_layout(folder).pairs]
    print(f"{len(found)} clips\n\n| every | cuts found | false alarms |\n|---|---|---|")
    for step in (1, 2, 4):
        long = [clip for clip in found if len(clip) > step * PIECE]
        if len(long) < 2:
            raise InputError(f"every {step}: needs two clips of more than {step * PIECE} frames: name more folders")
        random, cuts = np.random.default_rng(step), 0
        for _ in range(joins):
            one, other = (long[k] for k in random.choice(len(long), 2, replace=False))
            starts = [int(random.integers(len(clip) - step * PIECE)) for clip in (one, other)]
            row = looks(one, starts[0], step, one.size) + looks(other, starts[1], step, one.size)
            cuts += PIECE in scenes.cuts_in([scenes.change(*neighbours) for neighbours in pairwise(row)])
        alarms, pairs = 0, 0
        for clip in long:
            row = [scenes.look(clip.array(k)) for k in range(0, len(clip), step)]
            alarms += len(scenes.cuts_in([scenes.change(*neighbours) for neighbours in pairwise(row)]))
            pairs += len(row) - 1
        print(f"| {step} | {cuts} of {joins} | {alarms} in {pairs} pairs |")


def main() -> None:
    parser = cli.Parser(description="Measure the doctor's thresholds.")
    parser.add_argument("--stills", type=Path, nargs="+", default=[], help="folders of pictures")
    parser.add_argument("--count", type=int, default=24, help="number of pictures (default 24)")
    parser.add_argument("--clips", type=Path, nargs="+", default=[], help="clips, any layout")
    parser.add_argument("--joins", type=int, default=400, help="joined pieces (default 400)")
    options = parser.parse_args()
    if not options.stills and not options.clips:
        raise InputError("nothing to measure: name pictures with --stills or clips with --clips")
    if options.stills:
        stills(options.stills, options.count)
    if options.clips:
        clips(options.clips, options.joins)


if __name__ == "__main__":
    cli.run(main)
