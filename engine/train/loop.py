"""The training loop: one for every network.

A step is a pure function of (weights, optimizer moments, seed, step number): batches, augmentation, drop path and learning rate all
derive from the seed and the step. So a state file is small in ideas - tensors and a step number - and a resumed run goes on exactly.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import dcn
import models
from data.files import remove_unfinished, replacing
from engine import distributed
from engine.checkpoint import first_few, is_state, load_network, load_state, load_tensors, save_tensors, save_weights
from engine.config import Config, config_to_mapping, dump_yaml
from engine.evaluate.measure import evaluate
from engine.sources import open_source, training_batches
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
from errors import InputError

STATE, BEST, FINAL = "last.safetensors", "best.safetensors", "weights.safetensors"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Interrupted(Exception):
    """A signal asked the run to stop; everything is saved."""

    def __init__(self, number: int, step: int, folder: Path) -> None:
        super().__init__(f"saved at step {step}; go on with: python main.py --resume {folder}")
        self.code = 128 + number


def train(config: Config, folder: Path, state: Path | None = None) -> dict[str, Any]:
    """Train as `config` says, write everything to `folder`, and return the report of the final evaluation.

    `state`: a state file to go on from, exactly. Raises `InputError` for bad input and divergence, `Interrupted` after a signal.
    """
    device = distributed.choose_device(config.device)
    dcn.set_backend(config.dcn)
    trainer = Trainer(config, folder, device)
    if state is not None:
        trainer.load(state)
    trainer.fit()
    return trainer.finish()


class Trainer:
    """One run: network, averaged weights, optimizer and where they stand."""

    def __init__(self, config: Config, folder: Path, device: torch.device) -> None:
        self.config, self.folder, self.device = config, folder, device
        torch.manual_seed(config.seed)
        self.network: nn.Module = models.build(config.network)
        if config.train.init:
            init, partial = config.train.init, config.train.init_partial
            left = load_state(self.network, load_network(init).state_dict(), init, partial=partial)
            if left and distributed.is_main():
                print(f"{init}: {len(left)} tensors of this network are not in it and start anew: {first_few(left)}")
        self.network.to(device)
        if config.train.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(self.network, config.train)
        self.average = EMA(self.network, config.train.ema) if config.train.ema else None
        fp16 = config.train.precision == "fp16"
        if fp16 and device.type != "cuda":
            raise InputError("config key 'train.precision': fp16 needs a CUDA device: say bf16 or fp32")
        self.scaler = torch.amp.GradScaler(device.type, enabled=fp16)
        self.step = 0
        self.best = -math.inf
        self.val = open_source(config, "val")
        self.model = self._wrapped(build_objective(self.network, config))

    def _wrapped(self, task: nn.Module) -> nn.Module:
        if self.config.train.compile:
            task = torch.compile(task)  # type: ignore[assignment]
        if distributed.world() > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            task = DistributedDataParallel(task, device_ids=ids, find_unused_parameters=True)
        return task

    def fit(self) -> None:
        """Work off the remaining steps. On a signal the state is saved and `Interrupted` raised."""
        config = self.config.train
        main = distributed.is_main()
        if main:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_unfinished(self.folder)
            with replacing(self.folder / "config.yaml") as temporary:
                temporary.write_text(dump_yaml(self.config), encoding="utf-8")
        self.log = Logger(self.folder, start=self.step, total=config.steps, active=main)
        try:
            with watch_signals() as caught:
                for batch in training_batches(self.config, self.step):
                    self._step(batch)
                    if distributed.any_rank(bool(caught), self.device):
                        self.save()
                        raise Interrupted(caught[0] if caught else signal.SIGTERM, self.step, self.folder)
        finally:
            self.log.close()

    def _step(self, batch: dict[str, Any]) -> None:
        config = self.config.train
        losses, norm = self.update(batch)
        self.step += 1
        self.log.advance(loss=f"{sum(losses.values()):.4f}")
        if self.step % config.log_every == 0 or self.step == config.steps:
            rate = learning_rate(self.step - 1, config)
            terms = {f"loss/{name}": value for name, value in losses.items()}
            self.log.scalars(self.step, {**terms, "learning_rate": rate, "gradient_norm": norm})
        if config.val_every and self.step % config.val_every == 0 and self.step < config.steps:
            self.validate()
        if self.step % config.save_every == 0 or self.step == config.steps:
            self.save()

    def update(self, batch: dict[str, Any]) -> tuple[dict[str, float], float]:
        """One optimizer step on one batch. Returns the weighted loss terms and the gradient norm."""
        config = self.config.train
        set_learning_rate(self.optimizer, learning_rate(self.step, config))
        torch.manual_seed(step_seed(self.config.seed, self.step, distributed.rank()))
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        mode = {"operator_only": True} if config.stage(self.step)[0].operator_only else {}
        losses: dict[str, float] = {}
        for part in split_batch(batch, config.accumulate):
            with torch.autocast(self.device.type, PRECISIONS[config.precision], enabled=config.precision != "fp32"):
                terms = self.model(to_device(part, self.device), **mode)
            total = torch.stack(list(terms.values())).sum() / config.accumulate
            for name, term in terms.items():
                losses[name] = losses.get(name, 0.0) + term.item() / config.accumulate
            if not all(map(math.isfinite, losses.values())):
                self._diverged("loss", losses, batch)
            self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_grad or math.inf).item()
        if not math.isfinite(norm) and not self.scaler.is_enabled():
            self._diverged("gradient", {"norm": norm}, batch)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update(self.network, self.step)
        return losses, norm

    def _diverged(self, what: str, values: dict[str, float], batch: dict[str, Any]) -> None:
        """Stop before the bad update reaches the weights: what is saved now is the last good state."""
        self.save()
        shown = ", ".join(f"{name}={value}" for name, value in values.items())
        sources = ", ".join(dict.fromkeys(batch["source"]))
        raise InputError(
            f"training stopped at step {self.step + 1}: the {what} is not finite ({shown}) on {sources}: the last good state is "
            f"'{self.folder / STATE}' (step {self.step}); look at these files or lower train.lr"
        )

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The network with its averaged weights in place, in eval mode; the trained ones come back afterwards."""
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
        """Evaluate on the validation clips, through the code of eval.py; keep the best weights by Y PSNR."""

        def picture(clip: str, frame: str, bicubic: Tensor, ours: Tensor, gt: Tensor) -> None:
            self.log.picture(self.step, f"{clip}/{frame}", bicubic, ours, gt)

        with self.averaged() as network:
            report = evaluate(network, self.val, self.config, device=self.device, on_picture=picture)
            mean = report["mean"]
            names = ("psnr_y", "ssim_y", "bicubic_psnr_y", "gain_psnr_y")
            self.log.scalars(self.step, {f"val/{name}": mean[name] for name in names if name in mean})
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
        """Write the final weights (averaged where averages are kept) and evaluate them, with the report's pictures."""
        with self.averaged() as network:
            if distributed.is_main():
                save_weights(self.folder / FINAL, network, step=self.step)
            distributed.barrier()
            report = evaluate(
                network, self.val, self.config, device=self.device, folder=self.folder, weights=self.folder / FINAL
            )
            if report["mean"]["psnr_y"] > self.best and distributed.is_main():
                save_weights(self.folder / BEST, network, step=self.step, psnr_y=report["mean"]["psnr_y"])
        return report

    def save(self) -> None:
        """Write the full state, by the main rank (weights and moments are alike on all ranks)."""
        if not distributed.is_main():
            return
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        if self.average:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.average.state.items()}
        tensors |= optimizer_tensors(self.optimizer)
        config = config_to_mapping(self.config)
        best = self.best if math.isfinite(self.best) else None
        header = {
            "step": self.step,
            "best": best,
            "scaler": self.scaler.state_dict(),
            "config": config,
            "network": config["network"],
        }
        save_tensors(self.folder / STATE, tensors, header)

    def load(self, path: Path) -> None:
        """Go on from a state file of the same network."""
        tensors, header = load_tensors(path)
        if not is_state(header):
            raise InputError(f"'{path}' is no training state (weights alone cannot be resumed): use it as train.init")
        load_state(self.network, part(tensors, "network."), path)
        if self.average:
            averaged = part(tensors, "ema.") or part(tensors, "network.")
            self.average.state = {name: tensor.to(self.device) for name, tensor in averaged.items()}
        load_optimizer_tensors(self.optimizer, {n: t for n, t in tensors.items() if n.startswith("optimizer.")})
        if self.scaler.is_enabled() and header["scaler"]:
            self.scaler.load_state_dict(header["scaler"])
        self.step = header["step"]
        self.best = -math.inf if header["best"] is None else header["best"]


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of everything random inside one step (drop path), different for every rank."""
    return (seed * 1_000_003 + step) * 1009 + rank


def split_batch(batch: dict[str, Any], parts: int) -> Iterator[dict[str, Any]]:
    """The batch in `parts` equal pieces, for gradient accumulation."""
    if parts == 1:
        yield batch
        return
    size = len(batch["source"]) // parts
    for i in range(parts):
        yield {key: value[i * size : (i + 1) * size] for key, value in batch.items()}


@contextmanager
def watch_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying; a second Ctrl-C interrupts at once."""
    caught: list[int] = []

    def note(number: int, _frame: Any) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
