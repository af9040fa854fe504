"""What reading published weights has in common for every network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from errors import InputError

_SHOWN = 5  # names of each kind that an error message lists


def strip_module_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the `module.` that DataParallel puts before every name."""
    return {key.removeprefix("module."): value for key, value in state.items()}


def fit(state: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]], kind: str) -> None:
    """Raise one InputError that lists what is missing, unexpected or of another shape in `state`, if anything is."""
    missing = [key for key in shapes if key not in state]
    unexpected = [key for key in state if key not in shapes]
    misshaped = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(shape)}"
        for key, shape in shapes.items()
        if key in state and tuple(state[key].shape) != tuple(shape)
    ]
    lists = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    complaints = [f"{len(names)} {what}: {_shortened(names)}" for what, names in lists.items() if names]
    if complaints:
        raise InputError(f"these are not {kind} weights; " + "; ".join(complaints) + ": check the file and the network")


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
