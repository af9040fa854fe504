"""Object metrics of a raw VISO tree with true boxes, recomputed from the files that the evaluation wrote.

The reference uses only NumPy, Pillow and scikit-image, not the product's metrics or bicubic kernel.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import structural_similarity

from data.simulate.__main__ import main as simulate
from engine.config import config_from_mapping
from engine.evaluate.measure import evaluate
from engine.sources import open_source
from settings import to_mapping
from tests.engine.conftest import tiny_mapping
from tests.engine.small import small_mtdo

SCALE = 2
Box = tuple[float, float, float, float, str]


def kernel(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def weights(length: int, scale: float) -> np.ndarray:
    """The matrix of MATLAB's imresize along one axis, row by row."""
    shrink, matrix = min(scale, 1.0), np.zeros((math.ceil(length * scale), length))
    for out, row in enumerate(matrix):
        centre = (out + 0.5) / scale - 0.5
        places = np.arange(math.floor(centre - 2 / shrink) - 1, math.ceil(centre + 2 / shrink) + 2)
        weight = kernel(shrink * (centre - places))
        mirrored = places % (2 * length)
        np.add.at(row, np.where(mirrored < length, mirrored, 2 * length - 1 - mirrored), weight / weight.sum())
    return matrix


def resized(picture: np.ndarray, scale: float) -> np.ndarray:
    rows, columns = weights(picture.shape[0], scale), weights(picture.shape[1], scale)
    return np.clip(np.rint(np.einsum("ab,bcd,ec->aed", rows, picture, columns, optimize=True)), 0, 255)


def luma(picture: np.ndarray) -> np.ndarray:
    return 16 + picture @ np.array([65.481, 128.553, 24.966]) / 255


def load(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(float)


def read_boxes(path: Path) -> dict[int, list[Box]]:
    boxes: dict[int, list[Box]] = {}
    for line in path.read_text().splitlines():
        frame, _, x, y, w, h, label = line.split(",")
        boxes.setdefault(int(frame), []).append((float(x), float(y), float(w), float(h), label))
    return boxes


def part(box: Box, shape: tuple[int, ...], margin: int = 0) -> tuple[slice, slice]:
    x, y, w, h, _ = box
    return (
        slice(max(0, math.floor(y - margin)), min(shape[0], math.ceil(y + h + margin))),
        slice(max(0, math.floor(x - margin)), min(shape[1], math.ceil(x + w + margin))),
    )


def measure(shown: np.ndarray, truth: np.ndarray, boxes: list[Box]) -> list[dict[str, Any]]:
    """psnr_y, ssim_y and contrast of every box of one frame (luma planes)."""
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    similarity = structural_similarity(truth, shown, full=True, **window)[1]
    valid, covered = np.zeros(truth.shape, bool), np.zeros(truth.shape, bool)
    valid[5:-5, 5:-5] = True
    for box in boxes:
        covered[part(box, truth.shape)] = True
    rows = []
    for box in boxes:
        inside, around = part(box, truth.shape), part(box, truth.shape, 5)
        ring, seen = ~covered[around], similarity[inside][valid[inside]]
        row = {"psnr_y": 20 * math.log10(255 / math.sqrt(((shown - truth)[inside] ** 2).mean()))}
        row["ssim_y"] = seen.mean() if seen.size else None
        row["contrast"] = None
        if ring.any():
            ours, true = (plane[inside].mean() - plane[around][ring].mean() for plane in (shown, truth))
            row["contrast"] = ours / true if abs(true) >= 4 else None
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("viso")
    objects = ["objects.vehicles=12", "objects.ships=2", "objects.planes=2", "objects.trains=1"]
    settings = ["clips=2", "frames=3", "size=[96,128]", *objects]
    assert simulate(["--out", str(root / "data"), "--layout", "viso", "--split", "test", *settings]) == 0
    mapping = tiny_mapping(root) | {
        "network": to_mapping(small_mtdo().config),
        "data": {"val": {"kind": "viso", "root": str(root / "data")}},
        "eval": {"save_frames": True},
    }
    config = config_from_mapping(mapping)
    layout = open_source(config, "val")
    return root, evaluate(small_mtdo(), layout, config, device=torch.device("cpu"), folder=root / "out", progress=False)


def test_object_metrics_equal_an_independent_computation(tree: tuple[Path, dict[str, Any]]) -> None:
    root, report = tree
    rows: list[dict[str, Any]] = []
    for sequence in sorted((root / "data").glob("mot/*/*")):
        boxes = read_boxes(sequence / "gt" / "gt.txt")
        saved = root / "out" / "frames" / sequence.parent.name / sequence.name
        for path in sorted((sequence / "img").iterdir()):
            truth, here = load(path), boxes.get(int(path.stem), [])
            bicubic = resized(resized(truth, 1 / SCALE), SCALE)
            shown = {"": load(saved / f"{path.stem}.png"), "bicubic_": bicubic}
            found = {name: measure(luma(picture), luma(truth), here) for name, picture in shown.items()}
            for number, box in enumerate(here):
                row = {"label": box[4], "area": box[2] * box[3]}
                rows.append(row | {name + key: v for name in found for key, v in found[name][number].items()})
    assert len({row["label"] for row in rows}) >= 3
    compare(rows, report["objects"]["all"])
    for label, values in report["objects"]["by_class"].items():
        compare([row for row in rows if row["label"] == label], values)
    for size, (least, most) in {"small": (0, 144), "medium": (144, 1024), "large": (1024, math.inf)}.items():
        compare([row for row in rows if least <= row["area"] < most], report["objects"]["by_size"].get(size))


def compare(rows: list[dict[str, Any]], reported: dict[str, Any] | None) -> None:
    if reported is None:
        assert not rows
        return
    assert reported["count"] == len(rows) and reported["faint"] == sum(row["contrast"] is None for row in rows)
    for key in ("psnr_y", "ssim_y", "contrast", "bicubic_psnr_y", "bicubic_ssim_y", "bicubic_contrast"):
        values = [row[key] for row in rows if row[key] is not None]
        assert reported[key] == pytest.approx(np.mean(values), abs=1e-4) if values else reported[key] is None
