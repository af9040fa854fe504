"""The steps of benchmarks/gpu.py: each takes a `Context` and returns table rows, `notes`, and a list of faults (`wrong`)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import dcn
import models
from benchmarks import dcn as operator_benchmark
from benchmarks.gpu_context import ROOT, TARGETS, Context, Result, config_of
from benchmarks.gpu_training import exact_resume, loss_curves, training_speed
from data.clips import ArrayClip
from dcn import toolchain, verify
from engine.report.cost import gmac_per_frame
from engine.restore import Options, memory, pipeline, restore
from engine.restore.precision import precision_of_products
from tests import parity
from tests.dcn import cuda_source

PARITY = 1e-4  # of the largest output; the CPU's difference is about 1e-6, and other kernels round elsewhere


@dataclass(frozen=True)
class Step:
    """seconds: approximate duration on a data-centre GPU, and in a dry run."""

    name: str
    run: Callable[[Context], Result]
    seconds: float
    seconds_quick: float = 1.0


def environment(context: Context) -> Result:
    """The card, the software, and the built library."""
    lines: list[str] = []
    dcn.ensure_built(lines.append)
    row: dict[str, Any] = {"device": str(context.device), "PyTorch": torch.__version__, "CUDA": torch.version.cuda}
    if context.cuda:
        found = torch.cuda.get_device_properties(context.device)
        row |= {"card": found.name, "capability": f"{found.major}.{found.minor}"}
        row |= {"memory GiB": round(found.total_memory / 2**30), "multiprocessors": found.multi_processor_count}
    cuda = toolchain.find_cuda()
    row |= {"nvcc": cuda.nvcc or cuda.why_not, "operator": dcn.choice.implementation(context.device.type)}
    return {"rows": [row], "notes": lines}


@contextmanager
def sums_in_float32() -> Iterator[None]:
    """Matrix products in half precision do not round partial sums: the bounds are those of the kernels."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_fp16_reduced_precision_reduction, matmul.allow_bf16_reduced_precision_reduction
    matmul.allow_fp16_reduced_precision_reduction = matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        matmul.allow_fp16_reduced_precision_reduction, matmul.allow_bf16_reduced_precision_reduction = before


def operator_values(context: Context) -> Result:
    """Compare the compiled operator with plain PyTorch on random cases in all types, and in deterministic mode."""
    if not dcn.compiled.available(context.device.type):
        return {
            "notes": [f"no compiled operator here: {dcn.compiled.why_not()}"],
            "wrong": [] if context.quick else ["not built"],
        }
    wrong = [text for text in [verify.disagreement(context.device)] if text]
    worst: dict[str, dict[str, Any]] = {}
    for number in range(12 if context.quick else 248):
        case, kind = cuda_source.draw(number), cuda_source.KINDS[number % len(cuda_source.KINDS)]
        tensors = cuda_source.tensors_of(case, kind, number)
        grad = cuda_source.gradient(case, tensors, number)
        exact = cuda_source.expected(case, tensors, grad)
        moved = {name: None if value is None else value.to(context.device) for name, value in tensors.items()}
        operators = torch.ops.dcn.deform_conv2d, torch.ops.dcn.deform_conv2d_backward
        with sums_in_float32():
            values = cuda_source.found(case, moved, grad.to(context.device), [True] * 4, operators)
        row = worst.setdefault(kind, {"type": kind, "cases": 0})
        row["cases"] += 1
        for name, value, right in zip(verify.NAMES, values, exact, strict=True):
            row[name] = max(row.get(name, 0.0), cuda_source.error(value.cpu(), right))
            if not row[name] <= cuda_source.BOUNDS[kind.split()[0]]:
                wrong.append(f"{name} in {kind} differs by {row[name]:.1e} in {case}")
    return {"rows": list(worst.values()), "wrong": wrong[:10]}


def operator_speed(context: Context) -> Result:
    """Time forward and backward, compared with torchvision's operator and a plain convolution."""
    sizes = [(1, 16, 16)] if context.quick else [(4, 64, 64), (5, 160, 160), (5, 180, 320)]
    dtypes = [torch.float32] if context.quick else [torch.float32, torch.bfloat16]
    names = [name for name in dcn.backends() if name != "compiled" or dcn.compiled.available(context.device.type)]
    rows, wrong = context.rows, []
    for dtype in dtypes:
        for size in sizes:
            values = operator_benchmark.arguments(*size, str(context.device), dtype)
            found = operator_benchmark.times(values, names, 3 if context.quick else 15, time.perf_counter)
            row: dict[str, Any] = {"map": "x".join(map(str, size)), "type": str(dtype).removeprefix("torch.")}
            for name, (forward, both) in found.items():
                row |= {f"{name} forward ms": forward * 1e3, f"{name} both ms": both * 1e3}
            if "compiled" in found and "torchvision" in found:
                ratios = [theirs / ours for ours, theirs in zip(found["compiled"], found["torchvision"], strict=True)]
                row |= {"torchvision / compiled forward": ratios[0], "both": ratios[1]}
                if context.cuda and min(ratios) < TARGETS["operator"]:
                    wrong.append(
                        f"{row['map']} {row['type']}: {min(ratios):.2f} times torchvision's, target {TARGETS['operator']}"
                    )
            rows.append(row)
    return {"rows": rows, "notes": wrong}


def published_outputs(context: Context) -> Result:
    """Compare both networks with seeded weights to the stored outputs of the published code."""
    rows, wrong = [], []
    calls: dict[str, Callable[[Any, Tensor], Tensor]] = {
        "mtdo_full_as_shipped": lambda network, frames: network(frames),
        "stno_full_t0.5_77x93": lambda network, frames: network(frames, times=[0.5], size=(77, 93)),
    }
    for name, call in list(calls.items())[1 if context.quick else 0 :]:
        kind = name.split("_")[0]
        network = models.load_official(kind, parity.seeded_state(kind)).to(context.device)
        data = {key: value.to(context.device) for key, value in parity.fixture(name).items()}
        with torch.inference_mode(), precision_of_products("fp32", context.device):
            difference = float((call(network, data["in_x"]) - data["out_y"]).abs().max() / data["out_y"].abs().max())
        rows.append({"output": name, "largest difference": difference, "allowed": PARITY})
        if not difference <= PARITY:
            wrong.append(f"{name} differs by {difference:.1e} from the published code")
    return {"rows": rows, "wrong": wrong}


def moving(frames: int, height: int, width: int) -> ArrayClip:
    """A pattern that moves by one pixel a frame."""
    picture = np.random.default_rng(0).integers(0, 255, (height // 4 + 2, width // 4 + frames + 2, 3), dtype=np.uint8)
    large = picture.repeat(4, 0).repeat(4, 1)
    return ArrayClip("moving", np.stack([large[:height, t : t + width] for t in range(frames)]))


@contextmanager
def one_at_a_time(wanted: bool) -> Any:
    """One window a batch, no CUDA graph."""
    before = memory.MOST_WINDOWS, pipeline.LARGEST
    if wanted:
        memory.MOST_WINDOWS, pipeline.LARGEST = 1, 0
    try:
        yield
    finally:
        memory.MOST_WINDOWS, pipeline.LARGEST = before


def inference(context: Context) -> Result:
    """Restored frames a second and memory, compared with eager fp32 with one window at a time."""
    rows, notes = context.rows, []
    sizes = [(16, 16)] if context.quick else [(160, 160), (180, 320), (720, 1280)]
    labels = ["eager fp32", "fp32", "bf16", *(["fp16"] if context.cuda else [])]
    for name in ("mtdo_s", "stno_s") if context.quick else ("mtdo_s", "stno_s", "mtdo_jilin"):
        network = models.build(config_of(name, context).network).to(context.device).eval()
        operations = None if context.quick else 2e9 * gmac_per_frame(network)
        for height, width in sizes:
            eager = None
            clip = moving(4 if context.quick or height > 500 else 48, height, width)
            for label in labels:
                context.clean()
                with one_at_a_time(label == "eager fp32"):
                    seconds = restoring(network, clip, label.split()[-1], context)
                eager = eager or seconds
                row = {"network": name, "LR frame": f"{width}x{height}", "run": label, "frames/s": 1 / seconds}
                row |= {"times eager fp32": eager / seconds, "memory GiB": context.memory_gb()}
                if operations:
                    row["TFLOP/s"] = operations * height * width / 64**2 / seconds / 1e12
                rows.append(row)
            best = max(row["times eager fp32"] for row in rows[-len(labels) :])
            if context.cuda and best < TARGETS["inference"]:
                notes.append(f"{name} {width}x{height}: {best:.1f} times eager fp32, target {TARGETS['inference']}")
    return {"rows": rows, "notes": notes}


def restoring(network: Any, clip: ArrayClip, precision: str, context: Context) -> float:
    """Seconds a frame of the second of two runs over the clip."""
    for _ in range(2):
        context.wait()
        start = time.perf_counter()
        produced = sum(1 for _ in restore(network, clip, device=context.device, options=Options(precision=precision)))
        seconds = (time.perf_counter() - start) / produced
    return seconds


def sanitizer(context: Context) -> Result:
    """Run compute-sanitizer on the comparison of the operator, if the tool is found."""
    tool = shutil.which("compute-sanitizer")
    if tool is None or not context.cuda:
        return {"notes": ["compute-sanitizer was not found" if tool is None else "no CUDA device"]}
    command = [tool, "--error-exitcode", "99", sys.executable, "-m", "dcn.verify", str(context.device.index or 0)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    last = (ran.stdout.strip().splitlines() or ["no output"])[-1]
    return {"notes": [last], "wrong": [] if ran.returncode == 0 else [f"exit code {ran.returncode}: {last}"]}


STEPS = [
    Step("environment", environment, 60),  # builds the operator
    Step("operator values", operator_values, 15),
    Step("published outputs", published_outputs, 10),
    Step("operator speed", operator_speed, 10),
    Step("exact resume", exact_resume, 10),
    Step("loss curves", loss_curves, 60),  # this one and the next compile the networks last
    Step("inference", inference, 60),
    Step("training speed", training_speed, 60),
    Step("sanitizer", sanitizer, 60, 0.0),
]
