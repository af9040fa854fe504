"""Names and shapes of weights: compare a state dict with a network, and translate earlier names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

_SHOWN = 4  # names of each kind that an error message lists


def strip_module_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the `module.` that DataParallel adds to every name."""
    return {key.removeprefix("module."): value for key, value in state.items()}


def mismatch(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Differences in names and shapes, such as "1 missing: a.weight; 2 unexpected: b, c"; empty if there are none."""
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    misshaped = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    return "; ".join(f"{len(names)} {kind}: {first_few(names, _SHOWN)}" for kind, names in kinds.items() if names)


def first_few(names: Sequence[str], count: int = 4) -> str:
    """The first names of a list that may be long, and how many more there are."""
    more = [f"and {len(names) - count} more"] if len(names) > count else []
    return ", ".join([*names[:count], *more])


def renamed(state: Mapping[str, Tensor], rules: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """The state dict with every (pattern, replacement) of `rules` applied to its names, in order."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]

    def rename(name: str) -> str:
        for pattern, replacement in compiled:
            name = pattern.sub(replacement, name)
        return name

    return {rename(name): value for name, value in state.items()}
