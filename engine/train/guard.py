"""What keeps one bad batch or one bad setting from ruining a run: unusual steps are found, and the last update can be undone."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engine.train.optim import EMA

HISTORY = 101  # steps whose median counts as usual
ENOUGH = 20  # steps before which nothing counts as unusual


class Guard:
    """Running medians of a run's loss, gradient norm and update norm.

    factor: a value this many times its median is unusual; 0 finds nothing.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.seen: dict[str, deque[float]] = {}

    def unusual(self, **values: float) -> str:
        """Which of the values is far above its median, in words; "" where none is. Usual values join the history."""
        for name, value in values.items():
            history = self.seen.setdefault(name, deque(maxlen=HISTORY))
            usual = statistics.median(history) if len(history) >= ENOUGH else 0.0
            if self.factor and usual and value > self.factor * usual:
                return f"the {name.replace('_', ' ')} is {value:.3g}, {value / usual:.0f} times its running median"
            history.append(value)
        return ""

    def state(self) -> dict[str, list[float]]:
        return {name: list(values) for name, values in self.seen.items()}

    def load(self, state: Mapping[str, Sequence[float]]) -> None:
        self.seen = {name: deque(values, maxlen=HISTORY) for name, values in state.items()}


class Undo:
    """A copy of everything that an update changes: weights, their average, the optimizer's moments."""

    def __init__(self, network: nn.Module, average: EMA | None, optimizer: torch.optim.Optimizer) -> None:
        self.network, self.average, self.optimizer = network, average, optimizer
        self.copies: list[Tensor] = []
        self.empty = True  # whether the optimizer had no moments yet

    def _tensors(self) -> list[Tensor]:
        moments = [
            value for entry in self.optimizer.state.values() for value in entry.values() if torch.is_tensor(value)
        ]
        averages = list(self.average.state.values()) if self.average else []
        return [*self.network.state_dict().values(), *averages, *moments]

    @torch.no_grad()
    def keep(self) -> None:
        """Copy the present values."""
        tensors = self._tensors()
        if [t.shape for t in tensors] != [c.shape for c in self.copies]:
            self.copies = [tensor.clone() for tensor in tensors]
        else:
            torch._foreach_copy_(self.copies, tensors)
        self.empty = not self.optimizer.state

    @torch.no_grad()
    def restore(self) -> None:
        """Go back to the values of the last `keep`."""
        if self.empty:
            self.optimizer.state.clear()
        torch._foreach_copy_(self._tensors(), self.copies)

    def update_norms(self) -> tuple[float, float]:
        """Norm of what changed in the parameters since `keep`, and norm of what they were."""
        own = self.network.state_dict(keep_vars=True)
        pairs = [
            (t.detach(), c) for t, c in zip(own.values(), self.copies, strict=False) if isinstance(t, nn.Parameter)
        ]
        now, before = [t for t, _ in pairs], [c for _, c in pairs]
        change = torch._foreach_sub(now, before)
        return _norm(change), _norm(before)


def _norm(tensors: Any) -> float:
    return torch.nn.utils.get_total_norm(list(tensors)).item()
