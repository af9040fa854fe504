"""The networks: `build(config)`, `load_official(name, state_dict)`. A new network is one more line in `NETWORKS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from errors import InputError
from models.mtdo.config import MTDOConfig
from models.mtdo.network import MTDO
from models.mtdo.official import mtdo_official
from models.stno.network import STNO, STNOConfig
from models.stno.official import stno_official
from settings import from_mapping


class Entry(NamedTuple):
    """One network: its dataclass of sizes and switches, its class, its reader of published weights."""

    config: type
    network: Callable[[Any], nn.Module]
    official: Callable[[Mapping[str, Tensor]], nn.Module]


NETWORKS = {
    "mtdo": Entry(MTDOConfig, MTDO, mtdo_official),
    "stno": Entry(STNOConfig, STNO, stno_official),
}


def config_from_mapping(mapping: Mapping[str, Any]) -> Any:
    """A mapping with "name" -> that network's dataclass. InputError for an unknown key, a wrong type or value."""
    if not isinstance(mapping, Mapping) or "name" not in mapping:
        raise InputError(f"network.name is missing; expected one of {', '.join(NETWORKS)}: add it to the config")
    return from_mapping(_entry(mapping["name"]).config, mapping, "network")


def build(config: Any) -> nn.Module:
    """A freshly initialised network from its dataclass, a mapping with "name", or a whole config with `network`."""
    if isinstance(config, Mapping):
        config = config["network"] if "network" in config else config_from_mapping(config)
    config = getattr(config, "network", config)
    if isinstance(config, Mapping):
        config = config_from_mapping(config)
    return _entry(config.name).network(config)


def load_official(name: str, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """The network "mtdo" or "stno" with published weights, in eval mode. InputError if the weights are not its own."""
    return _entry(name).official(state_dict)


def _entry(name: str) -> Entry:
    if name not in NETWORKS:
        raise InputError(f"network.name is {name!r}; expected one of {', '.join(NETWORKS)}: change it in the config")
    return NETWORKS[name]
