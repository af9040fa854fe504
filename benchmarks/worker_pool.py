"""Time restoring small frames with several workers: python benchmarks/worker_pool.py [--sizes 84x32 160x160] [--precision fp32 bf16].

Released MTDO weights (--scale 2, 3 or 4) on clips of noise: seconds a frame with one worker that has all threads, and with the
number of workers that restore() would choose, which share the threads. Alternating in one process; medians.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

import cli
import dcn
from data.clips import ArrayClip
from engine.checkpoint import load_network
from engine.released import released
from engine.restore import Options, frames_at_once, restore


def measure(network: torch.nn.Module, size: tuple[int, int], precision: str, rounds: int, length: int = 24) -> str:
    """One row of the table."""
    clip = ArrayClip("noise", np.random.default_rng(0).integers(0, 255, (length, *size, 3), dtype=np.uint8))
    workers = frames_at_once(network, size, Options(), torch.device("cpu"))
    seconds: dict[int, list[float]] = {1: [], workers: []}
    for round_ in range(rounds + 1):
        for count, values in seconds.items():
            start = time.perf_counter()
            for _ in restore(network, clip, options=Options(precision=precision, workers=count)):
                pass
            if round_:  # the first round warms up
                values.append((time.perf_counter() - start) / length)
    single, together = (statistics.median(values) for values in (seconds[1], seconds[workers]))
    return (
        f"| {size[1]}x{size[0]} | {precision} | {single:.4f} | {workers} | {together:.4f} | {single / together:.2f} |"
    )


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "--sizes", nargs="+", default=["84x32", "64x64", "160x160", "320x180"], help="width x height of LR frames"
    )
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--scale", type=float, default=4.0, help="of the released weights")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sizes = [tuple(map(int, each.split("x"))) for each in options.sizes]
    dcn.ensure_built()
    network = load_network(released("mtdo", options.scale))
    print("| LR size | precision | s a frame, one worker | workers | s a frame | ratio |\n|---|---|---|---|---|---|")
    for precision in options.precision:
        for width, height in sizes:
            print(measure(network, (height, width), precision, options.rounds), flush=True)


if __name__ == "__main__":
    cli.run(main)
