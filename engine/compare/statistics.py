"""Paired differences of methods with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

import metrics
from engine.evaluate.averages import Rows

REPLICATES = 2000  # bootstrap samples
LEVEL = 0.95  # of the confidence intervals
SEED = 0  # of the bootstrap: the same results give the same intervals
PAIRED = ("psnr_y", "ssim_y", "lpips", "dists", "tof")  # measures whose differences are tabulated

Array = np.ndarray[Any, np.dtype[Any]]


def differences(rows: Mapping[str, Mapping[str, Rows]], measures: Sequence[str]) -> list[dict[str, Any]]:
    """For every two methods and every measure of `PAIRED`: mean difference on the same frames, and its interval.

    rows: method -> clip -> frames. Entries: `a`, `b`, `measure`, `difference` (mean over clips of a - b), `low`, `high`
    (percentile bootstrap, 95 %), `frames`, `clips`.
    """
    result = []
    for measure in (name for name in PAIRED if name in measures):
        for a, b in combinations(reversed(list(rows)), 2):
            pairs = [paired(rows[a][clip], rows[b][clip], measure) for clip in rows[a]]
            pairs = [pair for pair in pairs if len(pair)]
            if not pairs:
                continue
            low, high = interval(pairs)
            result.append(
                {
                    "a": a,
                    "b": b,
                    "measure": measure,
                    "difference": float(np.mean([pair.mean() for pair in pairs])),
                    "low": low,
                    "high": high,
                    "frames": sum(map(len, pairs)),
                    "clips": len(pairs),
                }
            )
    return result


def paired(a: Rows, b: Rows, measure: str) -> Array:
    """a - b on the frames where both have the measure; identical frames count as 100 dB."""
    values = [(metrics.mean([p.get(measure)]), metrics.mean([q.get(measure)])) for p, q in zip(a, b, strict=True)]
    return np.array([p - q for p, q in values if p is not None and q is not None], np.float64)


def interval(pairs: Sequence[Array], replicates: int = REPLICATES, seed: int = SEED) -> tuple[float, float]:
    """The 95 % interval of the mean over clips of `pairs` (one array of differences per clip).

    Two-stage bootstrap (Davison and Hinkley, 1997, section 3.8): clips are drawn with replacement, then frames within
    each drawn clip. Frames of one clip resemble each other, so drawing frames only would give intervals that are far too narrow.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(pairs), size=(replicates, len(pairs)))
    values = np.empty(drawn.shape)
    for number, differences_ in enumerate(pairs):
        places = np.nonzero(drawn == number)
        picked = rng.integers(len(differences_), size=(len(places[0]), len(differences_)))
        values[places] = differences_[picked].mean(axis=1)
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(values.mean(axis=1), [tail, 100 - tail])
    return float(low), float(high)
