"""Judge a clip by its decoded frames: changes from frame to frame, and the quality of single frames."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from data import scenes
from data.bands import hint
from data.clips import Clip
from data.doctor import checks
from data.doctor.findings import FAULT, WARNING, ClipReport
from errors import InputError

CLOSE_LOOKS = 5  # frames per clip on which artefacts and detail are judged, without `full`
STILL = 0.02  # a frame repeats the previous one if their mean difference is below this many grey levels ...
STILL_SHARE = 0.05  # ... or below this share of the clip's usual difference, as in encoded video
JUMP = 3.0  # grey levels of the median difference of two frames, and 6 times the usual, of the same scene
UNRELATED = 0.3  # median correlation of neighbours below which frames are unrelated
ALIKE = 0.8  # correlation of two frames of the same scene


def judge(report: ClipReport, clip: Clip, indices: list[int], full: bool) -> None:
    """Decode the frames; check each one, and compare it with the previous one."""
    previous: tuple[int, np.ndarray, scenes.Look] | None = None
    pairs: list[int] = []
    changes: list[checks.Change] = []
    judged = []
    close = set(indices if full else indices[:: max(len(indices) // CLOSE_LOOKS, 1)])
    for index in indices:
        try:
            array = clip.array(index)
            levels = checks.grey_levels(array)
        except InputError as error:
            report.add(FAULT, "unreadable", str(error), [clip.frame_names[index]])
            continue
        y = checks.luma(levels)
        if y.std() > 1:  # empty frames are equal without being copies
            report.digests.setdefault(hashlib.sha256(levels.tobytes()).hexdigest(), clip.frame_names[index])
        seen = scenes.look(levels / np.float32(255))
        if previous is not None and previous[0] == index - 1 and previous[1].shape == y.shape:
            pairs.append(index)
            changes.append(checks.change(previous[1], y, (previous[2], seen)))
        if index == indices[0] and (message := hint(array)):
            report.add(WARNING, "range", message)
        if index in close:
            judged.append(checks.Quality.of(index, y))
        previous = (index, y, seen)
    if pairs:
        motion(report, clip, pairs, changes)
    quality(report, clip, judged)


def motion(report: ClipReport, clip: Clip, pairs: list[int], changes: list[checks.Change]) -> None:
    """Frozen frames, scene cuts, jumps of exposure. pairs: frames that were compared with the previous one."""

    def named(numbers: Iterable[int]) -> list[str]:
        return [clip.frame_names[index] for index in sorted(numbers)]

    usual = float(np.median([change.mean for change in changes]))
    known = list(zip(pairs, changes, strict=True))
    frozen = [index for index, change in known if change.mean < max(STILL, STILL_SHARE * usual)]
    if len(frozen) == len(pairs) and len(clip) > 2:
        report.add(WARNING, "frozen", "no frame differs from the previous one: a still, not a video")
    elif frozen:
        message = "repeats the previous frame: remove it, or the motion around it is wrong"
        report.add(WARNING, "frozen", message, named(frozen))
    if float(np.median([change.scene.correlation for change in changes])) < UNRELATED:
        message = "neighbouring frames are unrelated: single pictures, not a video (data.simulate makes videos of them)"
        report.add(WARNING, "stills", message)
        return
    cuts = {pairs[cut - 1] for cut in scenes.cuts_in([change.scene for change in changes])}
    if cuts:
        message = (
            "a new scene begins here; space-time training does not cross it, windows and evaluation do: split the clip"
        )
        report.add(WARNING, "scene-cut", message, named(cuts))
    limit = max(JUMP, 6 * float(np.median([abs(change.median) for change in changes])))
    jumps = {i: c.median for i, c in known if abs(c.median) > limit and c.scene.correlation > ALIKE and i not in cuts}
    if jumps:
        message = f"the brightness jumps by {max(jumps.values(), key=abs):+.1f} grey levels while the scene stays"
        report.add(WARNING, "exposure", message, named(jumps))


def quality(report: ClipReport, clip: Clip, judged: list[checks.Quality]) -> None:
    """Empty frames, traces of compression, missing detail."""
    empty = [clip.frame_names[seen.index] for seen in judged if seen.contrast < 0.5]
    if empty:
        report.add(WARNING, "empty", "empty: all pixels have one value", empty)
    alive = [seen for seen in judged if seen.contrast >= 0.5]
    if not alive:
        return
    details = [seen.detail for seen in alive if seen.detail is not None]
    detail = float(np.median(details)) if details else 1.0
    if detail < checks.SOFT:
        message = (
            f"has hardly more detail than at half the size ({detail:.2f}, native images 0.32 and more): enlarged "
            "or out of focus; as ground truth it teaches blur"
        )
        report.add(WARNING, "soft", message)
    blocky = float(np.median([seen.blockiness for seen in alive]))
    rounded = float(np.median([seen.rounded for seen in alive]))
    if rounded < checks.ROUNDED:
        message = (
            f"was compressed as JPEG of quality 50 or less: high frequencies are rounded in large steps ({rounded:.2f})"
        )
        report.add(WARNING, "blocky", message)
    elif blocky > checks.BLOCKY and detail >= checks.SOFT:  # enlarging also leaves a grid
        message = (
            f"blocks of 8 or 4 pixels stand out ({blocky:.2f}, clean images: below 0.13): JPEG or video compression"
        )
        report.add(WARNING, "blocky", message)
