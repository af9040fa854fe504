"""Seconds and memory of a training step, and the estimated duration of a config's run on this machine.

    python benchmarks/train_step.py --config configs/mtdo_jilin.yaml [--batch 1] [--steps 3] [key.sub=value ...]

Measures the trainer's step (loss, backward pass, clipping, optimizer, EMA) with random frames of the config's sizes, so it needs
no data set, on the device that training would use. With `--batch`, time and activations are assumed to grow with the batch.
Each stage is measured at its largest scale. Operations (convolutions, products, attention) are counted, to estimate hours
on other machines.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

import cli
from data.simulate import SimulatorSettings
from engine import distributed
from engine.config import Config, SourceConfig, StageConfig, load_config
from engine.report import provenance
from engine.report.cost import gmac
from engine.train.loop import Trainer


def batch_for(config: Config, stage: StageConfig, size: int) -> dict[str, Any]:
    """Random bytes with the shapes of the data set."""
    patch, source = stage.patch or config.data.patch, ["random"] * size

    def frames(*shape: int) -> torch.Tensor:
        return torch.randint(0, 256, shape, dtype=torch.uint8)

    if not config.space_time:
        side = patch * config.network.scale
        return {
            "lr": frames(size, config.network.frames, 3, patch, patch),
            "gt": frames(size, 3, side, side),
            "source": source,
        }
    keys, per_gap = config.data.key_frames, stage.times_per_gap or config.data.times_per_gap
    side = round(patch * max(stage.scales or config.data.scales))
    times = torch.linspace(0, 1, per_gap + 2)[1:-1].expand(size, -1)
    return {
        "lr": frames(size, keys, 3, patch, patch),
        "gt": frames(size, keys + (keys - 1) * per_gap, 3, side, side),
        "times": times,
        "source": source,
    }


def measure(config: Config, stage: StageConfig, size: int, steps: int) -> tuple[float, float, float]:
    """Median seconds of a step, peak memory in MB, and the step's 10^9 multiplications."""
    single = replace(config, train=replace(config.train, stages=[replace(stage, steps=steps + 1)], accumulate=1))
    tiny = SourceConfig(kind="simulated", simulate=SimulatorSettings(clips=1, frames=4, size=(64, 64)))
    # the trainer opens these data, but the benchmark does not use them
    single = replace(single, data=replace(single.data, train=tiny, also=[], val=tiny))
    trainer = Trainer(single, Path("unused"), distributed.choose_device(config.device))
    batch, seconds = batch_for(single, stage, size), []
    for _ in range(steps + 1):  # the first one warms up
        start = time.perf_counter()
        with trainer.arithmetic():
            trainer.update(batch)
            trainer.step += 1
            trainer.settle()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    memory = provenance.peak_memory_mb(trainer.device)
    return statistics.median(seconds[1:]), memory, gmac(lambda: trainer.update(batch))


def main() -> None:
    arguments = cli.parser(
        "Time a training step.", "  python benchmarks/train_step.py --config configs/mtdo_jilin.yaml --batch 1"
    )
    arguments.add_argument("--config", default="configs/mtdo_jilin.yaml")
    arguments.add_argument("--batch", type=int, help="samples of the measured step (default: the config's batch)")
    arguments.add_argument("--steps", type=int, default=3)
    options = cli.parse(arguments)
    config = load_config(options.config, options.overrides)
    size = options.batch or config.train.batch_size
    total = operations = 0.0
    for number, stage in enumerate(config.train.all_stages):
        seconds, memory, multiplications = measure(config, stage, size, options.steps)
        hours = seconds * config.train.batch_size / size * stage.steps / 3600
        total += hours
        operations += 2e9 * multiplications * config.train.batch_size / size * stage.steps
        print(
            f"stage {number + 1}: batch {size}: {seconds:.2f} s a step, peak memory {memory:.0f} MB; "
            f"{stage.steps} steps of batch {config.train.batch_size}: {hours:.1f} hours",
            flush=True,
        )
    print(f"full run on this machine: {total:.1f} hours")
    print(f"full run: {operations:.3g} operations, {operations / 1e13 / 3600:.1f} hours per 10 TFLOP/s sustained")


if __name__ == "__main__":
    cli.run(main)
