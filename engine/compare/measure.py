"""Measure every method's frames against the ground truth: one row of values per method, clip and frame.

All methods are measured on the same frames with the same code; bicubic is computed here from the low resolution. Memory
holds two frames of each method; only the detection of moving objects keeps a clip, in gray.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

import metrics
from data.bands import BandMap
from data.baseline import Bicubic
from data.clips import Clip, SubClip
from data.degrade import imresize
from data.layouts import Pair
from data.media import to_tensor
from engine.compare.results import ResultClip
from engine.config import EvalConfig
from engine.evaluate.clip_meter import DETECTED, border
from engine.evaluate.restored import Blend
from engine.evaluate.times import gap_times
from errors import InputError
from metrics.measured import Array
from metrics.planes import gray

BICUBIC = "bicubic"
SPATIAL = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb")
MULTISCALE = ("ms_ssim_y", "ms_ssim_rgb")
TEMPORAL = ("tof", "warping_error")
INPUT = ("consistency", "bias_1", "bias_2", "bias_3")  # agreement with the low resolution
DETAIL = ("restored", "omitted", "invented", "invented_elsewhere")
DEFAULT = (*SPATIAL, "ms_ssim_y", *TEMPORAL, "consistency", "restored", "omitted", "invented", "invented_elsewhere")
KNOWN = (*SPATIAL, *metrics.FRAME_METRICS, *TEMPORAL, *metrics.PERCEPTUAL, "tlpips", "consistency", *DETAIL)
WINDOW = 96  # pixels a side of the places where methods are compared
Row = dict[str, Any]


@dataclass
class Settings:
    """Settings of the measurement."""

    protocol: str
    crop: int
    scale: float
    measures: tuple[str, ...]
    stride: int | None = None  # frames from one key frame to the next, for methods with intermediate frames
    frames: int | None = None
    ndvi: tuple[int, int] | None = None  # positions of near infrared and red among the bands shown, from 1

    @classmethod
    def of(cls, config: EvalConfig, scale: float, measures: Sequence[str], ndvi: tuple[int, int] | None) -> Settings:
        """Settings from the evaluation config. Raises InputError for an unknown measure."""
        for name in measures:
            if name not in KNOWN:
                raise InputError(f"--metrics: unknown metric '{name}': choose from {', '.join(KNOWN)}")
        return cls(config.protocol, border(config, scale), scale, tuple(measures), config.stride, config.frames, ndvi)


class DisputedPlace(NamedTuple):
    """A square of a frame in pixels of the ground truth, and by how much the methods' errors differ in it."""

    amount: float
    frame: int
    x: int
    y: int
    side: int


@dataclass
class ClipRows:
    """The results of one clip: `rows[method]` in time order, and further results of the same pass."""

    pair: Pair
    indices: list[int]
    rows: dict[str, list[Row]]
    objects: dict[str, metrics.ObjectMeter] = field(default_factory=dict)
    found: dict[str, metrics.DetectionCount] = field(default_factory=dict)  # also of LR and GT
    disputed: list[DisputedPlace] = field(default_factory=list)  # of each frame
    notes: list[str] = field(default_factory=list)


class MethodFrames:
    """The frames of every method for one clip, by the ground truth's frame number."""

    def __init__(self, pair: Pair, results: Mapping[str, ResultClip], stride: int | None) -> None:
        assert pair.gt is not None
        self.pair, self.results, self.gt = pair, results, pair.gt
        self.bands: BandMap | None = pair.gt.band_map
        self.baseline: Any = Bicubic(pair.lr, pair.gt.size)
        if stride:
            keys, steps = range(0, (len(pair.gt) - 1) // stride * stride + 1, stride), range(1, stride)
            times = {
                key + step: time
                for key in keys[:-1]
                for step, time in zip(steps, gap_times(pair.gt, key, stride, steps), strict=True)
            }
            self.baseline = Blend(SubClip(pair.lr, keys), stride, pair.gt.size, times)

    def __call__(self, index: int) -> dict[str, Tensor]:
        """Every method's frame (3, H, W), bicubic first."""
        return {BICUBIC: self.baseline(index)} | {name: self.of(name, index) for name in self.results}

    def of(self, name: str, index: int) -> Tensor:
        """One method's frame, or bicubic's, or `gt`."""
        if name == BICUBIC:
            return self.baseline(index)
        return self.gt.truth(index) if name == "gt" else to_tensor(self.results[name].array(index))


def common_frames(pair: Pair, results: Mapping[str, ResultClip], settings: Settings) -> tuple[list[int], list[str]]:
    """The measured frames: selected by the evaluation and present for every method; and a note on missing ones."""
    assert pair.gt is not None
    wanted = pair.wanted(settings.frames)
    if settings.stride:  # up to the last key frame
        last = (min(len(pair.gt), settings.frames or len(pair.gt)) - 1) // settings.stride * settings.stride
        wanted = [index for index in pair.wanted() if index <= last]
    indices = [index for index in wanted if all(index in result.frames for result in results.values())]
    lacking = {name: sum(index not in result.frames for index in wanted) for name, result in results.items()}
    if not indices:
        worst = max(lacking, key=lambda name: lacking[name])
        raise InputError(f"--results {worst}, clip '{pair.name}': none of its frames is in the other methods' results")
    missing = ", ".join(f"{name} lacks {number}" for name, number in lacking.items() if number)
    return indices, [f"{pair.name}: {len(indices)} of {len(wanted)} frames measured ({missing})"] if missing else []


def measure_clip(pair: Pair, results: Mapping[str, ResultClip], settings: Settings, bar: tqdm) -> ClipRows:
    """All values of one clip."""
    indices, notes = common_frames(pair, results, settings)
    shown = MethodFrames(pair, results, settings.stride)
    names = [BICUBIC, *results]
    clip = ClipRows(pair, indices, {name: [] for name in names}, notes=notes)
    meter = FrameMeter(settings, pair, names)
    clip.notes += meter.notes
    if pair.boxes:
        clip.objects = {name: metrics.ObjectMeter(settings.protocol) for name in names}
    grays: dict[str, list[Array]] = {name: [] for name in ("LR", *names, "GT")} if pair.boxes else {}
    for index in indices:
        gt, frames = shown.gt.truth(index), shown(index)
        for name, values in meter.add(index, frames, gt).items():
            clip.rows[name].append(_head(shown.gt, index, settings) | values)
        clip.disputed.append(disputed_place(index, frames, gt, settings.crop))
        if pair.boxes:
            for name, frame in frames.items():
                clip.objects[name].add(frame, gt, None, pair.boxes[index], shown.gt.frame_names[index])
            for name, frame in (("LR", pair.lr.frame(index)), *frames.items(), ("GT", gt)):
                if len(grays[name]) < DETECTED:
                    grays[name].append(gray(frame))
        bar.update()
    if pair.boxes:
        boxes = [pair.boxes[index] for index in indices[:DETECTED]]
        for name, stack in grays.items():
            enlarged = shown.gt.size[0] / pair.lr.size[0] if name == "LR" else 1.0
            clip.found[name] = metrics.detection_count(stack, boxes, enlarged)
    return clip


def _head(gt: Clip, index: int, settings: Settings) -> Row:
    row: Row = {"frame": gt.frame_names[index], "time": gt.times[index]}
    if settings.stride:
        row["kind"] = "between" if index % settings.stride else "key"
    return row


class FrameMeter:
    """Measures the frames of one clip, all methods of a frame at once."""

    def __init__(self, settings: Settings, pair: Pair, names: Sequence[str]) -> None:
        assert pair.gt is not None
        self.settings, self.pair, self.names, self.notes = settings, pair, names, list[str]()
        self.requested = set(settings.measures)
        smallest = min(pair.gt.size)
        multiscale = self.requested & set(MULTISCALE)
        if multiscale and (settings.protocol != "standard" or smallest - 2 * settings.crop < metrics.MS_SSIM_SIDE):
            why = "frames are too small for" if settings.protocol == "standard" else "this protocol has no"
            self.notes.append(f"{pair.name}: {why} MS-SSIM")
            self.requested -= multiscale
        self.motion = metrics.MotionMeter() if self.requested & set(TEMPORAL) and smallest >= 16 else None
        self.perceptual = metrics.Perceptual(name for name in metrics.PERCEPTUAL if name in self.requested)
        self.flicker = metrics.PerceptualFlicker() if "tlpips" in self.requested else None

    def add(self, index: int, frames: Mapping[str, Tensor], gt: Tensor) -> dict[str, Row]:
        """Every method's values of frame `index`. frames: by method, with bicubic, each (3, H, W) as `gt`."""
        rows = {name: self._single(index, frame, frames[BICUBIC], gt) for name, frame in frames.items()}
        gaps = self.motion.add(frames, gt, index) if self.motion else None
        for name, gap in (gaps or {}).items():
            kept = {key: value for key, value in gap.items() if key.removeprefix("gt_") in self.requested}
            rows[name] |= kept
        for name, change in ((self.flicker.add(frames, gt, index) if self.flicker else None) or {}).items():
            rows[name]["tlpips"] = change
        return rows

    def _single(self, index: int, frame: Tensor, bicubic: Tensor, gt: Tensor) -> Row:
        settings, requested = self.settings, self.requested
        row: Row = {}
        if requested & set(SPATIAL):
            values = metrics.fidelity(frame, gt, settings.protocol, settings.crop)
            row |= {key: value.item() for key, value in values.items() if key in requested}
        for name, metric in metrics.FRAME_METRICS.items():
            if name in requested:
                row[name] = metric(frame, gt, settings.crop).item()
        row |= self.perceptual(frame, gt)
        if requested & set(DETAIL):
            shares = metrics.detail_shares(frame, bicubic, gt, settings.crop)
            row |= {key: value for key, value in shares.items() if key in requested}
        if "consistency" in requested or settings.ndvi:
            row |= agreement(frame, self.pair.lr, index, settings.ndvi)
        return row


def agreement(frame: Tensor, lr: Clip, index: int, bands: tuple[int, int] | None) -> Row:
    """Compare a result, downscaled with the bicubic kernel, with its input.

    `consistency`: PSNR over all bands in dB. `bias_N`: mean difference of band N in grey levels of 255, or in the units
    of the files if bands are stretched. With `bands` (near infrared, red) also the change of NDVI.
    """
    degraded, low = imresize(frame, size=lr.size), lr.frame(index)
    result = metrics.consistency(degraded, low)
    error = float(result["rmse"].square().mean().sqrt())
    row: Row = {"consistency": float("inf") if error == 0 else -20 * float(torch.log10(torch.tensor(error)))}
    levels = 255.0 if lr.band_map is None or lr.band_map.low is None else lr.band_map.high - lr.band_map.low
    bias = result["bias"].numpy() * levels
    row |= {f"bias_{number}": float(value) for number, value in enumerate(bias[: lr.channels], start=1)}
    if bands:
        units = [torch.from_numpy(lr.stored(part).astype("float64")).movedim(-1, 0) for part in (degraded, low)]
        row |= metrics.ndvi_change(units[0], units[1], bands[0] - 1, bands[1] - 1)
    return row


def disputed_place(index: int, frames: Mapping[str, Tensor], gt: Tensor, crop: int) -> DisputedPlace:
    """The window of frame `index` where the methods' errors differ most.

    With several methods bicubic is excluded, because it differs from all of them nearly everywhere.
    """
    if len(frames) > 2:
        frames = {name: frame for name, frame in frames.items() if name != BICUBIC}
    errors = torch.stack([(metrics.planes(frame) - metrics.planes(gt))[0].square() for frame in frames.values()])
    spread = errors.amax(0) - errors.amin(0)
    side = min(WINDOW, *(max(length - 2 * crop, 1) for length in spread.shape))
    inner = spread[crop : spread.shape[0] - crop, crop : spread.shape[1] - crop]
    step = max(side // 3, 1)
    sums = torch.nn.functional.avg_pool2d(inner[None, None], side, step)[0, 0]
    best = int(sums.argmax())
    row, column = divmod(best, sums.shape[1])
    return DisputedPlace(float(sums.flatten()[best]), index, crop + column * step, crop + row * step, side)


def check_ndvi(bands: tuple[int, int] | None, pairs: Iterable[Pair]) -> None:
    """Check that the two bands for NDVI are among those shown."""
    for pair in pairs if bands else ():
        if max(bands or ()) > pair.lr.channels or min(bands or (1,)) < 1:
            raise InputError(
                f"--ndvi {bands}: clip '{pair.name}' shows {pair.lr.channels} band(s): name two of them, from 1"
            )
