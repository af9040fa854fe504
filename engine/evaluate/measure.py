"""Restore clips and measure them against the ground truth, for eval.py, validation and the space-time tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from data.bands import DARK
from data.clips import Clip, DegradedClip
from data.clips.derived import Derived
from data.files import sha256
from data.layouts import Layout, Pair
from data.media import to_uint8, write_image
from engine import distributed
from engine.config import Config, config_to_mapping
from engine.evaluate.averages import summary
from engine.evaluate.clip_meter import ClipMeter, border
from engine.evaluate.restored import RestoredFrame, measured_frames, restored_frames
from engine.report import provenance
from engine.report.cost import SIDE, gmac_per_frame
from engine.restore.timing import Clock
from models.base import Network

OnPicture = Callable[[str, str, Tensor, Tensor, Tensor], None]
FOLDERS = ("frames", "pictures")  # within the output folder
BASELINES = {False: "bicubic", True: "linear blend + bicubic"}


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
    clock = Clock()
    results: dict[str, dict[str, Any]] = {}
    pictures: list[dict[str, Any]] = []
    mine = list(enumerate(layout.pairs))[distributed.rank() :: distributed.world()]
    total = sum(len(measured_frames(pair, config)) for _, pair in mine)
    quiet = not progress or not distributed.is_main()
    with tqdm(total=total, unit="frame", desc="evaluate", disable=quiet, leave=False, dynamic_ncols=True) as bar:
        for number, pair in mine:
            meter, middle = ClipMeter(config, pair, folder), shown_frame(pair, number, config)
            for restored in restored_frames(network, pair, config, device, clock):
                meter.add(restored)
                bar.update()
                if restored.index == middle:
                    pictures += show(restored, pair, folder, on_picture)
            results[pair.name] = meter.result()
    return _merged(distributed.gather((results, pictures, *clock.reading())), network, layout, config, device, weights)


def shown_frame(pair: Pair, number: int, config: Config) -> int | None:
    """The middle one of the measured frames of clip `number`, if it is among the first clips, which are shown."""
    frames = measured_frames(pair, config)
    return frames[len(frames) // 2] if number < config.eval.pictures else None


def _merged(
    gathered: list[Any], network: Network, layout: Layout, config: Config, device: torch.device, weights: Path | None
) -> dict[str, Any]:
    """The report of all ranks. gathered: results by clip, pictures, seconds and frames of each rank."""
    clips = {name: clip for part in gathered for name, clip in part[0].items()}
    report = {
        **describe(network, config, weights),
        "baseline": BASELINES[config.space_time],
        "data": {"root": str(layout.root), "kind": layout.kind, "clips": len(layout.pairs)},
        "crop": border(config.eval, config.scale),
        "settings": provenance.evaluation_settings(config) | data_settings(layout),
        "clips": {pair.name: clips[pair.name] for pair in layout.pairs},
        "pictures": [picture for part in gathered for picture in part[1]],
        **summary(list(clips.values()), config),
    }
    frames_done = sum(part[3] for part in gathered)
    report["network"]["seconds_per_frame"] = sum(part[2] for part in gathered) / max(frames_done, 1)
    report["network"]["peak_memory_mb"] = provenance.peak_memory_mb(device)
    return report


def data_settings(layout: Layout) -> dict[str, str]:
    """Lines for the report that depend on the clips: source of the low resolution, missing values."""
    return {"low resolution": low_resolution(layout)} | missing_values(layout)


def low_resolution(layout: Layout) -> str:
    """Files of the data set, or how it is made from the ground truth; with the number of clips if there are both."""
    sources = Counter(source_of_low(pair.lr) for pair in layout.pairs)
    if len(sources) == 1:
        return next(iter(sources))
    return ", ".join(f"{text} ({count} of {len(layout.pairs)} clips)" for text, count in sources.items())


def source_of_low(clip: Clip) -> str:
    """One clip's source of low resolution, whatever was cut out or compressed afterwards."""
    while isinstance(clip, Derived):
        if isinstance(clip, DegradedClip):
            return f"made from the ground truth ({clip.configured.kind})"
        clip = clip.clip
    return "files of the data set"


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


def dark_note(layout: Layout, config: Config) -> str:
    """A message if the ground truth of a clip (of its first measured frame) holds fewer than 16 bits in 16: as values of 0 to 65535
    they have far too high a PSNR."""
    for pair in layout.pairs:
        if pair.gt is not None and pair.gt.bit_depth == 16:
            index = measured_frames(pair, config)[0]
            largest = round(float(pair.gt.frame(index).amax()) * 65535)
            if largest < DARK:
                return (
                    f"clip '{pair.name}': the values of {pair.gt.source(index)} reach {largest} of 65535, so that PSNR is too high: "
                    f"name their range (data.val.bands.limits=[0,{2 ** max(largest, 1).bit_length() - 1}])"
                )
    return ""


def output_folders(config: Config) -> list[str]:
    """The folders that an evaluation writes in its output folder."""
    used = {"frames": config.eval.save_frames, "pictures": config.eval.pictures > 0}
    return [name for name in FOLDERS if used[name]]


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
