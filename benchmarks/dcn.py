"""Time the deformable convolution: `python benchmarks/dcn.py [--threads 2] [--device cpu] [--dtype float32] [--sizes 64x64 ...]`.

64 -> 64 channels, 3x3, 8 deformable groups, mask. All available implementations and F.conv2d of the same shape alternate in
one process; results are medians over the rounds, as multiples of the time of F.conv2d. Extra memory (CPU) is the peak of the
compiled operator's buffers, results excluded, forward and backward separately, in per cent of the column buffer of one
sample (9 * C * H * W floats).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

import cli
import dcn

CHANNELS, GROUPS, POINTS = 64, 8, 9


def arguments(batch: int, height: int, width: int, device: str, dtype: torch.dtype) -> list[torch.Tensor]:
    """input, offset (std 2 px), weight, bias, mask, all with gradients."""
    torch.manual_seed(0)
    made = [
        torch.randn(batch, CHANNELS, height, width),
        torch.randn(batch, 2 * GROUPS * POINTS, height, width) * 2,
        torch.randn(CHANNELS, CHANNELS, 3, 3) / 24,
        torch.zeros(CHANNELS),
        torch.rand(batch, GROUPS * POINTS, height, width),
    ]
    return [tensor.to(device, dtype).requires_grad_() for tensor in made]


def contenders(values: list[torch.Tensor], names: list[str]) -> dict[str, Callable[[], torch.Tensor]]:
    input, offset, weight, bias, mask = values

    def deformable(name: str) -> Callable[[], torch.Tensor]:
        def run() -> torch.Tensor:
            dcn.set_backend(name)
            return dcn.deform_conv2d(input, offset, weight, bias, padding=1, mask=mask)

        return run

    floor = {"conv2d": lambda: F.conv2d(input, weight, bias, padding=1)}
    return floor | {name: deformable(name) for name in names}


def times(
    values: list[torch.Tensor], names: list[str], rounds: int, clock: Callable[[], float]
) -> dict[str, tuple[float, float]]:
    """Median seconds (forward, forward + backward) of each contender; contenders alternate within each round."""
    device = values[0].device.type
    grad = torch.randn_like(values[0]).detach()
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    taken: dict[str, tuple[list[float], list[float]]] = {}
    for round_ in range(rounds + 1):
        for name, run in contenders(values, names).items():
            wait()
            start = clock()
            with torch.no_grad():
                run()
            wait()
            middle = clock()
            run().backward(grad)
            wait()
            end = clock()
            if round_:  # the first round warms up
                forward, both = taken.setdefault(name, ([], []))
                forward.append(middle - start)
                both.append(end - middle)
            for tensor in values:
                tensor.grad = None
    return {name: (statistics.median(forward), statistics.median(both)) for name, (forward, both) in taken.items()}


def extra_memory(values: list[torch.Tensor], backward: bool) -> float:
    """Peak of the compiled operator's buffers, results excluded, in per cent of one sample's column buffer."""
    input, offset, weight, bias, mask = (tensor.detach() for tensor in values)
    pairs = ([1, 1], [1, 1], [1, 1])
    operator = torch.ops.dcn
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        if backward:
            results = operator.deform_conv2d_backward(input, input, offset, weight, mask, *pairs, [True] * 4)
        else:
            results = (operator.deform_conv2d(input, offset, weight, bias, mask, *pairs),)
    held = peak = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    kept = sum(result.numel() * result.element_size() for result in results)
    return 100 * (peak - kept) / (POINTS * input[0].numel() * 4)


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--sizes", nargs="+", default=["64x64", "160x160", "180x320"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 5])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--operators", nargs="+", help="default: all available")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="processor time instead of wall-clock time, for a busy machine and 1 thread",
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dcn.ensure_built()
    names = options.operators or dcn.backends()
    clock = time.process_time if options.cpu_time else time.perf_counter
    print(f"torch {torch.__version__}, {options.device}, {options.dtype}, {options.threads} threads, {dcn.backends()}")
    print("| map | batch | operator | forward ms | x conv2d | forward+backward ms | x conv2d |")
    print("|---|---|---|---|---|---|---|")
    for size in options.sizes:
        height, width = map(int, size.split("x"))
        for batch in options.batches:
            values = arguments(batch, height, width, options.device, getattr(torch, options.dtype))
            found = times(values, names, options.rounds, clock)
            for name, (forward, both) in found.items():
                ratios = forward / found["conv2d"][0], both / found["conv2d"][1]
                cells = f"{forward * 1e3:.1f} | {ratios[0]:.2f} | {both * 1e3:.1f} | {ratios[1]:.2f}"
                print(f"| {size} | {batch} | {name} | {cells} |", flush=True)
            if options.device == "cpu" and "compiled" in found:
                memory = [f"{extra_memory(values, backward):.0f} %" for backward in (False, True)]
                print(f"| {size} | {batch} | compiled's extra memory | {memory[0]} | | {memory[1]} | |", flush=True)


if __name__ == "__main__":
    cli.run(main)
