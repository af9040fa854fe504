"""Read and write configs: one YAML file per experiment, `key.sub=value` overrides from the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.files import in_repository
from engine.config.inert import check_inert
from engine.config.schema import Config
from errors import InputError, shorten
from models.base import RESTORE_SETTINGS
from settings import apply_override, from_mapping, to_mapping
from strict_yaml import dump_yaml as dumped
from strict_yaml import parse_yaml

LARGEST_FILE = 2**20  # bytes of a config file
# Keys with another name in configs and states of earlier versions: GROUP.KEY -> present GROUP.KEY
EARLIER = {
    **{f"network.{key}": f"data.{key}" for key in RESTORE_SETTINGS},
    "data.turns": "data.rotations",
    "loss.lr_between": "loss.lr_intermediate",
}


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `key.sub=value` overrides. Raises `InputError` naming the file, key and remedy."""
    return config_from_mapping(read_yaml(path), overrides)


def config_from_mapping(mapping: Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """A config from nested mappings and overrides. Raises `InputError` for unknown keys, invalid values, and keys without
    effect for this network and the other keys."""
    mapping = current_keys(mapping)
    overrides = [_current_override(override) for override in overrides]
    for override in overrides:
        apply_override(mapping, override)
    config = from_mapping(Config, mapping)
    check_inert(config, {override.partition("=")[0] for override in overrides})
    return config


def current_keys(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config's mapping in which the keys of `EARLIER` have their present names. A present name wins over an earlier one."""
    mapping = _copied(mapping)
    for earlier, present in EARLIER.items():
        (old_group, old), (group, new) = earlier.split("."), present.split(".")
        holder = mapping.get(old_group)
        if isinstance(holder, dict) and old in holder:
            value, keys = holder.pop(old), mapping.get(group)
            if isinstance(keys, dict | None):  # `from_mapping` refuses other types
                mapping[group] = {new: value, **(keys or {})}
    return mapping


def _current_override(override: str) -> str:
    """An override with the present name of its key."""
    key, sign, value = override.partition("=")
    return f"{EARLIER.get(key, key)}{sign}{value}"


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


def _copied(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in mapping.items()}
