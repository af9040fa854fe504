"""The detector on squares with known motion, and its score in hand-counted cases."""

from types import SimpleNamespace

import numpy as np
import pytest

from metrics import DetectionCount, detect, detection_count
from metrics.detection import score


def scene(frames: int = 9, drift: float = 0.0) -> tuple[list[np.ndarray], list[list[SimpleNamespace]]]:
    """Texture with noise; two squares move, one does not."""
    rng = np.random.default_rng(0)
    ground = np.kron(rng.uniform(60, 120, (12, 12)), np.ones((12, 12)))
    clip, boxes = [], []
    for t in range(frames):
        frame = np.roll(ground, round(drift * t), axis=1) + rng.normal(0, 1.5, ground.shape)
        places = [(10 + 9 * t, 20, 6, 6), (110 - 7 * t, 90, 5, 5)]
        for x, y, w, h in places:
            frame[y : y + h, x : x + w] = 230
        frame[60:66, 60:66] = 230
        clip.append(frame.clip(0, 255).astype(np.uint8))
        boxes.append(
            [SimpleNamespace(x=x, y=y, w=w, h=h, track=i, label="car") for i, (x, y, w, h) in enumerate(places)]
        )
    return clip, boxes


def test_moving_objects_are_found_and_still_ones_are_not():
    clip, boxes = scene()
    result = detection_count(clip, boxes).result()
    assert result["boxes"] == 18
    assert result["recall"] == 1.0
    assert result["precision"] > 0.85


def test_still_and_short_clips_have_no_detections():
    clip, _ = scene()
    assert all(len(found) == 0 for found in detect([clip[0]] * 5))
    assert [len(found) for found in detect(clip[:2])] == [0, 0]


def test_lr_detections_are_scored_in_gt_pixels():
    clip, boxes = scene()
    small = [frame.reshape(72, 2, 72, 2).mean(axis=(1, 3)).astype(np.uint8) for frame in clip]
    assert detection_count(small, boxes, scale=2).result()["recall"] == 1.0


def test_matching_is_one_to_one_and_nearest_first():
    box = SimpleNamespace(x=10, y=10, w=4, h=4, track=0, label="car")
    far = SimpleNamespace(x=40, y=40, w=4, h=4, track=1, label="car")
    found = np.array([[10, 10, 4, 4], [12, 10, 4, 4], [60, 60, 4, 4]])
    assert score(found, [box, far]) == DetectionCount(true=1, false=2, missed=1)
    assert score(np.empty((0, 4)), [box]) == DetectionCount(missed=1)
    total = DetectionCount(2, 1, 0) + DetectionCount(1, 0, 2)
    assert total.result() == {"precision": 0.75, "recall": 0.6, "f1": pytest.approx(6 / 9), "detections": 4, "boxes": 5}
    assert DetectionCount().result()["f1"] is None
