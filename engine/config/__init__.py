"""Experiment configs: keys and defaults, YAML files, overrides, and keys that have no effect."""

from engine.config.load import (
    config_from_mapping,
    config_to_mapping,
    current_keys,
    dump_yaml,
    load_config,
    read_yaml,
)
from engine.config.schema import (
    LR_TERMS,
    MAX_SCALE,
    OPERATOR_TERMS,
    Config,
    DataConfig,
    EvalConfig,
    LossConfig,
    ScheduleConfig,
    SourceConfig,
    StageConfig,
    TrainConfig,
)

__all__ = [
    "LR_TERMS",
    "MAX_SCALE",
    "OPERATOR_TERMS",
    "Config",
    "DataConfig",
    "EvalConfig",
    "LossConfig",
    "ScheduleConfig",
    "SourceConfig",
    "StageConfig",
    "TrainConfig",
    "config_from_mapping",
    "config_to_mapping",
    "current_keys",
    "dump_yaml",
    "load_config",
    "read_yaml",
]
