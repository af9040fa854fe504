"""The training loop, common to all networks.

A step is a pure function of (weights, optimizer moments, seed, step number, samples drawn): batches, augmentation, drop path and
learning rate all derive from the seed and these numbers. So a state file needs only tensors and two numbers, and a resumed
run gives the same result as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import dcn
import models
from data.files import lock, remove_unfinished, replacing
from engine import distributed
from engine.checkpoint import load_network, load_state, save_weights, state_part, use_of
from engine.config import Config, config_to_mapping, dump_yaml
from engine.distributed import say
from engine.evaluate.measure import evaluate
from engine.restore.precision import DTYPES
from engine.sources import TrainingData, open_source
from engine.train.ahead import LossTerms, Pending, on_device, parallel, precision_of_products
from engine.train.deterministic import deterministic
from engine.train.guard import Guard, Undo
from engine.train.logger import Logger
from engine.train.objectives import build_objective, to_device
from engine.train.optim import (
    EMA,
    build_optimizer,
    learning_rate,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
)
from engine.train.resume import check_changes
from engine.train.states import STATE, read_newest, read_state, save_state, states_in
from engine.train.stops import Interrupted, Signals, explained
from errors import InputError
from models.base import Network
from models.weights import first_few

BEST, FINAL = "best.safetensors", "weights.safetensors"
PRECISIONS = {**DTYPES, "tf32": torch.float32}
SKIPS = 10  # unusual steps in a row that end a run


class Diverged(InputError):
    """Training diverged; the last good state is saved."""


def train(config: Config, folder: Path, state: Path | None = None, accept_changes: bool = False) -> dict[str, Any]:
    """Train with `config`, write all files to `folder`, and return the report of the final evaluation.

    `state`: a state file to resume, or a run's folder, whose newest readable state is used. accept_changes: also resume with
    other data, another seed or another optimizer. Raises `InputError` for bad input and divergence, `Interrupted` for an
    early end after which the run can be resumed.
    """
    device = distributed.choose_device(config.device)
    dcn.set_backend(config.dcn)
    trainer = Trainer(config, folder, device, fresh=state is None)
    if state is not None:
        trainer.load(state, accept_changes)
    trainer.fit()
    return trainer.finish()


class Trainer:
    """One run: network, averaged weights, optimizer and progress."""

    def __init__(self, config: Config, folder: Path, device: torch.device, fresh: bool = True) -> None:
        """fresh: start from `train.init` if it is set; a resumed run loads its weights from the state."""
        self.config, self.folder, self.device = config, folder, device
        fp16 = config.train.precision == "fp16"
        self.ahead = device.type == "cuda"  # enqueue steps without waiting for the loss and norms of the previous one
        if fp16 and device.type != "cuda":
            raise InputError("config key 'train.precision': fp16 needs a CUDA device: say bf16 or fp32")
        torch.manual_seed(config.seed)
        self.network = models.build(config.network)
        self.network.set_uses(vars(config.data))
        if config.train.init and fresh:
            init, partial = config.train.init, config.train.init_partial
            left = load_state(self.network, load_network(init).state_dict(), init, partial=partial)
            if left:
                say(
                    f"{init}: {len(left)} tensors of this network are not in it and keep their start: {first_few(left)}"
                )
        self.network.to(device)
        if config.train.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(self.network, config.train)
        self.average = EMA(self.network, config.train.ema) if config.train.ema else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=fp16)
        self.undo = Undo(self.network, self.average, self.optimizer, levels=2 if self.ahead else 1)
        self.guard = Guard(config.train.spike)
        self.pending: Pending | None = None  # the update whose loss and norms are not on the CPU yet
        self.latest: tuple[dict[str, float], float] = {}, 0.0  # loss terms and gradient norm of the newest settled step
        self.signals = Signals()
        self.step = 0
        self.origin = (0, 0)  # a step, and the samples drawn before it
        self.saved: int | None = None  # step of the newest state on disk
        self.kept: int | None = None  # step that `undo` restores
        self.unusual: int | None = None  # first step of the current series of unusual steps
        self.unread = 0  # samples skipped because they could not be read
        self.updating = False  # whether an update is half done
        self.best = -math.inf
        self.val = open_source(config, "val")
        self.data = TrainingData(config)
        self.fingerprint = self.data.fingerprint()
        self.model = self._wrapped(build_objective(self.network, config))

    def _wrapped(self, task: nn.Module) -> nn.Module:
        if self.config.train.compile:
            task = torch.compile(task, dynamic=None if self.config.space_time else False)  # type: ignore[assignment]
        return parallel(task, self.config) if distributed.world() > 1 else task

    # --- the run --------------------------------------------------------------------------------------------------

    @property
    def samples(self) -> int:
        """Number of samples used so far, over all ranks."""
        step, samples = self.origin
        return samples + (self.step - step) * self.config.train.batch_size

    def fit(self) -> None:
        """Run the remaining steps. After any early end the state is saved if possible."""
        main = distributed.is_main()
        if main:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_unfinished(self.folder)
            with replacing(self.folder / "config.yaml") as temporary:
                temporary.write_text(dump_yaml(self.config), encoding="utf-8")
        self.log = Logger(self.folder, start=self.step, total=self.config.train.steps, active=main)
        # Handle signals until the state is saved: torchrun terminates the other ranks as soon as one dies.
        with self.signals.watch(), self.arithmetic():
            try:
                for batch in on_device(self.data.batches(self.step, self.samples), self.device):
                    self._step(batch)
                    if self._caught():
                        raise Interrupted("", self.signals.code)
            except (Diverged, KeyboardInterrupt):
                raise
            except Exception as error:
                raise self._stopped(error) from error
            finally:
                self.log.close()

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Set the precision of products and the determinism of the config."""
        train = self.config.train
        with precision_of_products(train.precision, self.device), deterministic(train.deterministic):
            yield

    def _caught(self) -> bool:
        """Whether a signal reached any rank. With enqueued steps, signals of other ranks arrive with the norms of the previous step."""
        if self.ahead:
            return bool(self.signals.caught) and distributed.world() == 1
        return distributed.any_rank(bool(self.signals.caught), self.device)

    def _stopped(self, error: Exception) -> Exception:
        """Save the state if possible, and return the exception with the reason of the end and the way to resume."""
        if self.updating:
            self.undo.restore()
        if isinstance(error, InputError) and self.step == self.origin[0]:
            return error  # no step was trained yet
        try:
            self.save(survivor=distributed.world() > 1)
            where = f"saved at step {self.step}"
        except InputError as problem:
            where = f"the last state on disk is that of step {self.saved} ({problem})"
        known = explained(error)
        if isinstance(error, Interrupted) or self.signals.caught:
            why, code = "", self.signals.code
        elif known is None:
            say(f"{where}; go on with: python main.py --resume {self.folder}")
            return error
        else:
            why, code = f"{known[0]}: ", known[1]
        line = f"{why}{where}; go on with: python main.py --resume {self.folder}"
        return InputError(line) if isinstance(error, InputError) else Interrupted(line, code)

    def _step(self, batch: dict[str, Any]) -> None:
        config = self.config.train
        self._count_unread(batch)
        self.update(batch)
        self.step += 1
        if any(each and self.step % each == 0 for each in (config.log_every, config.val_every, config.save_every)):
            self.settle()
        if self.step == config.steps:
            self.settle()
        losses, norm = self.latest
        self.log.advance(loss=f"{sum(losses.values()):.4f}")
        if self.step % config.log_every == 0 or self.step == config.steps:
            rate = learning_rate(self.step - 1, config)
            terms = {f"loss/{name}": value for name, value in losses.items()}
            unread = {"skipped_samples": float(self.unread)} if self.unread else {}
            self.log.scalars(self.step, {**terms, "learning_rate": rate, "gradient_norm": norm, **unread})
        if config.val_every and self.step % config.val_every == 0 and self.step < config.steps:
            with self.signals.raising():
                self.validate()
        if self.step == config.steps or (self.step % config.save_every == 0 and self.unusual is None):
            self.save()

    def _count_unread(self, batch: dict[str, Any]) -> None:
        for reason in filter(None, batch.get("skipped", [])):
            self.unread += 1
            if self.unread <= 5:
                self.log.say(f"skipped sample {self.unread}: {reason}")

    # --- one update -----------------------------------------------------------------------------------------------

    def update(self, batch: dict[str, Any]) -> tuple[dict[str, float], float]:
        """One optimizer step on one batch. Returns the weighted loss terms and the gradient norm; with enqueued steps, of the previous one.

        An unusual step (`train.spike`) leaves weights and moments unchanged. Raises `Diverged` for numbers that are not
        finite and for too many unusual steps in a row.
        """
        if self.config.train.stage(self.step)[1] == 0:
            self.settle()
            self.guard.seen.clear()  # another stage has other losses
        if self.ahead:
            self._update_ahead(batch)
        else:
            self.latest = self._update_at_once(batch)
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
            with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
                terms = self.model(to_device(part, self.device), **mode)
            values = torch.stack(list(terms.values()))
            losses.add(terms, values.detach() / config.accumulate)
            with self._gradients_stay_here(number + 1 < config.accumulate):
                self.scaler.scale(values.sum() / config.accumulate).backward()
        return losses

    def _gradients_stay_here(self, wanted: bool) -> AbstractContextManager[Any]:
        """Skip the gradient exchange between ranks, except in the backward pass of the last part."""
        return self.model.no_sync() if wanted and isinstance(self.model, DistributedDataParallel) else nullcontext()

    def _update_ahead(self, batch: dict[str, Any]) -> None:
        """Enqueue a step without waiting for the device. The previous step is checked after this step's backward pass is
        enqueued, because its loss and norms have arrived by then. If it must be skipped, the gradients are computed again.
        """
        losses = self._gradients(batch)
        if self.settle():
            losses = self._gradients(batch)
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.train.clip_grad or math.inf)
        self._take_step()
        self.pending = Pending(self.step, batch, losses, [norm, *self.undo.update_norms()], bool(self.signals.caught))

    def settle(self, stopping: bool = False) -> bool:
        """Check the loss and norms of the pending update, if any. True: the update was undone.

        Raises `Diverged` as `update` does, and, unless `stopping`, `Interrupted` if a signal reached any rank.
        """
        pending, self.pending = self.pending, None
        if pending is None:
            return False
        now, self.step = self.step, pending.step
        losses, loss, (norm, change, size), caught = pending.take()
        self.latest = losses, norm
        lost = not math.isfinite(loss), not math.isfinite(norm) and not self.scaler.is_enabled()
        if any(lost):
            self.undo.restore()
            self.undo.discard()  # drop its copies, so that `_diverged` undoes the update before it
            self.kept = self.step - 1 if self.undo.kept else None
            self._diverged(*(("loss", losses) if lost[0] else ("gradient", {"norm": norm})), pending.batch)
        reason = self.guard.unusual(loss=loss, gradient_norm=norm) if math.isfinite(norm) else ""
        reason = reason or self._unusual_update(change, size)
        if reason:
            self.undo.restore()
            self._leave_out(reason, pending.batch)
        else:
            self.unusual = None
        self.step = now
        if caught and not stopping:
            raise Interrupted("", self.signals.code)
        return bool(reason)

    def _update_at_once(self, batch: dict[str, Any]) -> tuple[dict[str, float], float]:
        """One step that is checked before it changes the weights."""
        config = self.config.train
        losses = self._gradients(batch).read()
        loss = distributed.mean(sum(losses.values()), self.device)  # equal on all ranks, so all make the same decision
        if not math.isfinite(loss):
            self._diverged("loss", losses, batch)
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_grad or math.inf).item()
        if not math.isfinite(norm) and not self.scaler.is_enabled():
            self._diverged("gradient", {"norm": norm}, batch)
        reason = self.guard.unusual(loss=loss, gradient_norm=norm) if math.isfinite(norm) else ""
        reason = reason or self._apply()
        if reason:
            self._leave_out(reason, batch)
        else:
            self.unusual = None
        return losses, norm

    def _take_step(self) -> None:
        """Apply the update; `updating` stays set if it is interrupted."""
        self.undo.keep()
        self.kept, self.updating = self.step, True
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update(self.network, self.step)
        self.updating = False

    def _apply(self) -> str:
        """Take the optimizer step and undo it if it is unusual. Returns the reason, "" for a usual step."""
        self._take_step()
        change, size = (norm.item() for norm in self.undo.update_norms())
        reason = self._unusual_update(change, size)
        if reason:
            self.undo.restore()
        return reason

    def _unusual_update(self, change: float, size: float) -> str:
        """The reason why an update with these norms (of update and weights) is unusual; "" for a usual one."""
        if self.guard.factor and not change <= size:
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
        self.log.say(f"step {self.step + 1} left out: {reason} (on {sources(batch)})")

    def _diverged(self, what: str, values: dict[str, float], batch: dict[str, Any]) -> None:
        shown = ", ".join(f"{name}={value}" for name, value in values.items())
        self._end_at_last_good(f"the {what} is not finite ({shown})", batch)

    def _end_at_last_good(self, reason: str, batch: dict[str, Any]) -> None:
        """Undo the last update, which may have caused the divergence, save the state and end the run."""
        stopped = self.step + 1
        if self.kept is not None:
            self.undo.restore()
            self.step = self.kept if self.unusual is None else min(self.kept, self.unusual)
        where = f"'{self.folder / STATE}' (step {self.step})"
        try:
            self.save()
        except InputError as problem:
            where = f"that of step {self.saved} ({problem})"
        raise Diverged(
            f"training stopped at step {stopped}: {reason} on {sources(batch)}: the last good state is {where}; "
            "look at these files or lower train.lr"
        )

    # --- validation and the end -----------------------------------------------------------------------------------

    @contextmanager
    def averaged(self) -> Iterator[Network]:
        """The network with its averaged weights in eval mode; the trained weights are restored afterwards."""
        trained = None
        if self.average:
            trained = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
            self.network.load_state_dict(self.average.state)
        try:
            yield self.network.eval()
        finally:
            if trained is not None:
                self.network.load_state_dict(trained)

    def validate(self) -> dict[str, Any]:
        """Evaluate on the validation clips with the code of eval.py; keep the weights with the best Y PSNR."""

        def picture(clip: str, frame: str, bicubic: Tensor, ours: Tensor, gt: Tensor) -> None:
            self.log.picture(self.step, f"{clip}/{frame}", bicubic, ours, gt)

        with self.averaged() as network:
            report = evaluate(network, self.val, self.config, device=self.device, on_picture=picture)
            mean = report["mean"]
            self.log_validation(self.log, report)
            self.log.say(
                f"step {self.step}: {mean['psnr_y']:.2f} dB, {mean['gain_psnr_y']:+.2f} dB over {report['baseline']}"
            )
            self.log.flush()
            if mean["psnr_y"] > self.best:
                self.best = mean["psnr_y"]
                if distributed.is_main():
                    save_weights(self.folder / BEST, network, step=self.step, psnr_y=self.best)
        distributed.barrier()
        return report

    def finish(self) -> dict[str, Any]:
        """Write the final weights (averaged if averages are kept) and evaluate them, with the report's pictures."""
        try:
            with self.signals.watch(), self.signals.raising(), self.averaged() as network:
                return self._evaluate_final(network)
        except Interrupted as stop:
            message = f"training is done and saved; evaluate it with: python main.py --resume {self.folder}"
            raise Interrupted(message, stop.code) from None

    def _evaluate_final(self, network: Network) -> dict[str, Any]:
        if distributed.is_main():
            save_weights(self.folder / FINAL, network, step=self.step)
        distributed.barrier()
        report = evaluate(
            network, self.val, self.config, device=self.device, folder=self.folder, weights=self.folder / FINAL
        )
        if report["mean"]["psnr_y"] > self.best and distributed.is_main():
            psnr_y = report["mean"]["psnr_y"]
            save_weights(self.folder / BEST, network, step=self.step, psnr_y=psnr_y)
        log = Logger(self.folder, start=self.step + 1, total=self.step, active=distributed.is_main(), bar=False)
        self.log_validation(log, report)
        log.close()
        return report

    def log_validation(self, log: Logger, report: dict[str, Any]) -> None:
        mean = report["mean"]
        names = ("psnr_y", "ssim_y", "bicubic_psnr_y", "gain_psnr_y")
        log.scalars(self.step, {f"val/{name}": mean[name] for name in names if name in mean})

    # --- states ---------------------------------------------------------------------------------------------------

    def save(self, survivor: bool = False) -> None:
        """Write the full state on the main rank (weights and moments are equal on all ranks).

        survivor: write it on any rank, because the main rank is dead.
        """
        self.settle(stopping=True)
        if self.saved == self.step:
            return
        if not distributed.is_main():
            if survivor:
                self._save_as_survivor()
            return
        self._write_state()

    def _save_as_survivor(self) -> None:
        """Save in place of a dead main rank, whose lock is then free. The first survivor to take the lock saves."""
        with suppress(InputError), lock(self.folder):
            self.saved = read_newest(self.folder)[2]["step"] if states_in(self.folder) else None
            if self.saved is None or self.saved < self.step:
                self._write_state()

    def _write_state(self) -> None:
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        if self.average:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.average.state.items()}
        tensors |= optimizer_tensors(self.optimizer)
        header = {
            "step": self.step,
            "samples": self.samples,
            "best": self.best if math.isfinite(self.best) else None,
            "scaler": self.scaler.state_dict(),
            "guard": self.guard.state(),
            "unread": self.unread,
            "data": self.fingerprint,
            "world": distributed.world(),
            "config": config_to_mapping(self.config),
            **use_of(self.network),
        }
        save_state(self.folder, tensors, header, self.config.train.keep, say)
        self.saved = self.step

    def load(self, path: Path, accept_changes: bool = False) -> None:
        """Resume from a state file of the same network, or from the newest readable state of a folder."""
        if path.is_dir():
            path, tensors, header = read_newest(path, say)
        else:
            tensors, header = read_state(path)
        step = header["step"]
        changed = check_changes(header, self.config, self.fingerprint, distributed.world(), accept_changes)
        if step > self.config.train.steps:
            raise InputError(
                f"'{path}' is at step {step}, more than train.steps={self.config.train.steps}: ask for more steps to go on"
            )
        if changed:
            say(f"going on at step {step} with changes: {changed}")
        load_state(self.network, state_part(tensors, "network."), path)
        if self.average:
            averaged = state_part(tensors, "ema.") or state_part(tensors, "network.")
            averaged = models.current_names(self.config.network.name, averaged)
            self.average.state = {name: tensor.to(self.device) for name, tensor in averaged.items()}
        if header["config"].get("train", {}).get("optimizer") == self.config.train.optimizer:
            load_optimizer_tensors(self.optimizer, state_part(tensors, "optimizer."), path)
        if self.scaler.is_enabled() and header["scaler"]:
            self.scaler.load_state_dict(header["scaler"])
        self.step = step
        self.origin = (step, header.get("samples", step * self.config.train.batch_size))
        self.saved = step if path == self.folder / STATE else None
        self.guard.load(header.get("guard", {}))
        self.unread = header.get("unread", 0)
        self.best = -math.inf if header["best"] is None else header["best"]


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
