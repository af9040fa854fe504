"""State dicts: published ones, their names and shapes, and names of earlier versions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from errors import InputError

N = TypeVar("N", bound=nn.Module)

_SHOWN = 4  # names of each kind that an error message lists


def published_state(state: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """The tensors of a published state dict of the network `name`, by their published names.

    The state dict may be the value of a key "state_dict", and DataParallel may have added `module.` to every name. Raises
    `InputError` for anything but a mapping from names to tensors.
    """
    state = state.get("state_dict", state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(
        isinstance(k, str) and isinstance(x, Tensor) for k, x in state.items()
    ):
        raise InputError(f"these are not {name} weights: expected a state dict, a mapping from names to tensors")
    return {key.removeprefix("module."): value for key, value in state.items()}


def load_published(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], build: Callable[[], N], name: str) -> N:
    """A network made by `build` with the weights `state`, which have our names, in eval mode.

    expected: its tensors; meta tensors suffice. Raises `InputError` listing missing and unexpected tensors and other shapes if the
    weights do not fit.
    """
    if problem := mismatch(state, expected):
        raise InputError(f"these are not published {name} weights; {problem}: check the file and the network")
    network = build()
    network.load_state_dict(state)
    return network.eval()


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
