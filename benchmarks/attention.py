"""HAT's attention through the compiled operator and in plain PyTorch: python benchmarks/attention.py [--size 160] [--rounds 7].

Both in turn in one process, on a map of size x size tokens, with the linear layers around it; medians in milliseconds,
for the paper's sizes and the small network's.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor, nn

import dcn
from engine.cli import tune_allocator
from models.mtdo.attention import OverlapAttention, WindowAttention, window_plan

NETWORKS = {"paper (180, 6 heads, window 16)": (180, 6, 16, 4), "small (64, 2 heads, window 8)": (64, 2, 8, 1)}


def milliseconds(network: nn.Module, x: Tensor, *plan: object) -> float:
    start = time.perf_counter()
    network(x, *plan)
    return 1000 * (time.perf_counter() - start)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description="Time of HAT's attention.")
    parser.add_argument("--size", type=int, default=160, help="side of the map in tokens, a multiple of 16")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    tune_allocator()
    dcn.ensure_built()
    print(
        f"{torch.get_num_threads()} threads\n| network | attention | type | plain, ms | compiled, ms | ratio |\n|---|---|---|---|---|---|"
    )
    for label, (embed, heads, window, margin) in NETWORKS.items():
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.randn(1, options.size, options.size, embed).to(dtype)
            shifted = window_plan(options.size, options.size, window, x)
            inside = WindowAttention(embed, heads, window).to(dtype)
            nn.init.normal_(inside.table, std=0.5)
            across = OverlapAttention(embed, heads, window, margin).to(dtype)
            nn.init.normal_(across.table, std=0.5)
            cases = {"windows": (inside, None), "shifted windows": (inside, shifted), "overlapping": (across,)}
            for name, (network, *plan) in cases.items():
                times: dict[str, list[float]] = {"plain": [], "compiled": []}
                for _ in range(options.rounds + 1):
                    for backend, taken in times.items():
                        dcn.set_backend(backend)
                        taken.append(milliseconds(network, x, *plan))
                plain, compiled = (statistics.median(taken[1:]) for taken in times.values())
                kind = str(dtype).removeprefix("torch.")
                print(
                    f"| {label} | {name} | {kind} | {plain:.1f} | {compiled:.1f} | {plain / compiled:.2f} |", flush=True
                )


if __name__ == "__main__":
    main()
