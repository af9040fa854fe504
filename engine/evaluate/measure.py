"""Restore clips and measure them against the ground truth, for eval.py, validation and the space-time tests.

Both kinds of network yield `RestoredFrame`s (a restored frame, its baseline and its ground truth); all later steps are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import metrics
from data.baseline import Bicubic
from data.clips import Clip, SubClip
from data.files import remove, sha256
from data.frame_writer import write_frame
from data.layouts import Layout, Pair
from data.media import to_uint8, write_image
from engine import distributed
from engine.config import Config, config_to_mapping
from engine.evaluate.averages import means, summary
from engine.evaluate.times import gap_times, runs
from engine.report import provenance
from engine.report.cost import SIDE, gmac_per_frame
from engine.restore import Options, restore
from engine.restore.timing import Clock
from errors import InputError
from metrics.detection import gray
from models.base import Network

DETECTED = 200  # maximum number of frames per clip for object detection, which keeps them in memory
OnPicture = Callable[[str, str, Tensor, Tensor, Tensor], None]
FOLDERS = ("frames", "pictures")  # within the output folder
BASELINES = {False: "bicubic", True: "linear blend + bicubic"}


@dataclass
class RestoredFrame:
    """One restored frame, its baseline and its truth, each (3, H, W) in [0, 1] on the CPU; `index` counts the clip's frames."""

    index: int
    ours: Tensor
    baseline: Tensor
    gt: Tensor
    kind: str = ""  # "key" or "between" for space-time networks
    time: float | None = None  # of an intermediate frame: its position between the key frames, in (0, 1)


def evaluate(
    network: Network,
    layout: Layout,
    config: Config,
    *,
    device: torch.device,
    folder: Path | None = None,
    weights: Path | None = None,
    on_picture: OnPicture | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluate `network` on every clip of `layout`; clips are shared out over ranks, every rank returns the merged report.

    `folder`: output folder of pictures (and of frames, if requested). `on_picture` gets clip, frame, bicubic, ours and ground truth
    of the middle frame of the first clips. Returns the report dict of engine/report. Raises `InputError` for unusable clips.
    """
    network = network.to(device).eval()
    clock, results, pictures = Clock(), {}, []
    mine = list(enumerate(layout.pairs))[distributed.rank() :: distributed.world()]
    total = sum(len(measured_frames(pair, config)) for _, pair in mine)
    quiet = not progress or not distributed.is_main()
    with tqdm(total=total, unit="frame", desc="evaluate", disable=quiet, leave=False, dynamic_ncols=True) as bar:
        for number, pair in mine:
            meter = ClipMeter(config, pair, folder)
            frames = measured_frames(pair, config)
            middle = frames[len(frames) // 2] if number < config.eval.pictures else None
            for restored in restored_frames(network, pair, config, device, clock):
                meter.add(restored)
                bar.update()
                if restored.index == middle:
                    pictures += show(restored, pair, folder, on_picture)
            results[pair.name] = meter.result()
    gathered = distributed.gather((results, pictures, *clock.reading()))
    clips = {name: clip for part in gathered for name, clip in part[0].items()}
    report = {
        **describe(network, config, weights),
        "baseline": BASELINES[config.space_time],
        "data": {"root": str(layout.root), "kind": layout.kind, "clips": len(layout.pairs)},
        "settings": provenance.evaluation_settings(config) | missing_values(layout),
        "clips": {pair.name: clips[pair.name] for pair in layout.pairs},
        "pictures": [picture for part in gathered for picture in part[1]],
        **summary(list(clips.values()), config),
    }
    frames_done = sum(part[3] for part in gathered)
    report["network"]["seconds_per_frame"] = sum(part[2] for part in gathered) / max(frames_done, 1)
    report["network"]["peak_memory_mb"] = provenance.peak_memory_mb(device)
    return report


def missing_values(layout: Layout) -> dict[str, str]:
    """A line for the report if frames have values that are not measured (nodata, masks): these are filled and count too."""
    names = [pair.name for pair in layout.pairs if pair.gt is not None and pair.gt.holes(0) is not None]
    text = f"filled with the nearest measured value, and counted ({len(names)} of {len(layout.pairs)} clips)"
    return {"missing values": text} if names else {}


def check_clips(layout: Layout, config: Config) -> None:
    """Raises InputError for a clip that cannot be evaluated, before the work: too short, or values that are no brightness (of its
    first measured frame).
    """
    for pair in layout.pairs:
        first = measured_frames(pair, config)[0]
        assert pair.gt is not None
        if pair.gt.bit_depth == 32:  # integers are within the range
            pair.gt.truth(first)


def output_folders(config: Config) -> list[str]:
    """The folders that an evaluation writes in its output folder."""
    used = {"frames": config.eval.save_frames, "pictures": config.eval.pictures > 0}
    return [name for name in FOLDERS if used[name]]


def measured_frames(pair: Pair, config: Config) -> list[int]:
    """The frames of `restored_indices` that are measured: with a list file those that it names."""
    frames = restored_indices(pair, config)
    if pair.listed is None:
        return frames
    listed = set(pair.listed)
    if not (found := [index for index in frames if index in listed]):
        raise InputError(
            f"clip '{pair.name}': none of its listed frames is among those that are measured (frames, stride, times): change the list"
        )
    return found


def restored_indices(pair: Pair, config: Config) -> list[int]:
    """The ground-truth frames that are restored, in time order; space-time: the last one is a key frame."""
    if pair.gt is None:
        raise InputError(f"clip '{pair.name}' has no ground truth, which evaluation needs; upscale.py does not")
    if not config.space_time:
        return list(pair.wanted(config.eval.frames))
    count = min(len(pair.gt), config.eval.frames or len(pair.gt))
    stride = config.stride
    if count < stride + 1:
        raise InputError(
            f"clip '{pair.name}' has {count} frames: a key frame every {stride} frames needs at least {stride + 1}: "
            f"use a smaller stride or longer clips"
        )
    last = (count - 1) // stride * stride
    steps = [0, *(round(time * stride) for time in config.intermediate_times)]
    return [*(key + step for key in range(0, last, stride) for step in steps), last]


def restored_frames(
    network: Network, pair: Pair, config: Config, device: torch.device, clock: Clock
) -> Iterator[RestoredFrame]:
    """The measured frames of a clip, each with its baseline and truth."""
    gt, frames, measured = pair.gt, restored_indices(pair, config), set(measured_frames(pair, config))
    assert gt is not None
    stride = config.stride if config.space_time else 0
    common: dict[str, Any] = {"device": device, "clock": clock, "options": Options(ensemble=config.eval.ensemble)}
    times: dict[int, float] = {}
    if stride:
        keys = SubClip(pair.lr, range(0, frames[-1] + 1, stride))
        gaps = true_times(gt, frames[-1], config)
        times = {
            key * stride + step: time
            for key, gap in enumerate(gaps)
            for step, time in zip(intermediate_steps(config), gap, strict=True)
        }
        baseline: Callable[[int], Tensor] = Blend(keys, stride, gt.size, times)
        outputs = in_time_order(network, keys, gaps, gt.size, common)
    else:
        baseline = Bicubic(pair.lr, gt.size)
        outputs = restore(network, pair.lr, padding=config.data.padding, frames=frames, **common)
    for index, ours in zip(frames, outputs, strict=True):
        if index not in measured:
            continue
        if not torch.isfinite(ours).all():
            raise InputError(
                f"clip '{pair.name}', frame '{gt.frame_names[index]}': the output is not finite: check the weights"
            )
        kind = "" if not stride else "between" if index % stride else "key"
        yield RestoredFrame(index, ours, baseline(index), gt.truth(index), kind, times.get(index))


def intermediate_steps(config: Config) -> list[int]:
    """Offsets, in true frames, from a key frame to the measured frames after it."""
    return [round(time * config.stride) for time in config.intermediate_times]


def true_times(gt: Clip, last: int, config: Config) -> list[list[float]]:
    """For every gap between key frames: the times in (0, 1) of the true frames in it, from the clip's frame times."""
    steps = intermediate_steps(config)
    return [gap_times(gt, key, config.stride, steps) for key in range(0, last, config.stride)]


def in_time_order(
    network: Network, keys: Clip, gaps: list[list[float]], size: tuple[int, int], common: dict[str, Any]
) -> Iterator[Tensor]:
    """Key and intermediate frames of a clip, whose gaps may have different times."""
    stretches = runs(gaps)
    for gap_range, times in stretches:
        wanted = range(gap_range.start, gap_range.stop + (gap_range is stretches[-1][0]))
        frames: dict[str, Any] = {} if len(stretches) == 1 else {"frames": wanted}
        yield from restore(network, keys, times=times, size=size, **frames, **common)


class Blend:
    """The baseline of space-time networks by frame number: bicubic key frames, linearly blended for intermediate frames."""

    def __init__(
        self, keys: Clip, stride: int, size: tuple[int, int], times: Mapping[int, float] | None = None
    ) -> None:
        """times: of intermediate frames, by frame number, if they do not divide their gap evenly."""
        self.bicubic, self.stride, self.times = Bicubic(keys, size), stride, times or {}

    def __call__(self, index: int) -> Tensor:
        key, rest = divmod(index, self.stride)
        return self.bicubic(key, self.times.get(index, rest / self.stride) if rest else 0.0)


class ClipMeter:
    """Per-frame results of one clip, and the frames kept for detection and pictures."""

    def __init__(self, config: Config, pair: Pair, folder: Path | None) -> None:
        self.settings, self.pair, self.folder = config.eval, pair, folder
        self.rows: list[dict[str, Any]] = []
        crop = self.settings.crop
        self.crop = metrics.default_crop(self.settings.protocol, config.scale) if crop is None else crop
        self.temporal = metrics.TemporalMeter() if self.settings.temporal else None
        self.objects = metrics.ObjectMeter(self.settings.protocol) if pair.boxes else None
        self.grays: dict[str, list[Any]] = {}
        self.boxes: list[list[Any]] = []
        if self.settings.save_frames and folder:
            remove_frames(folder / "frames" / pair.name)

    def add(self, restored: RestoredFrame) -> None:
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


def show(
    restored: RestoredFrame, pair: Pair, folder: Path | None, on_picture: OnPicture | None
) -> list[dict[str, Any]]:
    """Pass the frame to `on_picture` and write it for the report page; returns the page's entry."""
    assert pair.gt is not None
    frame = pair.gt.frame_names[restored.index]
    if on_picture:
        on_picture(pair.name, frame, restored.baseline, restored.ours, restored.gt)
    if folder is None:
        return []
    entry: dict[str, Any] = {"clip": pair.name, "frame": frame}
    for name, picture in (("bicubic", restored.baseline), ("ours", restored.ours), ("gt", restored.gt)):
        path = folder / "pictures" / pair.name / f"{frame}_{name}.png"
        write_image(path, to_uint8(picture))
        entry[name] = str(path)
    if pair.boxes:
        entry["boxes"] = [box._asdict() for box in pair.boxes[restored.index]]
    return [entry]


def describe(network: Network, config: Config, weights: Path | None) -> dict[str, Any]:
    """The part of a report that does not depend on the frames."""
    name, ensemble = config.network.name, config.eval.ensemble
    return {
        "title": f"{config.name}: {name.upper()}, x{config.scale:g}{', mean over eight flips and rotations' if ensemble else ''}",
        "protocol": config.eval.protocol,
        "scale": config.scale,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": provenance.commit(),
        "weights": {"path": str(weights), "sha256": sha256(weights)} if weights else {},
        "key_weights": {name: sha256(weights.parent / name) for name in config.data.key_weights} if weights else {},
        "machine": provenance.machine(),
        "network": {
            "name": name,
            "parameters": sum(p.numel() for p in network.parameters()),
            "gmac_per_frame": round(gmac_per_frame(network) * (8 if ensemble else 1), 4),
            "gmac_counted_at": f"{SIDE}x{SIDE} LR",
        },
        "config": config_to_mapping(config),
    }
