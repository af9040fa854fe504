"""Experiment configs: dataclasses, one YAML file per experiment, dotted overrides from the command line.

Defaults of all keys are here, in the networks' dataclasses, and in data/simulate/settings.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

import models
from data.bands import Bands
from data.compress import Compression
from data.degrade import Degradation
from data.simulate import SimulatorSettings
from errors import InputError
from settings import apply_override, from_mapping, to_mapping

MAX_SCALE = 32  # larger factors only fill memory
ROOT = Path(__file__).resolve().parents[1]


@dataclass
class SourceConfig:
    """Where clips come from: a folder in any known layout, or `kind: simulated` (clips made from stills)."""

    root: str = ""
    kind: str = "auto"
    split: str | None = None
    list_file: str | None = None
    clips: list[str] | None = None  # only clips of these names
    region: tuple[float, float, float, float] | None = None  # left, top, right, bottom as fractions of the frame
    frames: tuple[int, int] | None = None  # first and one past the last frame
    allow_gaps: bool = False
    repeat: int = 1  # training: every clip counts as this many
    bands: Bands | None = None  # images of many bands or of other ranges: which to take, how to stretch
    degradation: Degradation = field(default_factory=Degradation)
    compression: Compression = field(default_factory=Compression)  # of the low resolution
    simulate: SimulatorSettings = field(default_factory=SimulatorSettings)

    def __post_init__(self) -> None:
        if self.repeat < 1:
            raise InputError(f"'repeat' must be at least 1, got {self.repeat}")


@dataclass
class DataConfig:
    train: SourceConfig = field(default_factory=SourceConfig)
    also: list[SourceConfig] = field(default_factory=list)  # further sources to train on, mixed with `train`
    val: SourceConfig = field(default_factory=SourceConfig)
    patch: int = 64  # LR pixels
    # neighbours beyond the ends of a clip; null: as network.padding says
    padding: Literal["reflect", "replicate", "circular", "distinct"] | None = None
    flips: bool = True  # left-right and up-down (both together: 180 degrees)
    turns: bool = True  # by 90 degrees
    reverse_time: bool = True
    workers: int = 0
    cache: Literal["ram", "file", "none"] = "ram"
    cache_gb: float = 4.0
    on_error: Literal["stop", "skip"] = "stop"  # at a training sample that cannot be read; skip: count it, take another
    # space-time only
    key_frames: int = 3  # T, LR frames of one sample
    scales: tuple[float, float] = (4.0, 4.0)  # drawn uniformly per batch
    strides: list[int] = field(default_factory=lambda: [2])  # true frames from one key frame to the next
    times_per_gap: int = 1  # intermediate frames drawn per gap
    pan: int = 0  # half of the samples pan by up to this many LR pixels a frame


@dataclass
class LossConfig:
    kind: Literal["l1", "charbonnier"] = "l1"
    epsilon: float = 1e-3  # Charbonnier: sqrt(d^2 + epsilon^2)
    # space-time only: weights of the further terms
    lr_between: float = 0.0
    lr_census: float = 0.0
    lr_warp: float = 0.0  # each key frame warped by its flow, compared with the frame that the flow points to
    flow_smoothness: float = 0.0


@dataclass
class ScheduleConfig:
    kind: Literal["constant", "step", "cosine"] = "constant"
    warmup: int = 0  # steps of linear warm-up
    every: int = 0  # step: multiply by gamma after this many steps
    gamma: float = 0.5
    period: int = 0  # cosine: steps of one cycle (0: all steps of the run)
    per_stage: bool = False  # warm-up and cycle restart at every stage
    min_lr: float = 0.0


@dataclass
class StageConfig:
    """A stretch of the run with its own sampling (STNO: fixed scale first, then continuous scale and time)."""

    steps: int
    scales: tuple[float, float] | None = None
    strides: list[int] | None = None
    times_per_gap: int | None = None
    patch: int | None = None
    operator_only: bool = False  # only STNO's interpolation operator learns, from LR frames: a step is much cheaper


@dataclass
class TrainConfig:
    steps: int = 1000
    batch_size: int = 4
    accumulate: int = 1  # the batch is processed in this many parts
    optimizer: Literal["adam", "adamw", "muon"] = "adam"
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    stages: list[StageConfig] = field(default_factory=list)  # empty: one stage of `steps`
    clip_grad: float = 0.0  # maximum gradient norm, 0: no clipping
    ema: float = 0.0  # decay of the EMA of the weights, 0: none
    offset_lr: float = 1.0  # factor on the learning rate of offset convolutions
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    init: str = ""  # weights to start from
    init_partial: bool = False  # also from another size or scale: parts that do not fit keep their initial values
    log_every: int = 20
    val_every: int = 0  # 0: only at the end
    save_every: int = 500
    keep: int = 2  # states kept: the newest and those before it
    spike: float = 30.0  # loss, gradient or update this many times its running median is unusual; 0: nothing is
    on_spike: Literal["skip", "stop"] = "skip"  # an unusual step is left out, or ends the run

    def __post_init__(self) -> None:
        if self.stages:
            self.steps = sum(stage.steps for stage in self.stages)
        for name in ("steps", "batch_size", "accumulate", "log_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise InputError(f"'{name}' must be at least 1, got {getattr(self, name)}")
        if self.batch_size % self.accumulate:
            raise InputError(f"'batch_size' ({self.batch_size}) must be a multiple of 'accumulate' ({self.accumulate})")
        if not 0 <= self.ema < 1:
            raise InputError(f"'ema' must be in [0, 1), got {self.ema}")
        if not self.lr > 0:
            raise InputError(f"'lr' must be above 0, got {self.lr}")
        if self.init_partial and not self.init:
            raise InputError("'init_partial' is set, but there is nothing to start from: name weights in 'init'")

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
    protocol: Literal["standard", "paper_mtdo"] = "standard"
    crop: int | None = None  # border left out of the metrics; default: the scale (standard), 0 (paper_mtdo)
    frames: int | None = None  # only the first frames of each clip
    temporal: bool = False  # also tOF and warping error
    ensemble: bool = False  # mean over eight flips and rotations of the frames, at eight times the cost
    pictures: int = 2  # clips shown on the report page
    save_frames: bool = False
    scale: float | None = None  # space-time only; default: data.scales[0]
    stride: int | None = None  # space-time only: true frames from one key frame to the next; default: data.strides[0]
    times: list[float] | None = None  # space-time only: intermediate times to measure; default: all true frames

    def __post_init__(self) -> None:
        if self.frames is not None and self.frames < 1:
            raise InputError(f"'frames' must be at least 1, got {self.frames}")
        if self.scale is not None and not 1 <= self.scale <= MAX_SCALE:
            raise InputError(f"'scale' must be between 1 and {MAX_SCALE}, got {self.scale:g}")
        if self.stride is not None and self.stride < 2:
            raise InputError(
                f"'stride' must be at least 2, so that there is a true frame between two key frames, got {self.stride}"
            )


def _parse_network(value: Any, where: str) -> Any:
    return models.config_from_mapping(value)


@dataclass
class Config:
    """One experiment. `network` is the dataclass of the network named by `network.name`."""

    network: Any = field(metadata={"parse": _parse_network})
    name: str = "run"
    seed: int = 0
    device: str = "auto"
    dcn: Literal["auto", "compiled", "torchvision", "plain"] = "auto"
    runs: str = "runs"  # a run writes to RUNS/NAME
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    @property
    def space_time(self) -> bool:
        return self.network.name == "stno"

    @property
    def scale(self) -> float:
        """The scale of validation: the network's own, or the one asked for where the network takes any."""
        return (self.eval.scale or self.data.scales[0]) if self.space_time else self.network.scale

    @property
    def stride(self) -> int:
        """True frames from one key frame to the next in validation (space-time networks)."""
        return self.eval.stride or self.data.strides[0]


def in_repository(name: str) -> Path:
    """Path of a file or folder of this repository, relative if it is below the working folder."""
    path, here = ROOT / name, Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `key.sub=value` overrides. Raises `InputError` naming the file, key and remedy."""
    return config_from_mapping(read_yaml(path), overrides)


def config_from_mapping(mapping: Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    mapping = _merged(mapping)
    for override in overrides:
        apply_override(mapping, override)
    return from_mapping(Config, mapping)


def config_to_mapping(config: Config) -> dict[str, Any]:
    """The config with all defaults as plain values; `config_from_mapping` reads it back."""
    return to_mapping(config)


def dump_yaml(config: Config) -> str:
    return yaml.safe_dump(config_to_mapping(config), sort_keys=False)


def read_yaml(path: str | Path) -> dict[str, Any]:
    path = Path(path)
    if not path.is_file():
        known = sorted(p.as_posix() for p in in_repository("configs").glob("*.yaml"))
        raise InputError(f"config file '{path}' does not exist" + (f": try one of {', '.join(known)}" if known else ""))
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"config file '{path}'{line} is not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(mapping, dict):
        raise InputError(f"config file '{path}' holds no keys: expected groups such as 'network:' and 'train:'")
    return mapping


def _merged(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _merged(value) if isinstance(value, Mapping) else value for key, value in mapping.items()}
