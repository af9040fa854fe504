"""Means and bootstrap intervals against closed forms and a plain implementation."""

import numpy as np
import pytest

from engine.compare.statistics import differences, interval, paired, summary
from engine.evaluate.averages import means


def rows(values, **more):
    return [{"frame": str(i), "time": float(i), "psnr_y": value, **more} for i, value in enumerate(values)]


def test_both_means_are_named() -> None:
    result = summary({"a": rows([30.0, 32.0]), "b": rows([20.0])})
    assert result["mean_over_clips"] == {"psnr_y": 25.5}
    assert result["mean_over_frames"]["psnr_y"] == pytest.approx(82 / 3)
    kinds = summary({"a": [*rows([30.0], kind="key"), *rows([20.0], kind="between")]})
    assert kinds["groups"] == {"key": {"psnr_y": 30.0}, "between": {"psnr_y": 20.0}}
    assert means(rows([float("inf"), 50.0])) == {"psnr_y": 75.0}


def test_differences_are_paired_and_signed() -> None:
    a, b = {"x": rows([31.0, 33.0]), "y": rows([20.0])}, {"x": rows([30.0, 30.0]), "y": rows([19.0])}
    (entry,) = differences({"old": b, "new": a}, ["psnr_y"])
    assert (entry["a"], entry["b"], entry["frames"], entry["clips"]) == ("new", "old", 3, 2)
    assert entry["difference"] == pytest.approx(1.5)
    assert entry["low"] <= 1.5 <= entry["high"]
    assert paired(rows([float("inf"), None]), rows([90.0, 3.0]), "psnr_y").tolist() == [10.0]


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
