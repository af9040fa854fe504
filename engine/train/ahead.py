"""Asynchronous training on GPUs: prefetched batches, deferred reads of losses and norms, one gradient exchange per step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import models
from dcn.module import Reading
from engine import distributed
from engine.config import Config
from engine.train.objectives import build_objective


class LossTerms:
    """The weighted loss terms of a batch, one tensor per accumulated part."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.parts: list[Tensor] = []

    def add(self, names: Iterable[str], values: Tensor) -> None:
        """Add the terms of one more part, (terms,)."""
        self.names = list(names)
        self.parts.append(values)

    def sums(self, parts: list[list[float]]) -> dict[str, float]:
        """The terms summed over the parts. parts: their values on the CPU."""
        columns = zip(*parts, strict=True)
        return {name: sum(column, 0.0) for name, column in zip(self.names, columns, strict=True)}


class Numbers(NamedTuple):
    """The numbers that are checked after an update."""

    losses: dict[str, float]  # weighted terms of this rank
    loss: float  # their sum, mean of the ranks
    norm: float  # of the gradient
    change: float  # norm of the update
    size: float  # norm of the weights before it
    caught: bool  # whether a signal reached any rank


class Pending:
    """An enqueued update. One asynchronous copy brings its loss and norms to the CPU."""

    def __init__(self, step: int, batch: dict[str, Any], losses: LossTerms, norms: list[Tensor], caught: bool) -> None:
        """norms: of the gradient, the update and the weights.   caught: whether a signal arrived."""
        self.step, self.batch, self.losses = step, batch, losses
        terms = torch.stack(losses.parts)
        shared = torch.stack([terms.sum(), torch.full_like(terms[0, 0], float(caught))])
        if distributed.world() > 1:
            dist.all_reduce(shared)
            shared = shared / distributed.world()
        self.numbers = torch.cat([shared, torch.stack(norms), terms.flatten()])
        self.reading = Reading(self.numbers) if self.numbers.is_cuda else None

    def take(self) -> Numbers:
        """Wait for the copy. All numbers are in one tensor, so that they are read at once."""
        loss, caught, *rest = (self.reading.wait() if self.reading else self.numbers).tolist()
        norm, change, size, *terms = rest
        count = len(self.losses.names)
        parts = [terms[start : start + count] for start in range(0, len(terms), count)]
        return Numbers(self.losses.sums(parts), loss, norm, change, size, caught > 0)


def on_device(batches: Iterator[dict[str, Any]], device: torch.device) -> Iterator[dict[str, Any]]:
    """The batches with their pictures on the device.

    On a GPU a separate stream copies them as bytes from pinned memory while the device computes the previous step.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)
    for batch in batches:
        with torch.cuda.stream(stream):
            moved = {key: _copied(value, device) if _is_pictures(value) else value for key, value in batch.items()}
        torch.cuda.current_stream(device).wait_stream(stream)
        for value in moved.values():
            if isinstance(value, Tensor) and value.is_cuda:
                value.record_stream(torch.cuda.current_stream(device))
        yield moved


def _is_pictures(value: Any) -> bool:
    """Times (B, K) stay on the CPU: the network turns them into constants."""
    return isinstance(value, Tensor) and value.dim() > 2


def _copied(value: Tensor, device: torch.device) -> Tensor:
    return (value if value.is_pinned() else value.pin_memory()).to(device, non_blocking=True)


def parallel(task: nn.Module, config: Config) -> nn.Module:
    """The objective with its gradients averaged over the ranks.

    DistributedDataParallel searches for unused parameters at every step only if there are any, because the search is slow.
    """
    # Without device_ids: with them, the wrapper would copy every tensor of a batch, the times too, to the device and wait.
    return DistributedDataParallel(task, find_unused_parameters=some_unused(config), gradient_as_bucket_view=True)


def some_unused(config: Config) -> bool:
    """Whether a step leaves some parameters without a gradient: in an `operator_only` stage, or always (tested with one backward pass)."""
    if any(stage.operator_only for stage in config.train.all_stages):
        return True
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        network = models.build(config.network)
        side = 16
        batch: dict[str, Any] = {"lr": torch.rand(1, 2, 3, side, side), "times": torch.tensor([[0.5]])}
        if config.space_time:
            batch["gt"] = torch.rand(1, 3, 3, 2 * side, 2 * side)
        else:
            large = config.window_network.scale * side
            batch |= {
                "lr": torch.rand(1, config.window_network.frames, 3, side, side),
                "gt": torch.rand(1, 3, large, large),
            }
        torch.stack(list(build_objective(network, config)(batch).values())).sum().backward()
    return any(parameter.grad is None for parameter in network.parameters())
