"""Overhead of the training loop: python benchmarks/loop.py [--config configs/mtdo_s.yaml] [--rounds 7] [key.sub=value ...].

A bare step is forward pass, backward pass, clipping, optimizer and averaged weights; the loop also saves the state that an update
changes and detects unusual steps. Both alternate in one process on the CPU, on the same random batch. It prints the median CPU time
of each, the median ratio, and whether the weights are bitwise equal.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

import cli
from benchmarks.train_step import batch_for
from data.simulate import SimulatorSettings
from engine.config import SourceConfig, load_config
from engine.train.loop import Trainer
from engine.train.objectives import to_device
from engine.train.optim import learning_rate, set_learning_rate
from engine.train.updates import PRECISIONS, step_seed


def bare_step(trainer: Trainer, batch: dict[str, Any]) -> None:
    config = trainer.config.train
    set_learning_rate(trainer.optimizer, learning_rate(trainer.step, config))
    torch.manual_seed(step_seed(trainer.config.seed, trainer.step, 0))
    trainer.network.train()
    trainer.optimizer.zero_grad(set_to_none=True)
    with torch.autocast("cpu", PRECISIONS[config.precision], enabled=config.precision == "bf16"):
        terms = trainer.model(to_device(batch, trainer.device))
    torch.stack(list(terms.values())).sum().backward()
    torch.nn.utils.clip_grad_norm_(trainer.network.parameters(), config.clip_grad or math.inf).item()
    trainer.optimizer.step()
    if trainer.average:
        trainer.average.update(trainer.network, trainer.step)


def main() -> None:
    arguments = cli.parser(
        "Compare the time of the training loop with that of a bare step.", "  python benchmarks/loop.py data.patch=24"
    )
    arguments.add_argument("--config", default="configs/mtdo_s.yaml")
    arguments.add_argument("--rounds", type=int, default=7)
    options = cli.parse(arguments)
    torch.set_num_threads(1)
    config = load_config(options.config, [*options.overrides, "device=cpu", "train.accumulate=1"])
    tiny = SourceConfig(kind="simulated", simulate=SimulatorSettings(clips=1, frames=4, size=(64, 64)))
    config = replace(config, data=replace(config.data, train=tiny, also=[], val=tiny))
    batch = batch_for(config, config.train.all_stages[-1], config.train.batch_size)
    trainers = {name: Trainer(config, Path(tempfile.mkdtemp()), torch.device("cpu")) for name in ("bare", "loop")}
    taken: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in range(options.rounds + 1):
        for name, trainer in trainers.items():
            start = time.process_time()
            bare_step(trainer, batch) if name == "bare" else trainer.update(batch)
            trainer.step += 1
            taken[name].append(time.process_time() - start)
    for name, seconds in taken.items():
        print(f"{name}: {statistics.median(seconds[1:]):.3f} s")
    ratios = [loop / bare for bare, loop in zip(taken["bare"][1:], taken["loop"][1:], strict=True)]
    states = [trainer.network.state_dict() for trainer in trainers.values()]
    same = all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    print(f"loop / bare: {statistics.median(ratios):.3f}; the same bits: {same}")


if __name__ == "__main__":
    cli.run(main)
