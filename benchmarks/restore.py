"""Time and memory of restoration: python benchmarks/restore.py [--out FOLDER] [--sizes 64x64 ...] [--seconds 20].

For MTDO and STNO at the paper's and at a small size: seconds per frame, peak memory, and achieved FLOP/s as a share of the
machine's GEMM rate, which is measured in the same process, alternating with the frames. Operations are counted for the
published form, even where our implementation needs fewer. Every case runs in a separate process, so that peak memory is
measured per case. Writes restore.json, restore.md and restore.png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

import cli
import dcn
import models
from benchmarks.figure import needed, plot
from data.clips import ArrayClip
from engine.config import read_yaml
from engine.report.cost import gmac_per_frame
from engine.report.provenance import machine, peak_memory_mb
from engine.restore import Options, frames_at_once, restore

CONFIGS = Path(__file__).parents[1] / "configs"
# Config file; "": the sizes of the paper
NETWORKS = {
    "mtdo": "",
    "mtdo small": "mtdo_s.yaml",
    "stno": "",
    "stno small": "stno_s.yaml",
}
# 10^9 multiplications a frame at LR size, of the published form (STNO: 784 for 7 frames out of four of 128x128)
PUBLISHED = {"mtdo": 876 / 160**2, "stno": 784 / 7 / 128**2}


def gemm_rate(size: int = 1536, rounds: int = 3) -> float:
    """Current fp32 FLOP/s of a matrix product on this machine."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def measure(name: str, size: tuple[int, int], precision: str, seconds: float) -> dict[str, Any]:
    """One case in this process."""
    dcn.ensure_built(log=lambda line: print(line, file=sys.stderr))
    torch.manual_seed(0)
    file = NETWORKS[name]
    network: Any = models.build(read_yaml(CONFIGS / file)["network"] if file else {"name": name}).eval()
    options = Options(precision=precision, chunk=4, context=0)
    at_once = frames_at_once(network, size, options, torch.device("cpu"))
    length = 9 if at_once == 1 else 24
    clip = ArrayClip("noise", np.random.default_rng(0).integers(0, 255, (length, *size, 3), dtype=np.uint8))
    before = peak()
    space_time = name.startswith("stno")
    count = length if at_once > 1 else 8 if space_time else 1  # workers are idle only at the end of a clip
    frames: Iterator[Any] = iter(())
    steady, rates, start = [], [], time.perf_counter()
    while time.perf_counter() - start < seconds or len(steady) < 2:
        rates.append(gemm_rate())
        begun = time.perf_counter()
        for _ in range(count):
            if next(frames, None) is None:
                frames = restore(network, clip, options=options)
                next(frames)
        steady.append((time.perf_counter() - begun) / count)
    per_frame = min(steady) if space_time else min(steady[1:])
    gmac = (
        PUBLISHED[name] * size[0] * size[1]
        if name in PUBLISHED
        else gmac_per_frame(network) * size[0] * size[1] / 64**2
    )
    rate = max(rates)
    return {
        "network": name, "size": f"{size[1]}x{size[0]}", "precision": precision, "seconds_per_frame": per_frame,
        "peak_memory_mb": peak(), "peak_added_mb": peak() - before, "gmac_per_frame": gmac, "gemm_gflops": rate / 1e9,
        "share_of_gemm": 2e9 * gmac / per_frame / rate, "threads": torch.get_num_threads(),
    }  # fmt: skip


def peak() -> float:
    return peak_memory_mb(torch.device("cpu"))


def table(results: list[dict[str, Any]]) -> str:
    lines = [
        "| network | LR size | precision | s per frame | frames/s | peak memory, MB | GMAC a frame | share of fp32 GEMM rate |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['network']} | {r['size']} | {r['precision']} | {r['seconds_per_frame']:.3f} | {1 / r['seconds_per_frame']:.2f} "
        f"| {r['peak_memory_mb']:.0f} | {r['gmac_per_frame']:.1f} | {100 * r['share_of_gemm']:.0f} % |"
        for r in results
    ]
    return "\n".join(lines) + "\n"


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Seconds per frame over LR pixels, both logarithmic; one line per network and precision."""
    lines: dict[str, list[tuple[float, float]]] = {}
    sizes = {}
    for result in results:
        width, height = map(int, result["size"].split("x"))
        sizes[float(width * height)] = result["size"]
        lines.setdefault(f"{result['network']} {result['precision']}", []).append(
            (width * height, result["seconds_per_frame"])
        )
    axes = ("LR size", "seconds per frame")
    plot(path, "Restoring at x4", axes, lines, log="xy", ticks=dict(sorted(sizes.items())))


def main() -> None:
    parser = cli.Parser(description="Measure time and memory of restoration.")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--sizes", nargs="+", default=["64x64", "160x160", "320x180"], help="LR width x height")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--seconds", type=float, default=10.0, help="minimum time for each case")
    parser.add_argument("--one", nargs=3, metavar=("NETWORK", "SIZE", "PRECISION"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        width, height = map(int, options.one[1].split("x"))
        print(json.dumps(measure(options.one[0], (height, width), options.one[2], options.seconds)))
        return
    needed()
    options.out.mkdir(parents=True, exist_ok=True)
    results = []
    for case in [(n, s, p) for n in options.networks for s in options.sizes for p in options.precisions]:
        command = [sys.executable, __file__, "--seconds", str(options.seconds), "--one", *case]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
        print(table(results[-1:]).splitlines()[-1], flush=True)
        (options.out / "restore.json").write_text(json.dumps({"machine": machine(), "results": results}, indent=1))
    (options.out / "restore.md").write_text(table(results))
    draw(results, options.out / "restore.png")


if __name__ == "__main__":
    cli.run(main)
