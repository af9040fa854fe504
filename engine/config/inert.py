"""Reject keys that have no effect: a config that sets one does not have the intended effect."""

from __future__ import annotations

from typing import Any

from engine.config.schema import OPERATOR_TERMS, Config
from errors import InputError
from models.base import WINDOW_SETTINGS

SPACE_TIME_KEYS = (
    *(f"data.{key}" for key in ("key_weights", "key_frames", "scales", "strides", "times_per_gap", "pan")),
    *(f"loss.{key}" for key in OPERATOR_TERMS),
    *(f"eval.{key}" for key in ("scale", "stride", "times")),
    "train.channels_last",
)


def foreign_keys(config: Config) -> dict[str, str]:
    """Keys for another kind of network or data, with the reason."""
    if config.space_time:
        keys = (f"data.{key}" for key in (*WINDOW_SETTINGS, "single_frame"))
        result = dict.fromkeys(keys, "it is for networks with a window of frames")
    else:
        result = dict.fromkeys(SPACE_TIME_KEYS, f"it is for space-time networks, not for {config.network.name}")
    return result | {"data.val.repeat": "it is for training data"}


def idle_keys(config: Config) -> dict[str, str]:
    """Keys that another key disables, with the reason. A file may set them, because the command line may enable them."""
    train, schedule = config.train, config.train.schedule
    result = {f"network.{key}": why for key, why in config.network.idle_keys().items()}
    if config.loss.kind == "l1" and not (config.loss.lr_intermediate or config.loss.lr_warp):
        result["loss.epsilon"] = "no term of the loss is Charbonnier"
    if schedule.kind != "step":
        result |= dict.fromkeys(("train.schedule.every", "train.schedule.gamma"), "the schedule is not 'step'")
    if schedule.kind != "cosine":
        result["train.schedule.period"] = "the schedule is not 'cosine'"
    if schedule.kind == "constant":
        result["train.schedule.min_lr"] = "the schedule is 'constant'"
    if train.stages:
        result |= keys_of_stages(config)
    else:
        result["train.schedule.per_stage"] = "there are no stages"
    if config.data.cache == "none":
        result["data.cache_gb"] = "nothing is cached"
    if not train.spike:
        result["train.on_spike"] = "train.spike is 0"
    return result | keys_of_sources(config)


def keys_of_sources(config: Config) -> dict[str, str]:
    """Keys of folders where clips are simulated, and of the simulator where they are read from a folder, with the reason."""
    result: dict[str, str] = {}
    for part in ("train", "val"):
        key, source = f"data.{part}", getattr(config.data, part)
        if source.kind == "simulated":
            keys = (f"{key}.{name}" for name in ("root", "list_file", "allow_gaps", "bands"))
            result |= dict.fromkeys(keys, f"{key}.kind is 'simulated' ({key}.kind=auto reads files)")
        elif source.root:
            result[f"{key}.simulate"] = f"clips are read from {key}.root ({key}.kind=simulated renders them)"
    return result


def keys_of_stages(config: Config) -> dict[str, str]:
    """Keys that every stage sets for itself, with the reason. Validation uses `data.scales` and `data.strides` by default."""
    result = {"train.steps": "train.stages sets the steps, such as train.stages=[{steps: 100}]"}
    validated = {"scales": config.eval.scale is None, "strides": config.eval.stride is None}
    for key in ("patch", "times_per_gap", "scales", "strides"):
        if not validated.get(key) and all(getattr(stage, key) is not None for stage in config.train.stages):
            result[f"data.{key}"] = "every stage in train.stages has its own"
    return result


def check_inert(config: Config, overridden: set[str]) -> None:
    """Raise `InputError` for a key without effect: of another kind and not at its default, or any such key in `overridden`."""
    default = type(config)(network=type(config.network)())
    foreign = foreign_keys(config)
    for key, why in (foreign | idle_keys(config)).items():
        given = any(name == key or name.startswith(f"{key}.") for name in overridden)
        if given or (key in foreign and _at(config, key) != _at(default, key)):
            raise InputError(f"config key '{key}' has no effect: {why}: remove it")
    check_sources_of_crops(config)
    if config.train.schedule.kind == "step" and not config.train.schedule.every:
        raise InputError("config key 'train.schedule.every' is missing: schedule 'step' needs it, such as every=10000")
    for number, stage in enumerate(config.train.stages):
        for key in ("scales", "strides", "times_per_gap"):
            if not config.space_time and getattr(stage, key) is not None:
                raise InputError(f"config key 'train.stages[{number}].{key}' is for space-time networks: remove it")


def check_sources_of_crops(config: Config) -> None:
    """Raise `InputError` for settings of the low resolution that training at any scale ignores.

    Its low resolution is made from crops by `data.train.degradation`.
    """
    data = config.data
    scales = [stage.scales or data.scales for stage in config.train.all_stages] if config.space_time else []
    free = next((pair for pair in scales if pair[0] < pair[1] or not float(pair[0]).is_integer()), None)
    if free is None:
        return
    for name, source in [("train", data.train), *((f"also[{i}]", each) for i, each in enumerate(data.also))]:
        for key, ignored in (
            ("compression.share", source.compression.share > 0),
            ("degradation", source.degradation != data.train.degradation),
        ):
            if ignored:
                raise InputError(
                    f"config key 'data.{name}.{key}' has no effect at scales {list(free)}, where low resolution is made from crops by "
                    "data.train.degradation: remove it, or use one integer scale"
                )


def _at(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return config
