"""The updates of a run: each is enqueued, checked once its loss and norms have been read, and undone if it is unusual."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from engine import distributed
from engine.config import Config
from engine.restore.precision import DTYPES
from engine.train.ahead import LossTerms, Numbers, Pending
from engine.train.guard import Undo
from engine.train.logger import Logger
from engine.train.objectives import to_device
from engine.train.optim import learning_rate, set_learning_rate
from engine.train.run import Run
from engine.train.states import STATE
from engine.train.stops import Interrupted, Signals
from errors import InputError

PRECISIONS = {**DTYPES, "tf32": torch.float32}
SKIPS = 10  # unusual steps in a row that end a run


class Diverged(InputError):
    """Training diverged; the last good state is saved."""


class Updates(Run):
    """A run that takes optimizer steps on batches."""

    log: Logger

    def __init__(self, config: Config, folder: Path, device: torch.device, fresh: bool = True) -> None:
        super().__init__(config, folder, device, fresh)
        # Read the loss and norms of a step while the next one computes, so that a GPU never waits for the CPU.
        self.ahead = device.type == "cuda"
        self.undo = Undo(self.network, self.average, self.optimizer)
        self.pending: Pending | None = None  # the update whose loss and norms are not on the CPU yet
        self.latest: tuple[dict[str, float], float] = {}, 0.0  # loss terms and gradient norm of the newest checked step
        self.usual_loss = 0.0  # of the newest step that was neither skipped nor ended the run
        self.unusual: int | None = None  # first step of the current series of unusual steps
        self.signals = Signals()

    def update(self, batch: dict[str, Any]) -> tuple[dict[str, float], float]:
        """One optimizer step on one batch. Returns the weighted loss terms and the gradient norm of the newest checked step:
        this one, or with `ahead` the previous one.

        An unusual step (`train.spike`) leaves weights and moments unchanged. Raises `Diverged` for numbers that are not
        finite and for too many unusual steps in a row.
        """
        if self.config.train.stage(self.step)[1] == 0:
            self.settle()
            self.guard.seen.clear()  # another stage has other losses
        losses = self._gradients(batch)
        if self.settle():  # the weights are those before the previous step again
            losses = self._gradients(batch)
        norms = self._take_step()
        self.pending = Pending(self.step, batch, losses, norms, bool(self.signals.caught))
        if not self.ahead:
            self.settle(stopping=True)
        return self.latest

    def _gradients(self, batch: dict[str, Any]) -> LossTerms:
        """Compute the gradients of a batch; returns its weighted loss terms on the device."""
        config = self.config.train
        set_learning_rate(self.optimizer, learning_rate(self.step, config))
        torch.manual_seed(step_seed(self.config.seed, self.step, distributed.rank()))
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        mode = {"operator_only": True} if config.stage(self.step)[0].operator_only else {}
        losses = LossTerms()
        dtype = PRECISIONS[config.precision]
        for number, part in enumerate(split_batch(batch, config.accumulate)):
            with self._gradients_stay_here(number + 1 < config.accumulate):
                with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
                    terms = self.model(to_device(part, self.device), **mode)
                values = torch.stack(list(terms.values()))
                losses.add(terms, values.detach() / config.accumulate)
                self.scaler.scale(values.sum() / config.accumulate).backward()
        return losses

    def _gradients_stay_here(self, wanted: bool) -> AbstractContextManager[Any]:
        """Skip the gradient exchange between ranks, except for the last part. The forward pass must be within the block too."""
        return self.model.no_sync() if wanted and isinstance(self.model, DistributedDataParallel) else nullcontext()

    def _take_step(self) -> list[torch.Tensor]:
        """Apply the update. Returns the norms of gradient, update and weights."""
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.train.clip_grad or math.inf)
        self.undo.keep(self.step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update(self.network, self.step)
        return [norm, *self.undo.update_norms()]

    # --- the check ------------------------------------------------------------------------------------------------

    def settle(self, stopping: bool = False) -> bool:
        """Check the loss and norms of the pending update, if any. True: the update was undone.

        Raises `Diverged` as `update` does, and, unless `stopping`, `Interrupted` if a signal reached any rank.
        """
        pending, self.pending = self.pending, None
        if pending is None:
            return False
        numbers = pending.take()
        self.latest = numbers.losses, numbers.norm
        now, self.step = self.step, pending.step
        self._check_finite(numbers, pending.batch)
        reason = self._reason(numbers)
        if reason:
            self.undo.restore()
            self._leave_out(reason, pending.batch)
        else:
            self.unusual, self.usual_loss = None, numbers.loss
        self.step = now
        if numbers.caught and not stopping:
            raise Interrupted("interrupted", self.signals.code)
        return bool(reason)

    def _check_finite(self, numbers: Numbers, batch: dict[str, Any]) -> None:
        """End the run if the loss or, without a scaler, the gradient is not finite."""
        if not math.isfinite(numbers.loss):
            what, values = "loss", numbers.losses
        elif not math.isfinite(numbers.norm) and not self.scaler.is_enabled():
            what, values = "gradient", {"norm": numbers.norm}
        else:
            return
        self.undo.restore()
        self.undo.discard()  # drop its copies, so that the update before it, which may be the cause, is undone too
        shown = ", ".join(f"{name}={value}" for name, value in values.items())
        self._end_at_last_good(f"the {what} is not finite ({shown})", batch)

    def _reason(self, numbers: Numbers) -> str:
        """The reason why a step with these numbers is unusual; "" for a usual one."""
        reason = ""
        if math.isfinite(numbers.norm):
            reason = self.guard.unusual(loss=numbers.loss, gradient_norm=numbers.norm)
        return reason or self._unusual_update(numbers.change, numbers.size)

    def _unusual_update(self, change: float, size: float) -> str:
        """The reason why an update with these norms (of update and weights) is unusual; "" for a usual one."""
        if not change <= size:  # also if it is not finite; with any `train.spike`
            return f"the update is larger than the weights ({change:.3g} against {size:.3g})"
        if not change:
            return ""
        train = self.config.train
        return self.guard.unusual(update_norm=change * train.lr / learning_rate(self.step, train))

    def _leave_out(self, reason: str, batch: dict[str, Any]) -> None:
        """Report the skipped step; end the run if the config requires it or after too many unusual steps in a row."""
        first = self.unusual = self.step if self.unusual is None else self.unusual
        many = self.step - first + 1 >= SKIPS
        if self.config.train.on_spike == "stop" or many:
            end = f"{SKIPS} unusual steps in a row: " if many else ""
            self._end_at_last_good(f"{end}{reason}", batch)
        self.log.say(f"step {self.step + 1} skipped: {reason} (on {sources(batch)})")

    def _end_at_last_good(self, reason: str, batch: dict[str, Any]) -> None:
        """Restore the state before the newest update that `undo` keeps, save it and end the run."""
        stopped = self.step + 1
        if self.undo.kept:
            before = self.undo.restore()
            self.step = before if self.unusual is None else min(before, self.unusual)
        raise Diverged(
            f"training stopped at step {stopped}: {reason} on {sources(batch)}: {self._save_good()}; "
            "look at these files or lower train.lr"
        )

    def _save_good(self) -> str:
        """Save the restored state, unless its weights have diverged too; returns where the last good state is."""
        if self.guard.far_off(self.usual_loss):
            return f"the state of step {self.step} has diverged (its loss is {self.usual_loss:.3g}); {self.newest_on_disk()}"
        try:
            self.save()
        except InputError as problem:
            return f"the last good state is not saved ({problem}); {self.newest_on_disk()}"
        return f"the last good state is '{self.folder / STATE}' (step {self.step})"

    def undo_unfinished(self) -> None:
        """Undo the update of the present step, if an error or a signal interrupted it before the step was counted."""
        if self.undo.kept and self.undo.kept[-1].step == self.step:
            self.pending = None
            self.undo.restore()

    def newest_on_disk(self, reason: str = "") -> str:
        """The newest state on disk, for messages. reason: why there is no newer one."""
        newest = "no state is on disk" if self.saved is None else f"the last state on disk is that of step {self.saved}"
        return newest + reason

    def save(self, survivor: bool = False) -> None:
        self.settle(stopping=True)
        super().save(survivor)


def sources(batch: dict[str, Any]) -> str:
    """The sources of a batch's samples, for messages."""
    return ", ".join(dict.fromkeys(batch["source"]))


def step_seed(seed: int, step: int, rank: int) -> int:
    """The random seed within one step (drop path), different for every rank."""
    return (seed * 1_000_003 + step) * 1009 + rank


def split_batch(batch: dict[str, Any], parts: int) -> Iterator[dict[str, Any]]:
    """The batch in `parts` equal pieces, for gradient accumulation."""
    if parts == 1:
        yield batch
        return
    size = len(batch["source"]) // parts
    for i in range(parts):
        yield {key: value[i * size : (i + 1) * size] for key, value in batch.items()}
