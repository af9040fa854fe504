"""Protection of a run from a bad batch or setting: detect unusual steps and undo the last update."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from engine.train.optim import EMA

HISTORY = 101  # steps in the running median
ENOUGH = 20  # steps before the first detection
LEVELS = 2  # updates that can be undone
FAR = 100.0  # times the median loss: the weights have diverged, even if no step is skipped


class Guard:
    """Running medians of a run's loss, gradient norm and update norm.

    factor: a value this many times its median is unusual; 0: no detection.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.seen: dict[str, deque[float]] = {}

    def unusual(self, **values: float) -> str:
        """Description of a value far above its median; "" if there is none. Usual values are added to the history."""
        for name, value in values.items():
            history = self.seen.setdefault(name, deque(maxlen=HISTORY))
            usual = statistics.median(history) if len(history) >= ENOUGH else 0.0
            if self.factor and usual and value > self.factor * usual:
                return f"the {name.replace('_', ' ')} is {value:.3g}, {value / usual:.0f} times its running median"
            # Unusual values are not added: a series of them would raise the median and pass as usual.
            history.append(value)
        return ""

    def far_off(self, loss: float) -> bool:
        """Whether a loss is so far above its median that the weights have diverged, with any `factor`."""
        history = self.seen.get("loss", ())
        return len(history) >= ENOUGH and loss > FAR * statistics.median(history)

    def state(self) -> dict[str, list[float]]:
        return {name: list(values) for name, values in self.seen.items()}

    def load(self, state: Mapping[str, Sequence[float]]) -> None:
        self.seen = {name: deque(values, maxlen=HISTORY) for name, values in state.items()}


class Kept(NamedTuple):
    """Copies of all state before an update."""

    copies: list[Tensor]
    trained: set[Tensor]  # parameters of which the optimizer had moments
    step: int


class Undo:
    """Copies of the state that an update changes: weights, their average, and the optimizer's moments.

    The last two updates can be undone: the one whose loss is not finite and the one that may have caused it.
    """

    def __init__(self, network: nn.Module, average: EMA | None, optimizer: torch.optim.Optimizer) -> None:
        self.average, self.optimizer = average, optimizer
        own = network.state_dict(keep_vars=True).values()  # listed once: slower than copying a small network
        self.own = [tensor.detach() for tensor in own]
        self.learned = [number for number, tensor in enumerate(own) if isinstance(tensor, nn.Parameter)]
        self.kept: deque[Kept] = deque()  # oldest first

    def _tensors(self) -> list[Tensor]:
        moments = [
            value for entry in self.optimizer.state.values() for value in entry.values() if torch.is_tensor(value)
        ]
        averages = list(self.average.state.values()) if self.average else []
        return [*self.own, *averages, *moments]

    @torch.no_grad()
    def keep(self, step: int) -> None:
        """Copy the present values, those before the update of `step`."""
        tensors = self._tensors()
        copies = self.kept.popleft().copies if len(self.kept) == LEVELS else []
        if len(tensors) != len(copies):  # the first update of a parameter creates its moments
            copies = [tensor.clone() for tensor in tensors]
        else:
            _copy(copies, tensors)
        self.kept.append(Kept(copies, set(self.optimizer.state), step))

    @torch.no_grad()
    def restore(self) -> int:
        """Restore the values of the last `keep`; returns its step."""
        copies, trained, step = self.kept[-1]
        for parameter in self.optimizer.state.keys() - trained:  # such as those that an earlier stage did not train
            del self.optimizer.state[parameter]
        _copy(self._tensors(), copies)
        return step

    def discard(self) -> None:
        """Drop the values of the last `keep`: the next `restore` uses the values of the one before."""
        self.kept.pop()

    def update_norms(self) -> tuple[Tensor, Tensor]:
        """Norm of the change of the parameters since `keep`, and their norm at `keep`, as tensors on their device."""
        now, before = ([tensors[number] for number in self.learned] for tensors in (self.own, self.kept[-1].copies))
        change = torch._foreach_sub(now, before)
        return _norm(change), _norm(before)


def _copy(targets: list[Tensor], values: list[Tensor]) -> None:
    """Copy tensors. GPU tensors are grouped by device and type: a single CPU tensor in the list would disable the fused copy."""
    if not any(target.is_cuda for target in targets):
        torch._foreach_copy_(targets, values)
        return
    groups: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}
    for target, value in zip(targets, values, strict=True):
        group = groups.setdefault((target.device, target.dtype), ([], []))
        group[0].append(target)
        group[1].append(value)
    for some, theirs in groups.values():
        torch._foreach_copy_(some, theirs)


def _norm(tensors: Any) -> Tensor:
    return torch.nn.utils.get_total_norm(list(tensors))
