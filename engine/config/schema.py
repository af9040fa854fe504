"""The keys of a config with their defaults and limits, as dataclasses.

The keys of networks are in their own dataclasses, those of simulated data in data/simulate/settings.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

import models
from data.bands import Bands
from data.compress import Compression
from data.degrade import Degradation
from data.simulate import SimulatorSettings
from errors import InputError
from models.base import LARGEST_SPACING, NetworkConfig, WindowConfig
from settings import Between, FilterForm, Padding, Precision

MAX_SCALE = 32  # larger factors only fill memory


Steps = Annotated[int, Between(1, 10**9)]
StepsOrNone = Annotated[int, Between(0, 10**9)]  # 0 for never or none
Weight = Annotated[float, Between(0, 1e6)]
Scale = Annotated[float, Between(1, MAX_SCALE)]
Stride = Annotated[int, Between(1, 1000)]
Patch = Annotated[int, Between(1, 4096)]
Times = Annotated[int, Between(1, 1000)]
Share = Annotated[float, Between(0, 1)]
Beta = Annotated[float, Between(0, 0.999999)]
FrameNumber = Annotated[int, Between(-(10**9), 10**9)]


@dataclass
class SourceConfig:
    """Source of clips: a folder in any known layout, or `kind: simulated` (clips made from stills)."""

    root: str = ""
    kind: str = "auto"
    split: str | None = None
    list_file: str | None = None
    clips: list[str] | None = None  # only clips of these names
    region: tuple[Share, Share, Share, Share] | None = None  # left, top, right, bottom as fractions of the frame
    frames: tuple[FrameNumber, FrameNumber] | None = None  # first and one past the last frame
    allow_gaps: bool = False
    repeat: Annotated[int, Between(1, 10_000)] = 1  # training: weight of every clip of this source
    bands: Bands | None = None  # images with other bands or value ranges: bands to use, stretch
    degradation: Degradation = field(default_factory=Degradation)
    compression: Compression = field(default_factory=Compression)  # lossy compression of the low resolution
    simulate: SimulatorSettings = field(default_factory=SimulatorSettings)


@dataclass
class DataConfig:
    """Training and validation data, augmentation and the cache."""

    train: SourceConfig = field(default_factory=SourceConfig)
    also: list[SourceConfig] = field(default_factory=list)  # further sources to train on, mixed with `train`
    val: SourceConfig = field(default_factory=SourceConfig)
    patch: Patch = 64  # side of a training crop, LR pixels
    padding: Padding = "reflect"  # neighbours beyond the ends of a clip
    # windows: distance between the frames of a window; auto: chosen from the motion (in training: 1)
    spacing: Annotated[int, Between(1, LARGEST_SPACING)] | Literal["auto"] = 1
    temporal_filter: FilterForm = "none"  # average restored frames along the motion
    # space-time only, in evaluation: weights of window networks that restore key frames, files in the folder of the weights
    key_weights: list[str] = field(default_factory=list)
    flips: bool = True  # augmentation: left-right and up-down flips
    rotations: bool = True  # augmentation: rotations by 90 degrees
    reverse_time: bool = True
    single_frame: Share = 0.0  # windows: share of the samples with the centre frame only, as from a clip with one frame
    workers: Annotated[int, Between(0, 256)] = 0  # number of data loader processes; 0: the training process reads
    cache: Literal["ram", "file", "none"] = "ram"
    cache_gb: Annotated[float, Between(0, 1e5)] = 4.0  # limit of the cache, GiB
    on_error: Literal["stop", "skip"] = "stop"  # at a training sample that cannot be read; skip: count it, use another
    # space-time only
    key_frames: Annotated[int, Between(2, 100)] = 3  # T, LR frames of one sample
    scales: tuple[Scale, Scale] = (4.0, 4.0)  # drawn uniformly per batch
    strides: list[Stride] = field(default_factory=lambda: [2])  # true frames from one key frame to the next
    times_per_gap: Times = 1  # intermediate frames drawn per gap
    pan: Annotated[int, Between(0, 1000)] = 0  # half of the samples pan by up to this many LR pixels a frame

    def __post_init__(self) -> None:
        if not self.strides:
            raise InputError("'strides' is empty: name at least one, such as strides=[2]")
        if self.scales[0] > self.scales[1]:
            raise InputError(f"'scales' is {list(self.scales)}: expected [lowest, highest]")


@dataclass
class LossConfig:
    """Losses and their weights."""

    kind: Literal["l1", "charbonnier"] = "l1"
    epsilon: Annotated[float, Between(0, 1)] = 1e-3  # Charbonnier: sqrt(d^2 + epsilon^2)
    # space-time networks with flows: weights of further terms; lr_*: of LR frames (`LR_LOSSES` of engine/train/objectives.py)
    lr_intermediate: Weight = 0.0  # intermediate LR frames against the downscaled truth
    lr_census: Weight = 0.0  # the same with the census transform
    lr_warp: Weight = 0.0  # each key frame warped by its flow, compared with the frame that the flow points to
    flow_smoothness: Weight = 0.0  # edge-aware smoothness of the flows


LR_TERMS = tuple(key.name for key in fields(LossConfig) if key.name.startswith("lr_"))
OPERATOR_TERMS = (*LR_TERMS, "flow_smoothness")  # of the interpolation operator


@dataclass
class ScheduleConfig:
    """Learning-rate schedule."""

    kind: Literal["constant", "step", "cosine"] = "constant"
    warmup: StepsOrNone = 0  # steps of linear warm-up
    every: StepsOrNone = 0  # step: multiply by gamma after this many steps
    gamma: Annotated[float, Between(1e-6, 1)] = 0.5  # step
    period: StepsOrNone = 0  # cosine: steps of one cycle (0: all steps of the run)
    per_stage: bool = False  # warm-up and cycle restart at every stage
    min_lr: Annotated[float, Between(0, 1e4)] = 0.0  # step and cosine: never below


@dataclass
class StageConfig:
    """A part of the run with its own sampling (space-time: fixed scale first, then continuous scale and time)."""

    steps: Steps
    scales: tuple[Scale, Scale] | None = None
    strides: list[Stride] | None = None
    times_per_gap: Times | None = None
    patch: Patch | None = None
    operator_only: bool = False  # space-time: train only the interpolation operator, on LR frames, which is cheaper


@dataclass
class TrainConfig:
    """Steps, optimizer, precision, and states on disk."""

    steps: Steps = 1000
    batch_size: Annotated[int, Between(1, 65536)] = 4  # samples of one step, over all processes
    accumulate: Annotated[int, Between(1, 65536)] = 1  # number of parts that the batch is processed in
    optimizer: Literal["adam", "adamw", "muon"] = "adam"
    lr: Annotated[float, Between(0, 1e4)] = 1e-4  # learning rate
    betas: tuple[Beta, Beta] = (0.9, 0.999)  # of Adam
    weight_decay: Annotated[float, Between(0, 1e3)] = 0.0
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    stages: list[StageConfig] = field(default_factory=list)  # empty: one stage of `steps`
    clip_grad: Weight = 0.0  # maximum gradient norm, 0: no clipping
    ema: Annotated[float, Between(0, 0.999999999)] = 0.0  # decay of the EMA of the weights, 0: none
    offset_lr: Annotated[float, Between(0, 1e3)] = 1.0  # factor on the learning rate of offset convolutions
    precision: Precision = "fp32"  # auto: bf16 where the device has it; tf32: products of 10-bit mantissas, on GPUs
    deterministic: bool = False  # bit-identical results in every run, also on GPUs; slower
    channels_last: bool = False
    compile: bool = False
    init: str = ""  # weights to start from
    init_partial: bool = False  # allow weights of another size: tensors that do not fit keep their initial values
    log_every: Steps = 20
    val_every: StepsOrNone = 0  # 0: only at the end
    save_every: Steps = 500
    keep: Annotated[int, Between(1, 1000)] = 2  # number of states kept on disk
    spike: Annotated[float, Between(0, 1e9)] = 30.0  # unusual: times the running median; 0: only beyond the weights
    on_spike: Literal["skip", "stop"] = "skip"  # skip an unusual step, or stop the run

    def __post_init__(self) -> None:
        if self.stages:
            self.steps = sum(stage.steps for stage in self.stages)
        if self.batch_size % self.accumulate:
            raise InputError(f"'batch_size' ({self.batch_size}) must be a multiple of 'accumulate' ({self.accumulate})")
        if self.deterministic and self.compile:
            raise InputError("'deterministic' and 'compile' cannot be combined: compiled code may sum in any order")
        if not self.lr > 0:
            raise InputError(f"'lr' must be above 0, got {self.lr}")
        if self.init_partial and not self.init:
            raise InputError("'init_partial' is set, but 'init' is empty: name weights in 'init'")

    @property
    def all_stages(self) -> list[StageConfig]:
        """The stages, or one stage for the full run."""
        return self.stages or [StageConfig(self.steps)]

    def stage(self, step: int) -> tuple[StageConfig, int]:
        """The stage that step `step` (from 0) belongs to, and the step's number in it."""
        for stage in self.all_stages:
            if step < stage.steps:
                break
            step -= stage.steps
        return stage, step


@dataclass
class EvalConfig:
    """Metrics and frames of the evaluation."""

    protocol: Literal["standard", "paper_mtdo"] = "standard"
    crop: Annotated[int, Between(0, 4096)] | None = None  # border outside the metrics; null: scale (paper_mtdo: 0)
    frames: Annotated[int, Between(1, 10**9)] | None = None  # only the first frames of each clip
    temporal: bool = False  # also tOF and warping error
    detect: bool = False  # with boxes: precision and recall of a plain detector of moving objects
    ensemble: bool = False  # mean over eight flips and rotations of the frames, at eight times the cost
    pictures: Annotated[int, Between(0, 1000)] = 2  # number of clips shown on the report page
    save_frames: bool = False
    scale: Scale | None = None  # space-time only; default: data.scales[0]
    stride: Annotated[int, Between(2, 1000)] | None = None  # space-time only: as data.strides; default: data.strides[0]
    times: list[Share] | None = None  # space-time only: intermediate times to measure; default: all true frames


def _parse_network(value: Any, where: str) -> NetworkConfig:
    return models.config_from_mapping(value)


@dataclass
class Config:
    """One experiment. `network` is the dataclass of the network named by `network.name`."""

    network: NetworkConfig = field(metadata={"parse": _parse_network})
    name: str = "run"
    seed: Annotated[int, Between(0, 2**32 - 1)] = 0  # seed of weights, samples and all other random numbers
    device: str = "auto"
    dcn: Literal["auto", "compiled", "torchvision", "plain"] = "auto"
    runs: str = "runs"  # a run writes to RUNS/NAME
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    @property
    def space_time(self) -> bool:
        """Whether the network takes key frames and times, not windows."""
        return self.network.space_time

    @property
    def window_network(self) -> WindowConfig:
        """`network` of a network that takes windows; call it only where `space_time` is False."""
        assert isinstance(self.network, WindowConfig)
        return self.network

    @property
    def scale(self) -> float:
        """The scale of validation: the network's own, or the requested one if the network takes any."""
        return (self.eval.scale or self.data.scales[0]) if self.space_time else self.window_network.scale

    def __post_init__(self) -> None:
        if self.space_time:
            _ = self.intermediate_times  # refused before a run, not in its first validation

    @property
    def intermediate_times(self) -> list[float]:
        """Times in (0, 1) of the true frames between two key frames that validation measures (space-time networks).

        Raises `InputError` if there is no true frame at one of `eval.times`.
        """
        stride, times = self.stride, self.eval.times
        if times is None:
            return [k / stride for k in range(1, stride)]
        for time in times:
            if not 0 < time < 1 or abs(time * stride - round(time * stride)) > 1e-6:
                raise InputError(
                    f"config key 'eval.times': no true frame at {time:g} between key frames {stride} frames apart"
                )
        return [step / stride for step in sorted({round(time * stride) for time in times})]

    @property
    def stride(self) -> int:
        """True frames from one key frame to the next in validation (space-time networks)."""
        return self.eval.stride or self.data.strides[0]
