"""The results of one clip of an evaluation: metrics of each frame, objects, detection, and saved frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import metrics
from data.files import remove
from data.frame_writer import write_frame
from data.layouts import Pair
from engine.config import Config, EvalConfig
from engine.evaluate.averages import means
from engine.evaluate.restored import RestoredFrame
from metrics.planes import gray

DETECTED = 200  # maximum number of frames per clip for object detection, which keeps them in memory


def border(settings: EvalConfig, scale: float) -> int:
    """The pixels at each side of a frame that the metrics leave out: `eval.crop`, or those of the protocol."""
    return metrics.default_crop(settings.protocol, scale) if settings.crop is None else settings.crop


class ClipMeter:
    """Per-frame results of one clip, and the frames kept for detection and pictures."""

    def __init__(self, config: Config, pair: Pair, folder: Path | None) -> None:
        self.settings, self.pair, self.folder = config.eval, pair, folder
        self.rows: list[dict[str, Any]] = []
        self.crop = border(self.settings, config.scale)
        self.temporal = metrics.TemporalMeter() if self.settings.temporal else None
        self.objects = metrics.ObjectMeter(self.settings.protocol) if pair.boxes else None
        self.grays: dict[str, list[Any]] = {}
        self.boxes: list[list[Any]] = []
        if self.settings.save_frames and folder:
            remove_frames(folder / "frames" / pair.name)

    def add(self, restored: RestoredFrame) -> None:
        """Measure a frame, and save it if the config wants it. Frames come in time order."""
        gt, settings = self.pair.gt, self.settings
        assert gt is not None
        name = gt.frame_names[restored.index]
        row: dict[str, Any] = {"frame": name, "time": gt.times[restored.index]}
        if restored.kind:
            row["kind"] = restored.kind
        if restored.time is not None:
            row["gap_time"] = restored.time
        for prefix, picture in (("", restored.ours), ("bicubic_", restored.baseline)):
            values = metrics.fidelity(picture, restored.gt, settings.protocol, self.crop)
            row |= {prefix + key: value.item() for key, value in values.items()}
        row["gain_psnr_y"] = metrics.gain(row["psnr_y"], row["bicubic_psnr_y"])
        if self.temporal:
            row |= self.temporal.add(restored.ours, restored.gt, restored.baseline, restored.index) or {}
        self.rows.append(row)
        if self.objects and self.pair.boxes:
            self.objects.add(restored.ours, restored.gt, restored.baseline, self.pair.boxes[restored.index], name)
            self.remember(restored, self.pair.boxes[restored.index])
        if settings.save_frames and self.folder:
            self.keep(restored, self.folder / "frames" / self.pair.name / name)

    def remember(self, restored: RestoredFrame, boxes: list[Any]) -> None:
        """Keep a grey frame for the detector, which needs the full clip; at most DETECTED frames."""
        if not self.settings.detect or len(self.boxes) >= DETECTED:
            return
        shown = {
            "LR": self.pair.lr.frame(restored.index),
            "baseline": restored.baseline,
            "ours": restored.ours,
            "GT": restored.gt,
        }
        for name, frame in shown.items():
            self.grays.setdefault(name, []).append(gray(frame))
        self.boxes.append(boxes)

    def found(self) -> dict[str, metrics.DetectionCount]:
        """Detections in LR, baseline, ours and GT."""
        assert self.pair.gt is not None
        scale = self.pair.gt.size[0] / self.pair.lr.size[0]
        return {
            name: metrics.detection_count(frames, self.boxes, scale if name == "LR" else 1.0)
            for name, frames in self.grays.items()
        }

    def keep(self, restored: RestoredFrame, path: Path) -> None:
        """Write a restored frame in the type and units of the ground truth: georeferenced, stretched or float ones as TIFF, with
        its missing values.
        """
        gt = self.pair.gt
        assert gt is not None
        geo = gt.geo(restored.index)
        suffix = ".tif" if geo or gt.band_map or gt.bit_depth == 32 else ".png"
        array, holes = gt.stored(restored.ours), gt.holes(restored.index)
        if holes:
            array = np.where(holes[1], array, holes[0].astype(array.dtype))
        write_frame(path.with_name(path.name + suffix), array, geo)

    def result(self) -> dict[str, Any]:
        objects = {"objects": {**self.objects.result(), "rows": self.objects.rows}} if self.objects else {}
        detection = {"detection": {name: count.counts() for name, count in self.found().items()}} if self.grays else {}
        return {**means(self.rows), **objects, **detection, "frames": self.rows}


def remove_frames(folder: Path) -> None:
    """Remove the frames of an earlier evaluation: with a part of them replaced, a clip would have frames of two networks."""
    if folder.is_dir():
        remove(path for path in folder.iterdir() if path.is_file() and path.suffix in (".png", ".tif"))
