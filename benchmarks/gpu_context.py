"""Device, sizes and networks of the steps of benchmarks/gpu.py."""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import dcn
from benchmarks.train_step import batch_for
from engine.config import Config, StageConfig, load_config
from engine.train.loop import Trainer

ROOT = Path(__file__).parents[1]


# The trainer opens its data; these benchmarks use synthetic batches
SIMULATED = [
    f"data.{part}={{kind: simulated, simulate: {{clips: 1, frames: 4, size: [64, 64]}}}}" for part in ("train", "val")
]


TINY = {
    "mtdo": ["network.channels=8", "network.feature_blocks=1", "network.reconstruction=residual", "network.reconstruction_blocks=1"],
    "stno": ["network.channels=8", "network.blocks=1", "network.query_width=16", "network.embedding=16", "network.heads=2"],
}  # fmt: skip


TARGETS = {"operator": 1.5, "training": 4.0, "inference": 4.0}


Result = dict[str, Any]


@dataclass
class Context:
    """Device and sizes of the steps."""

    device: torch.device
    quick: bool
    rows: list[dict[str, Any]] = field(default_factory=list)  # of the running step, kept if it fails

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def clean(self) -> None:
        """Release memory and restore settings that a step may have changed."""
        dcn.set_backend(None)
        torch.use_deterministic_algorithms(False)
        torch._dynamo.reset()
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def memory_gb(self) -> float | None:
        return torch.cuda.max_memory_allocated(self.device) / 2**30 if self.cuda else None

    def seconds(self, run: Callable[[], object], rounds: int = 3, warm: int = 1) -> float:
        """Median seconds of a synchronised call."""
        taken = []
        for number in range(warm + rounds):
            self.wait()
            start = time.perf_counter()
            run()
            self.wait()
            if number >= warm:
                taken.append(time.perf_counter() - start)
        return statistics.median(taken)


def config_of(name: str, context: Context, *overrides: str) -> Config:
    tiny = [*TINY[name.split("_")[0]], "data.patch=16"] if context.quick else []
    fixed = ["train.stages=[]"] if name.startswith("stno") else []
    return load_config(
        ROOT / "configs" / f"{name}.yaml", [*SIMULATED, *fixed, *tiny, f"device={context.device}", *overrides]
    )


def trainer_of(config: Config) -> Trainer:
    return Trainer(config, Path(tempfile.mkdtemp()), torch.device(config.device))


def random_batches(config: Config, batch: int, count: int) -> list[dict[str, Any]]:
    """The same for every device."""
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        made.append(batch_for(config, StageConfig(1), batch))
    return made
