"""Means over clips, frames and kinds of frames; sums of detections."""

import pytest

from engine.evaluate.averages import both_means, detection_results, means
from metrics import DetectionCount


def rows(values, **more):
    return [{"frame": str(i), "time": float(i), "psnr_y": value, **more} for i, value in enumerate(values)]


def test_both_means_are_named() -> None:
    result = both_means([rows([30.0, 32.0]), rows([20.0])])
    assert result["mean_over_clips"] == {"psnr_y": 25.5} and "groups" not in result
    assert result["mean_over_frames"]["psnr_y"] == pytest.approx(82 / 3)
    kinds = both_means([[*rows([30.0], kind="key"), *rows([20.0], kind="between")]], ["key", "between"])
    assert kinds["groups"] == {"key": {"psnr_y": 30.0}, "between": {"psnr_y": 20.0}}
    assert means(rows([float("inf"), 50.0])) == {"psnr_y": 75.0}


def test_detections_add_up_over_clips() -> None:
    found = detection_results([{"ours": DetectionCount(1, 1, 0)}, {}, {"ours": DetectionCount(2, 0, 3)}])
    assert found == {"ours": DetectionCount(3, 1, 3).result()} and detection_results([{}]) == {}
