"""Object metrics against a pixel-by-pixel computation with NumPy and scikit-image."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from errors import InputError
from metrics import ObjectMeter, box_region, size_of, summarise


@dataclass
class Box:
    track: int
    x: float
    y: float
    w: float
    h: float
    label: str


def scene(boxes, level=0.8, size=(60, 80), seed=0):
    """Gray noise with brighter objects, as 8-bit steps."""
    frame = 0.3 + 0.05 * torch.rand((3, *size), generator=torch.Generator().manual_seed(seed))
    for box in boxes:
        frame[:, int(box.y) : int(box.y + box.h), int(box.x) : int(box.x + box.w)] = level
    return (frame * 255).round() / 255


def luma(frame):
    rgb = np.rint(np.clip(frame.numpy().astype(np.float64), 0, 1) * 255) / 255
    return 16 + 65.481 * rgb[0] + 128.553 * rgb[1] + 24.966 * rgb[2]


CAR, SHIP, PLANE = Box(1, 20, 10, 6, 4, "car"), Box(2, 40, 30, 20, 10, "ship"), Box(3, 2, 12, 34, 33, "plane")


def test_psnr_ssim_and_contrast_equal_recomputation():
    boxes = [CAR, SHIP]
    gt = scene(boxes)
    pred, bicubic = scene(boxes, level=0.7, seed=1), scene(boxes, level=0.55, seed=2)
    meter = ObjectMeter(margin=1)
    meter.add(pred, gt, bicubic, boxes, frame="00000003")
    truth = luma(gt)
    for row, box in zip(meter.rows, boxes, strict=True):
        rows, columns = np.s_[box.y - 1 : box.y + box.h + 1], np.s_[box.x - 1 : box.x + box.w + 1]
        ring = np.zeros(truth.shape, bool)
        ring[box.y - 5 : box.y + box.h + 5, box.x - 5 : box.x + box.w + 5] = True
        ring[box.y : box.y + box.h, box.x : box.x + box.w] = False
        inside = np.s_[box.y : box.y + box.h, box.x : box.x + box.w]
        for prefix, frame in (("", pred), ("bicubic_", bicubic)):
            shown = luma(frame)
            rmse = np.sqrt(np.mean((shown[rows, columns] - truth[rows, columns]) ** 2))
            _, full = structural_similarity(
                shown, truth, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
            )
            survival = (shown[inside].mean() - shown[ring].mean()) / (truth[inside].mean() - truth[ring].mean())
            assert row[prefix + "psnr_y"] == pytest.approx(20 * np.log10(255 / rmse), abs=1e-6)
            assert row[prefix + "ssim_y"] == pytest.approx(full[rows, columns].mean(), abs=1e-6)
            assert row[prefix + "contrast"] == pytest.approx(survival, abs=1e-9)
        assert row["gain_psnr_y"] == row["psnr_y"] - row["bicubic_psnr_y"]
        assert (row["frame"], row["track"], row["label"]) == ("00000003", box.track, box.label)


def test_paper_protocol_equals_recomputation():
    gt, pred = scene([SHIP]), scene([SHIP], level=0.6, seed=4)
    meter = ObjectMeter("paper_mtdo")
    meter.add(pred, gt, None, [SHIP])
    a, b = (255 * (0.299 * x[2] + 0.587 * x[1] + 0.114 * x[0]).double().numpy() for x in (pred, gt))
    inside = np.s_[30:40, 40:60]
    expected = 20 * np.log10(255 / np.sqrt(np.mean((a - b)[inside] ** 2)))
    spread = b.max() - b.min()
    rows = [structural_similarity(a[y], b[y], data_range=spread, full=True)[1][40:60].mean() for y in range(30, 40)]
    assert meter.rows[0]["psnr_y"] == pytest.approx(expected, abs=1e-4)
    assert meter.rows[0]["ssim_y"] == pytest.approx(np.mean(rows), abs=1e-4)
    assert "bicubic_psnr_y" not in meter.rows[0]


def test_groups_are_means_over_objects_and_frames():
    boxes = [CAR, SHIP, PLANE]
    meter = ObjectMeter()
    for t in range(3):
        gt = scene(boxes, seed=t)
        meter.add(scene(boxes, level=0.7, seed=t + 5), gt, scene(boxes, level=0.6, seed=t + 9), boxes, frame=str(t))
    result = meter.result()
    assert result["all"]["count"] == 9 and result["skipped"] == 0
    assert {name: group["count"] for name, group in result["by_class"].items()} == {"car": 3, "plane": 3, "ship": 3}
    assert {name: group["count"] for name, group in result["by_size"].items()} == {"small": 3, "medium": 3, "large": 3}
    cars = [row["psnr_y"] for row in meter.rows if row["label"] == "car"]
    assert result["by_class"]["car"]["psnr_y"] == pytest.approx(sum(cars) / 3)
    assert result["by_size"]["small"]["contrast"] == pytest.approx(0.8, abs=0.05)
    assert summarise(meter.rows)["all"] == result["all"]


def test_sizes_by_area():
    assert [size_of(Box(0, 0, 0, w, h, "")) for w, h in ((11, 13), (12, 12), (31, 33), (32, 32))] == [
        "small",
        "medium",
        "medium",
        "large",
    ]


def test_boxes_at_the_border_are_clipped_and_those_outside_skipped():
    gt = scene([])
    pred = gt.clone()
    pred[:, :2, :3] += 0.1
    outside = [
        Box(2, 90, 5, 5, 5, "car"),
        Box(3, 5, -9, 4, 9, "car"),
        Box(4, 5, 5, 0, 3, "car"),
        Box(5, 5, 5, 3, -1, "car"),
    ]
    meter = ObjectMeter()
    meter.add(pred, gt, None, [Box(1, -4, -3, 7, 5, "car"), *outside])
    assert meter.skipped == 4 and len(meter.rows) == 1
    error = np.sqrt(np.mean((luma(pred) - luma(gt))[:2, :3] ** 2))
    assert meter.rows[0]["psnr_y"] == pytest.approx(20 * np.log10(255 / error), abs=1e-6)
    assert meter.rows[0]["ssim_y"] is None  # the 11x11 window does not fit in the first two rows
    assert meter.rows[0]["contrast"] is None and meter.result()["all"]["faint"] == 1


def test_fractional_boxes_cover_every_pixel_they_touch():
    assert box_region(Box(0, 2.3, 1.0, 3.4, 2.0, ""), (20, 20)) == (slice(1, 3), slice(2, 6))
    assert box_region(Box(0, 0.1 * 30, 0, 0.1 * 30, 2, ""), (20, 20)) == (slice(0, 2), slice(3, 6))
    assert box_region(Box(0, 2, 3, 4, 5, ""), (20, 20), margin=2) == (slice(1, 10), slice(0, 8))
    assert box_region(Box(0, 25, 3, 4, 5, ""), (20, 20)) is None


def test_ring_excludes_neighbouring_objects():
    """A second object next to the first must not raise the mean of the ring."""
    pair = [Box(1, 20, 20, 6, 4, "car"), Box(2, 27, 20, 6, 4, "car")]
    gt = scene(pair)
    dimmed = scene(pair, level=0.55)
    meter = ObjectMeter()
    meter.add(dimmed, gt, None, pair)
    ring = np.zeros(luma(gt).shape, bool)
    ring[15:29, 15:31] = True
    for box in pair:
        ring[box.y : box.y + box.h, box.x : box.x + box.w] = False
    a, b = luma(dimmed), luma(gt)
    expected = (a[20:24, 20:26].mean() - a[ring].mean()) / (b[20:24, 20:26].mean() - b[ring].mean())
    assert meter.rows[0]["contrast"] == pytest.approx(expected, abs=1e-9)


def test_identical_frames_have_100_db_and_full_contrast():
    gt = scene([CAR])
    meter = ObjectMeter()
    meter.add(gt, gt, gt, [CAR])
    row = meter.rows[0]
    assert (row["psnr_y"], row["gain_psnr_y"]) == (100.0, 0.0)
    assert row["contrast"] == 1.0 and row["ssim_y"] == pytest.approx(1)


def test_frames_without_boxes_and_bad_input():
    meter = ObjectMeter()
    meter.add(scene([]), scene([]), None, [])
    assert meter.result()["all"] == {"count": 0, "faint": 0}
    with pytest.raises(InputError, match="differ in shape"):
        meter.add(scene([]), scene([], size=(60, 79)), None, [])
    with pytest.raises(InputError, match="unknown protocol"):
        ObjectMeter("paper")
    with pytest.raises(InputError, match="margin"):
        ObjectMeter(margin=-1)
