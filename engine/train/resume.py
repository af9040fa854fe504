"""Check which settings changed when a run is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.config import Config, config_to_mapping, current_keys
from errors import InputError

# Keys that determine the samples and their order, or the meaning of the moments in the state.
DECIDING = ("seed", "train.optimizer", "network")
# Of `engine.report.provenance.machine`: how a training step is rounded depends on them.
ROUNDING = ("processor", "threads", "gpu", "torch", "dcn")
SILENT = ("name", "runs", "train.init", "train.init_partial")  # the run's name and initial weights


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ, with the value before and now. Keys missing on one side are skipped."""
    a, b = _flat(before), _flat(now)
    return {key: (a[key], b[key]) for key in a if key in b and a[key] != b[key] and key not in SILENT}


def check_changes(
    header: Mapping[str, Any], config: Config, data: str, world: int, machine: Mapping[str, Any], accept: bool
) -> str:
    """One line that lists the differences from the run of the state; "" if there are none.

    header: of the state.   data: `TrainingData.fingerprint` of the present clips.   world: number of processes.
    machine: `engine.report.provenance.machine`.   accept: also resume with other data, another seed or another optimizer. Raises
    `InputError` for these unless `accept` is set.
    """
    changed = differences(current_keys(header["config"]), config_to_mapping(config))
    refused = [_difference(key, *values) for key, values in changed.items() if _decides(key)]
    if header.get("data", data) != data:
        refused.append("the training clips (their names, lengths, sizes or pictures) have changed")
    if refused and not accept:
        raise InputError(
            f"this run cannot be resumed exactly: {'; '.join(refused)}: undo this, add --accept-changes to continue anyway, "
            "or start a new run with train.init"
        )
    lines = [_difference(key, *values) for key, values in changed.items()]
    if header.get("world", world) != world:
        lines.append(f"{header['world']} processes -> {world}")
    if header.get("data", data) != data:
        lines.append("other training clips")
    before = header.get("machine", machine)
    rounding = [_difference(key, before[key], machine[key]) for key in ROUNDING if before[key] != machine[key]]
    if rounding:
        lines.append(f"{', '.join(rounding)} (rounding may differ)")
    return "; ".join(lines)


def _decides(key: str) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in DECIDING)


def _difference(key: str, before: Any, now: Any) -> str:
    return f"{key} {_short(before)} -> {_short(now)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            result |= _flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result
