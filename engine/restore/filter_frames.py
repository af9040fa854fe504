"""The frames that the temporal filter needs: neighbours at each step, and the key frames from which outputs are made.

Steps are explained in temporal_filter.py, which chooses among them by the motion.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from engine.restore.spacing import widest
from models.base import Network, WindowNetwork

NEIGHBOURS = 8
STEPS = (3, 2, 1)  # frames from one neighbour to the next; experiments/temporal_filter.py compares them
REACH = NEIGHBOURS * STEPS[0]  # frames: distance of the last neighbour at an end of a clip
LARGEST_STEP = 12  # outputs, in clips with intermediate frames
HELD = 2e9  # bytes: largest memory for the restored frames that a step above 1 needs


def ascending_runs(wanted: Sequence[int]) -> list[list[int]]:
    """Split frame numbers where they do not ascend."""
    runs: list[list[int]] = []
    for index in wanted:
        if not runs or index <= runs[-1][-1]:
            runs.append([])
        runs[-1].append(index)
    return runs


def reach(network: Network, form: str, context: int) -> int:
    """Maximum number of frames before and after a frame that its result with the filter `form` depends on.

    network: that of all frames, such as a key network without intermediate frames.   context: key frames that space-time networks see
    on either side.
    """
    filtered = form != "none"
    if isinstance(network, WindowNetwork):
        return network.config.frames // 2 * widest(network.spacing) + REACH * filtered
    return context + REACH * filtered


def key_positions(times_per_gap: Sequence[int]) -> list[int]:
    """Positions of the key frames among the outputs of a clip, and the number of outputs. times_per_gap: intermediate frames."""
    positions = [0, *accumulate(1 + count for count in times_per_gap)]
    return [*positions, positions[-1] + 1]


def key_frames(needed: Sequence[int], starts: Sequence[int]) -> range:
    """The key frames from which consecutive outputs are made. starts: see `key_positions`."""
    return range(bisect_right(starts, needed[0]) - 1, bisect_right(starts, needed[-1]))


def affordable_steps(out: tuple[int, int], period: int = 1) -> list[int]:
    """The steps for frames of `out` = (H, W), descending: large frames leave memory for small ones only.

    period: of the key frames among the outputs. In slow scenes, key frames are the neighbours.
    """
    size = 3 * 4 * out[0] * out[1]
    steps = [period * step for step in STEPS if period * step <= LARGEST_STEP]
    return [step for step in steps if step > 1 and (NEIGHBOURS * step + 1) * size <= HELD] + [1]


def nearest(index: int, step: int, length: int) -> list[int]:
    """The `NEIGHBOURS` multiples of `step` nearest to `index`, without itself, in a clip of `length` frames; ascending. Fewer if there
    are fewer.
    """
    first = max(index // step - NEIGHBOURS, 0) * step
    multiples = range(first, min(length, index + NEIGHBOURS * step + 1), step)
    others = sorted((number for number in multiples if number != index), key=lambda number: abs(number - index))
    return sorted(others[:NEIGHBOURS])
