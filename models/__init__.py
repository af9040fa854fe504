"""The networks: `build(config)`, `load_official(name, state_dict)`. To add a network, add an entry to `NETWORKS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from errors import InputError
from models.base import Network, NetworkConfig, SpaceTimeConfig, WindowConfig
from models.mtdo import MTDO, MTDOConfig
from models.mtdo.official import MARKS as MTDO_MARKS
from models.mtdo.official import from_earlier, mtdo_official
from models.stno import STNO, STNOConfig
from models.stno.official import MARKS as STNO_MARKS
from models.stno.official import stno_official
from settings import from_mapping

__all__ = [
    "NETWORKS",
    "Architecture",
    "build",
    "config_from_mapping",
    "current_names",
    "first_of",
    "load_official",
    "recognise",
]


class Architecture(NamedTuple):
    """One network: its config dataclass, its class and, if there are any, its published and earlier weights."""

    config: type[WindowConfig] | type[SpaceTimeConfig]
    network: Callable[[Any], Network]
    official: Callable[[Mapping[str, Tensor]], Network] | None = None  # reads published weights
    marks: frozenset[str] = frozenset()  # first name components of only its published weights
    from_earlier: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict  # earlier names -> current names


NETWORKS = {
    "mtdo": Architecture(MTDOConfig, MTDO, mtdo_official, MTDO_MARKS, from_earlier),
    "stno": Architecture(STNOConfig, STNO, stno_official, STNO_MARKS),
}


def config_from_mapping(mapping: Mapping[str, Any]) -> NetworkConfig:
    """A mapping with "name" -> that network's dataclass. `InputError` for an unknown key, a wrong type or value."""
    if not isinstance(mapping, Mapping) or "name" not in mapping:
        raise InputError(f"network.name is missing; expected one of {', '.join(NETWORKS)}: add it to the config")
    return from_mapping(_architecture(mapping["name"]).config, mapping, "network")


def first_of(*, space_time: bool) -> str:
    """The name of the first network of a kind, for a config in which only the kind matters."""
    return next(name for name, network in NETWORKS.items() if network.config.space_time == space_time)


def build(config: Any) -> Network:
    """A newly initialised network from its dataclass, a mapping with "name", or a full config with `network`."""
    if isinstance(config, Mapping):
        config = config["network"] if "network" in config else config_from_mapping(config)
    config = getattr(config, "network", config)
    if isinstance(config, Mapping):
        config = config_from_mapping(config)
    return _architecture(config.name).network(config)


def load_official(name: str, state_dict: Mapping[str, Tensor]) -> Network:
    """The network `name` ("mtdo" or "stno") with published weights, in eval mode. `InputError` if they do not fit."""
    read = _architecture(name).official
    if read is None:
        raise InputError(f"there are no published weights of '{name}': use weights of your own (.safetensors)")
    return read(state_dict)


def recognise(state_dict: Mapping[str, Tensor]) -> str | None:
    """The name of the network that a published state dict belongs to, by first name components that only one network has."""
    parts = {name.removeprefix("module.").split(".")[0] for name in state_dict}
    return next((name for name, network in NETWORKS.items() if parts & network.marks), None)


def current_names(name: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the network `name` with current names; it may have names of an earlier version."""
    return _architecture(name).from_earlier(state_dict)


def _architecture(name: str) -> Architecture:
    if not isinstance(name, str) or name not in NETWORKS:
        raise InputError(f"network.name is {name!r}; expected one of {', '.join(NETWORKS)}: change it in the config")
    return NETWORKS[name]
