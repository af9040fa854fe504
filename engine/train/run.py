"""The parts of a run, built from its config, and their state on disk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import models
from data.locks import lock
from engine import distributed
from engine.checkpoint import check_finite, check_fit, load_network, load_state, network_header, state_part
from engine.config import Config, config_to_mapping
from engine.distributed import say
from engine.report import provenance
from engine.restore.precision import for_training
from engine.sources import TrainingData, clips_trained_on, open_source
from engine.train.ahead import parallel
from engine.train.guard import Guard
from engine.train.memory import check_memory
from engine.train.objectives import build_objective
from engine.train.optim import EMA, build_optimizer, load_optimizer_tensors, optimizer_tensors
from engine.train.resume import check_changes
from engine.train.states import STATE, best_until, read_newest, read_state, save_state, states_in
from errors import InputError
from models.base import Network
from models.weights import first_few


class Run:
    """Network, averaged weights, optimizer, data and progress of one run."""

    def __init__(self, config: Config, folder: Path, device: torch.device, fresh: bool = True) -> None:
        """fresh: start from `train.init` if it is set; a resumed run loads its weights from the state."""
        self.config, self.folder, self.device = config, folder, device
        # stored with the run, so that it is resumed exactly on another machine
        config.train.precision, note = for_training(config.train.precision, device)
        if note:
            say(note)
        fp16 = config.train.precision == "fp16"
        if fp16 and device.type != "cuda":
            raise InputError("config key 'train.precision': fp16 needs a CUDA device: use bf16 or fp32")
        check_memory(config, device)
        self.network = self._new_network(fresh)
        self.optimizer = build_optimizer(self.network, config.train)
        self.average = EMA(self.network, config.train.ema) if config.train.ema else None
        self.trained: dict[str, Tensor] | None = None  # the trained weights while the network has the averaged ones
        self.scaler = torch.amp.GradScaler(device.type, enabled=fp16)
        self.guard = Guard(config.train.spike)
        self.step = 0
        self.origin = (0, 0)  # a step, and the samples drawn before it
        self.saved: int | None = None  # step of the newest state on disk
        self.unread = 0  # samples skipped because they could not be read
        self.best = -math.inf  # Y PSNR of the best weights so far
        self.validating = False  # the validation of this step is due or has begun, and has not ended
        self.val = open_source(config, "val")
        self.data = TrainingData(config)
        if names := clips_trained_on(self.data.pairs, self.val.pairs):
            which = f"{len(names)} of {len(self.val.pairs)} validation clips are also trained on: {first_few(names)}"
            say(f"{which}; their figures do not hold for other data (data.*.clips or data.*.region keep some apart)")
        self.fingerprint = self.data.fingerprint()
        self.model = self._wrapped(build_objective(self.network, config))

    def _new_network(self, fresh: bool) -> Network:
        config = self.config
        torch.manual_seed(config.seed)
        if config.data.key_weights:
            raise InputError(
                "config key 'data.key_weights' is not for training: add them to the weights with engine.release --key-weights"
            )
        network = models.build(config.network)
        network.set_restore_settings(vars(config.data))
        if config.train.init and fresh:
            init, partial = config.train.init, config.train.init_partial
            left = load_state(network, load_network(init, key_networks=False).state_dict(), init, partial=partial)
            if left:
                say(
                    f"{init}: {len(left)} tensors of this network are not in it and keep their initial values: {first_few(left)}"
                )
        network.to(self.device)
        if config.train.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def _wrapped(self, task: nn.Module) -> nn.Module:
        if self.config.train.compile:
            task = torch.compile(task, dynamic=None if self.config.space_time else False)  # type: ignore[assignment]
        return parallel(task, self.config) if distributed.world() > 1 else task

    @property
    def samples(self) -> int:
        """Number of samples used so far, over all ranks."""
        step, samples = self.origin
        return samples + (self.step - step) * self.config.train.batch_size

    @contextmanager
    def averaged(self) -> Iterator[Network]:
        """The network with its averaged weights in eval mode; the trained weights are restored afterwards."""
        if self.average:
            self.trained = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        # A signal may interrupt either exchange of weights: a state that is saved then takes `trained`.
        try:
            if self.average:
                self.network.load_state_dict(self.average.state)
            yield self.network.eval()
        finally:
            if self.trained is not None:
                self.network.load_state_dict(self.trained)
                self.trained = None

    # --- states on disk -------------------------------------------------------------------------------------------

    def save(self, survivor: bool = False) -> None:
        """Write the full state on the main rank (weights and moments are equal on all ranks).

        survivor: write it on any rank, because the main rank is dead.
        """
        if self.saved == self.step:
            return
        if distributed.is_main():
            self._write_state()
        elif survivor:
            self._save_as_survivor()

    def _save_as_survivor(self) -> None:
        """Save in place of a dead main rank, whose lock is then free. The first survivor to take the lock saves."""
        with suppress(InputError), lock(self.folder):
            self.saved = read_newest(self.folder)[2]["step"] if states_in(self.folder) else None
            if self.saved is None or self.saved < self.step:
                self._write_state()

    def _write_state(self) -> None:
        save_state(self.folder, self._tensors(), self._header(), self.config.train.keep, say)
        self.saved = self.step

    def _tensors(self) -> dict[str, Tensor]:
        averaged = self.average.state if self.average else {}
        return {
            **{f"network.{name}": tensor for name, tensor in (self.trained or self.network.state_dict()).items()},
            **{f"ema.{name}": tensor for name, tensor in averaged.items()},
            **optimizer_tensors(self.optimizer),
        }

    def _header(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "samples": self.samples,
            "best": self.best if math.isfinite(self.best) else None,
            "scaler": self.scaler.state_dict(),
            "guard": self.guard.state(),
            "unread": self.unread,
            "validating": self.validating,
            "data": self.fingerprint,
            "world": distributed.world(),
            "machine": provenance.machine(),
            "config": config_to_mapping(self.config),
            **network_header(self.network),
        }

    def load(self, path: Path, accept_changes: bool = False) -> None:
        """Resume from a state file of the same network, or from the newest readable state of a folder.

        accept_changes: also with other data, another seed or another optimizer.
        """
        path, tensors, header = read_newest(path, say) if path.is_dir() else (path, *read_state(path))
        world, machine = distributed.world(), provenance.machine()
        changed = check_changes(header, self.config, self.fingerprint, world, machine, accept_changes)
        step, steps = header["step"], self.config.train.steps
        if step > steps:
            raise InputError(
                f"'{path}' is at step {step}, more than train.steps={steps}: raise train.steps to continue"
            )
        if changed:
            say(f"continuing at step {step} with changes: {changed}")
        self._load_tensors(tensors, header, path)
        self.step = step
        self.origin = (step, header.get("samples", step * self.config.train.batch_size))
        self.saved = step if path == self.folder / STATE else None
        self.guard.load(header.get("guard", {}))
        self.unread = header.get("unread", 0)
        self.validating = header.get("validating", False)
        best = header.get("best")
        # The final evaluation comes after the last state: a run that is continued with more steps must not lose its best weights
        self.best = max(-math.inf if best is None else best, best_until(path.parent, step))

    def _load_tensors(self, tensors: dict[str, Tensor], header: dict[str, Any], path: Path) -> None:
        load_state(self.network, state_part(tensors, "network."), path)
        if self.average:
            averaged = state_part(tensors, "ema.") or state_part(tensors, "network.")
            averaged = models.current_names(self.config.network.name, averaged)
            check_fit(self.average.state, averaged, path)
            check_finite(averaged, path)
            self.average.state = {name: tensor.to(self.device) for name, tensor in averaged.items()}
        if header["config"].get("train", {}).get("optimizer") == self.config.train.optimizer:
            moments = state_part(tensors, "optimizer.")
            if header["step"] and not moments:
                say(f"'{path}' has no moments of the optimizer: they start at zero")
            load_optimizer_tensors(self.optimizer, moments, path)
        if self.scaler.is_enabled() and header["scaler"]:
            self.scaler.load_state_dict(header["scaler"])
