"""Read and write configs: one YAML file per experiment, `key.sub=value` overrides from the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.config.inert import check_inert
from engine.config.schema import Config
from errors import InputError
from models.base import USES
from settings import apply_override, from_mapping, parse_yaml, shorten, to_mapping
from settings import dump_yaml as dumped

LARGEST_FILE = 2**20  # bytes of a config file
ROOT = Path(__file__).resolve().parents[2]


def in_repository(name: str) -> Path:
    """Path of a file or folder of this repository, relative if it is below the working folder."""
    path, here = ROOT / name, Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `key.sub=value` overrides. Raises `InputError` naming the file, key and remedy."""
    return config_from_mapping(read_yaml(path), overrides)


def config_from_mapping(mapping: Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """A config from nested mappings and overrides. Raises `InputError` for unknown keys, invalid values, and keys without
    effect for this network and the other keys."""
    mapping = _with_uses_in_data(_merged(mapping))
    overrides = [_current_override(override) for override in overrides]
    for override in overrides:
        apply_override(mapping, override)
    config = from_mapping(Config, mapping)
    check_inert(config, {override.partition("=")[0] for override in overrides})
    return config


def _with_uses_in_data(mapping: dict[str, Any]) -> dict[str, Any]:
    """`network.spacing` and `network.padding`, from configs before version 0.2, become keys of `data`."""
    network = mapping.get("network")
    earlier = {key: network.pop(key) for key in USES if key in network} if isinstance(network, dict) else {}
    data = mapping.get("data", {})
    if not earlier or not isinstance(data, dict | None):  # `from_mapping` refuses other types
        return mapping
    return {**mapping, "data": {**earlier, **(data or {})}}


def _current_override(override: str) -> str:
    """`network.spacing=2` as `data.spacing=2`; other overrides are unchanged."""
    key = override.partition("=")[0].removeprefix("network.")
    return override.replace("network.", "data.", 1) if f"network.{key}=" in override and key in USES else override


def config_to_mapping(config: Config) -> dict[str, Any]:
    """The config with all defaults as plain values; `config_from_mapping` reads it back."""
    return to_mapping(config)


def dump_yaml(config: Config) -> str:
    return dumped(config_to_mapping(config))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a config file. Raises InputError for a missing, large or invalid file."""
    path = Path(path)
    if not path.is_file():
        known = sorted(p.as_posix() for p in in_repository("configs").glob("*.yaml"))
        raise InputError(
            f"config file '{shorten(str(path))}' does not exist" + (f": try one of {', '.join(known)}" if known else "")
        )
    if path.stat().st_size > LARGEST_FILE:
        raise InputError(f"config file '{path}' is larger than {LARGEST_FILE} bytes: it is not a config")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"config file '{path}' is not valid YAML: it is not UTF-8 ({error.reason})") from None
    mapping = parse_yaml(text, f"config file '{path}'")
    if not isinstance(mapping, dict):
        raise InputError(f"config file '{path}' has no keys: expected groups such as 'network:' and 'train:'")
    return mapping


def _merged(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _merged(value) if isinstance(value, Mapping) else value for key, value in mapping.items()}
