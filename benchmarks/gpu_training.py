"""The steps of benchmarks/gpu.py that train."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch

from benchmarks.gpu_context import TARGETS, Context, Result, config_of, random_batches, trainer_of
from benchmarks.train_step import batch_for
from engine.config import Config, StageConfig
from engine.report.cost import gmac
from engine.train.ahead import on_device
from engine.train.loop import Trainer


def losses_of(config: Config, batch: int, steps: int) -> list[float]:
    """The loss of each step on seeded random batches."""
    config = replace(config, train=replace(config.train, steps=10**6, batch_size=batch, accumulate=1))
    trainer, curve = trainer_of(config), []
    with trainer.arithmetic():
        for each in on_device(iter(random_batches(config, batch, steps)), trainer.device):
            trainer.update(each)
            trainer.step += 1
            trainer.settle()
            curve.append(sum(trainer.latest[0].values()))
    return curve


def seconds_of(config: Config, batch: int, steps: int, context: Context, plain: bool = False) -> tuple[float, Trainer]:
    """Seconds of a step, from the start of the fourth to the end of the last one. plain: synchronise after each step."""
    config = replace(config, train=replace(config.train, steps=10**6, batch_size=batch, accumulate=1))
    trainer, warm, start = trainer_of(config), min(3, steps - 1), 0.0
    trainer.ahead = trainer.ahead and not plain
    batches = random_batches(config, batch, warm + 1)
    with trainer.arithmetic():
        for number, each in enumerate(on_device((batches[i % len(batches)] for i in range(steps)), trainer.device)):
            if number == warm:
                trainer.settle()
                context.wait()
                start = time.perf_counter()
            trainer.update(each)
            trainer.step += 1
        trainer.settle()
        context.wait()
    return (time.perf_counter() - start) / (steps - warm), trainer


def loss_curves(context: Context) -> Result:
    """Fifty steps in fp32, bf16 and compiled: the fp32 curve is the CPU's."""
    steps, rows, wrong, patch = 3 if context.quick else 50, context.rows, [], "data.patch=16"
    cpu: dict[str, list[float]] = {}
    for label, overrides in {
        "fp32": ["train.precision=fp32"],
        "bf16": ["train.precision=bf16"],
        "compiled": ["train.precision=fp32", "train.compile=true"],
    }.items():
        if context.quick and label == "compiled":
            continue
        for name in ("mtdo_s", "stno_s"):
            if name not in cpu:
                on_cpu = replace(config_of(name, context, patch, "train.precision=fp32"), device="cpu")
                cpu[name] = losses_of(on_cpu, 2, min(steps, 20))
            curve = losses_of(config_of(name, context, patch, *overrides), 2, steps)
            apart = max(abs(a - b) / abs(b) for a, b in zip(curve, cpu[name], strict=False))
            bound = 0.1 if label == "bf16" else 0.01
            rows.append(
                {"config": name, "run": label, "first loss": curve[0], "last loss": curve[-1], "from the CPU's": apart}
            )
            if not apart <= bound:
                wrong.append(f"{name} {label}: the losses differ from the CPU's by {100 * apart:.2f} %")
    return {"rows": rows, "wrong": wrong}


def training_speed(context: Context) -> Result:
    """Samples a second, compared with an eager fp32 loop that waits for every step, and share of the card's bf16 matrix rate."""
    rows, notes = context.rows, []
    rate = matrix_rate(context)
    batches = {"mtdo_s": 8, "stno_s": 4, "mtdo_jilin": 4, "stno_vimeo": 4}
    names = list(batches)[: 2 if context.quick else 4]
    eager: dict[str, float] = {}
    operations: dict[str, float] = {}
    for label, overrides in {
        "eager fp32": ["train.precision=fp32", "train.compile=false"],
        "bf16": ["train.precision=bf16", "train.compile=false"],
        "bf16 compiled": ["train.precision=bf16", "train.compile=true"],
    }.items():
        if context.quick and "compiled" in label:
            continue
        for name in names:
            batch, steps = (1, 2) if context.quick else (batches[name], 12)
            plain = label == "eager fp32"
            layout = ["train.channels_last=false"] if plain and name.startswith("stno") else []
            context.clean()
            config = config_of(name, context, *overrides, *layout)
            seconds, trainer = seconds_of(config, batch, steps, context, plain)
            eager.setdefault(name, seconds)
            row = {"config": name, "run": label, "batch": batch, "samples/s": batch / seconds}
            if "compiled" not in label:
                data = batch_for(trainer.config, StageConfig(1), batch)
                operations[name] = 2e9 * gmac(lambda t=trainer, d=data: t.update(d))
            row |= {"times eager fp32": eager[name] / seconds}
            row |= {"share of bf16 rate": operations[name] / seconds / rate, "memory GiB": context.memory_gb()}
            rows.append(row)
            del trainer  # before the next one is measured
    for name in names:
        best = max(row["times eager fp32"] for row in rows if row["config"] == name)
        if context.cuda and best < TARGETS["training"]:
            notes.append(f"{name}: {best:.1f} times eager fp32, target {TARGETS['training']}")
    return {"rows": rows, "notes": [f"bf16 matrix products: {rate / 1e12:.1f} TFLOP/s", *notes]}


def matrix_rate(context: Context) -> float:
    """bf16 FLOP/s of a large matrix product."""
    side = 256 if context.quick else 8192
    a, b = (torch.randn(side, side, device=context.device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / context.seconds(lambda: a @ b, rounds=5, warm=2)


def exact_resume(context: Context) -> Result:
    """Six steps, and a run resumed after three, must give the same weights, bit for bit, in deterministic mode."""
    overrides = ["data.patch=16", "train.precision=fp32", "train.steps=1000", "train.batch_size=2"]
    config = config_of("mtdo_s", context, *overrides, "train.deterministic=true")
    batches, results = random_batches(config, 2, 6), []

    def work_off(trainer: Trainer, some: list[dict[str, Any]]) -> None:
        with trainer.arithmetic():
            for each in on_device(iter(some), trainer.device):
                trainer.update(each)
                trainer.step += 1
            trainer.settle()

    full, first, second = (trainer_of(config) for _ in range(3))
    work_off(full, batches)
    work_off(first, batches[:3])
    first.save()
    second.load(first.folder)
    work_off(second, batches[3:])
    results = [full.network.state_dict(), second.network.state_dict()]
    differ = [name for name in results[0] if not torch.equal(results[0][name], results[1][name])]
    return {"wrong": [f"{len(differ)} of {len(results[0])} tensors differ after a resume"] if differ else []}
