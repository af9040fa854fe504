"""Time HAT's window attention, compiled and in plain PyTorch: python benchmarks/attention.py [--size 160] [--rounds 7].

Both alternate in one process on a map of size x size tokens, with the linear layers around them; medians in milliseconds for
the sizes of the paper and of mtdo_s. Errors: root mean square difference from float64 with the same (rounded) weights and
tokens, relative to the root mean square of the result, on a corner of four windows a side.
"""

from __future__ import annotations

import statistics
import sys
import time
from copy import deepcopy
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor, nn

import cli
import dcn
from models.mtdo.attention import OverlapAttention, WindowAttention, window_plan

NETWORKS = {"paper (180, 6 heads, window 16)": (180, 6, 16, 4), "small (64, 2 heads, window 8)": (64, 2, 8, 1)}


def milliseconds(network: nn.Module, x: Tensor, *plan: object) -> float:
    start = time.perf_counter()
    network(x, *plan)
    return 1000 * (time.perf_counter() - start)


def errors(network: nn.Module, x: Tensor, *plan: object) -> list[float]:
    """Errors of plain PyTorch and of the compiled operator, relative to float64."""
    found = []
    expected = deepcopy(network).double()(x.double(), *plan)  # the operator does not support float64
    for backend in ("plain", "compiled"):
        dcn.set_backend(backend)
        found.append(((network(x, *plan) - expected).square().mean() / expected.square().mean()).sqrt().item())
    return found


@torch.inference_mode()
def main() -> None:
    parser = cli.Parser(description="Time of HAT's attention.")
    parser.add_argument("--size", type=int, default=160, help="side of the map in tokens, a multiple of 16")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    dcn.ensure_built()
    print(
        f"{torch.get_num_threads()} threads\n"
        "| network | attention | type | plain, ms | compiled, ms | ratio | error of plain | of compiled |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for label, (embed, heads, window, margin) in NETWORKS.items():
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.randn(1, options.size, options.size, embed).to(dtype)
            corner = x[:, : 4 * window, : 4 * window]
            plans = [window_plan(*tokens.shape[1:3], window, tokens) for tokens in (x, corner)]
            inside = WindowAttention(embed, heads, window).to(dtype)
            nn.init.normal_(inside.relative_position_bias_table, std=0.5)
            across = OverlapAttention(embed, heads, window, margin).to(dtype)
            nn.init.normal_(across.relative_position_bias_table, std=0.5)
            cases = {"windows": (inside, [None] * 2), "shifted windows": (inside, plans), "overlapping": (across, None)}
            for name, (network, both) in cases.items():
                plan, corner_plan = ([], []) if both is None else ([each] for each in both)
                times: dict[str, list[float]] = {"plain": [], "compiled": []}
                for _ in range(options.rounds + 1):
                    for backend, taken in times.items():
                        dcn.set_backend(backend)
                        taken.append(milliseconds(network, x, *plan))
                plain, compiled = (statistics.median(taken[1:]) for taken in times.values())
                kind = str(dtype).removeprefix("torch.")
                figures = f"{plain:.1f} | {compiled:.1f} | {plain / compiled:.2f}"
                lost = " | ".join(f"{error:.1e}" for error in errors(network, corner, *corner_plan))
                print(f"| {label} | {name} | {kind} | {figures} | {lost} |", flush=True)


if __name__ == "__main__":
    cli.run(main)
