"""Paired differences and bootstrap intervals against closed forms and a plain implementation."""

import numpy as np
import pytest

from engine.compare.statistics import differences, interval, paired
from engine.compare.tables import difference_table


def rows(values, **more):
    return [{"frame": str(i), "time": float(i), "psnr_y": value, **more} for i, value in enumerate(values)]


def test_differences_are_paired_and_signed() -> None:
    a, b = {"x": rows([31.0, 33.0]), "y": rows([20.0])}, {"x": rows([30.0, 30.0]), "y": rows([19.0])}
    (entry,) = differences({"old": b, "new": a}, ["psnr_y"])
    assert (entry["a"], entry["b"], entry["frames"], entry["clips"]) == ("new", "old", 3, 2)
    assert entry["difference"] == pytest.approx(1.5)
    assert entry["low"] <= 1.5 <= entry["high"]
    assert paired(rows([float("inf"), None]), rows([90.0, 3.0]), "psnr_y").tolist() == [10.0]


def test_differences_that_round_to_zero_have_no_sign() -> None:
    entry = {"a": "new", "b": "old", "measure": "psnr_y", "difference": -0.001, "low": -0.004, "high": 0.02}
    (row,) = difference_table({"differences": [{**entry, "frames": 3, "clips": 1}]}).rows
    assert row[3:5] == ["0.00", "0.00 to +0.02"]


def test_interval_of_one_clip_equals_a_plain_bootstrap() -> None:
    values = np.random.default_rng(5).normal(1, 0.5, 40)
    low, high = interval([values], replicates=4000)
    error = values.std() / np.sqrt(40)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.03)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.03)
    assert interval([values]) == interval([values])


def test_interval_widens_when_clips_disagree() -> None:
    """Frames of a clip are not independent: three clips are three observations, however many frames they have."""
    clips = [np.full(100, value) for value in (0.0, 1.0, 2.0)]
    low, high = interval(clips)
    assert low <= 1 / 3 and high >= 5 / 3
    together = interval([np.concatenate(clips)])
    assert together[1] - together[0] < 0.3
