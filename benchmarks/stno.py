"""Time STNO: `python benchmarks/stno.py [clip query times galerkin] [--threads 2] [--rounds 3] [--plot FILE]`.

Every part alternates in one process with a matrix product of the machine, and the best round counts, so that ratios hold on
a busy or throttled machine. Memory is the growth of the process's peak. Weights are random and do not affect the times.

    clip      4 LR frames of 128x128, x4 in space, x2 in time: fp32 and bf16, relative to the published form's 784 GMAC
    times     x8 in time: seven times at once, `shared`, compared with seven single calls
    query     one frame from 320x180 to 1280x720: compiled, folded in plain PyTorch, and as published; largest
              differences relative to the largest value; its memory is valid only if `query` is the only part
    galerkin  seconds per token for 1,000 to 60,000 tokens; `--plot` draws them with softmax attention
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

import cli
import dcn
from benchmarks.figure import needed, plot
from engine.report.provenance import peak_memory_mb
from errors import InputError
from models import load_official
from models.stno import STNO
from models.stno.galerkin import GalerkinBlock
from models.stno.query import Query
from tests.models.plain_query import plain_query
from tests.parity import seeded_state

PUBLISHED_GMAC = 784  # of the straightforward network for 4 frames of 128x128, x4, one time per gap
TOKENS = [(25, 40), (50, 60), (75, 100), (120, 125), (150, 200), (240, 250)]


def best(rounds: int, *runs: Callable[[], object]) -> list[float]:
    """Minimum seconds of each contender, which alternate."""
    taken = [math.inf] * len(runs)
    for round_ in range(rounds + 1):
        for index, run in enumerate(runs):
            start = time.perf_counter()
            run()
            if round_:  # the first round warms up
                taken[index] = min(taken[index], time.perf_counter() - start)
    return taken


def peak_mb() -> float:
    return peak_memory_mb(torch.device("cpu"))


def matrix_product() -> Callable[[], Tensor]:
    """100 GFLOP, about half a second."""
    a, b = torch.randn(2, 3684, 3684)
    return lambda: a @ b


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10((a - b).square().mean().item())


def clip(rounds: int) -> None:
    network, frames = load_official("stno", seeded_state("stno")), torch.rand(1, 4, 3, 128, 128)

    def run(kind: torch.dtype | None = None) -> Tensor:
        with torch.autocast("cpu", kind) if kind else contextlib.nullcontext():
            return network(frames, [0.5], (512, 512))

    before = peak_mb()
    run()
    print(f"clip: peak memory {peak_mb():.0f} MB, of which {before:.0f} MB before the call")
    product, exact, half = best(rounds, matrix_product(), run, lambda: run(torch.bfloat16))
    rate = 2 * 3684**3 / product / 1e9
    for name, seconds in (("fp32", exact), ("bf16", half)):
        share = 2 * PUBLISHED_GMAC / seconds / rate
        print(f"clip: {name} {seconds:.2f} s, {share:.0%} of the fp32 matrix product's rate ({rate:.0f} GFLOP/s)")
    print(f"clip: bf16 to fp32 {psnr(run(), run(torch.bfloat16)):.1f} dB (seeded weights)")


def times(rounds: int) -> None:
    network, frames = STNO().eval(), torch.rand(1, 2, 3, 64, 64)
    eighths = [k / 8 for k in range(1, 8)]

    def single() -> None:
        for t in eighths:
            network(frames, [t], (256, 256))

    together, single_calls = best(rounds, lambda: network(frames, eighths, (256, 256), times_mode="shared"), single)
    print(f"times: x8 in time, 2 frames of 64x64: shared {together:.2f} s, seven single calls {single_calls:.2f} s")
    print(f"times: shared is {single_calls / together:.2f} times as fast")


def query(rounds: int) -> None:
    size, layers = (720, 1280), {"stno_s": Query(32, 64).eval(), "paper": Query(64, 256).eval()}
    features = {name: torch.randn(1, layer.channels, 180, 320) for name, layer in layers.items()}

    def run(name: str, backend: str) -> Tensor:
        if backend == "straightforward":
            return plain_query(layers[name], features[name], size)
        dcn.set_backend(backend)
        return layers[name](features[name], size)

    backends = (
        ("compiled", "plain", "straightforward") if "compiled" in dcn.backends() else ("plain", "straightforward")
    )
    for name in layers:  # before a larger case raises the peak
        before = peak_mb()
        run(name, backends[0])
        print(f"query, {name}: 1280x720, {backends[0]}: extra memory {peak_mb() - before:.0f} MB")
    for name in layers:
        expected = run(name, "straightforward")
        seconds = best(rounds, *(partial(run, name, backend) for backend in backends))
        for backend, taken in zip(backends, seconds, strict=True):
            off = (run(name, backend) - expected).abs().max() / expected.abs().max()
            print(f"query, {name}: {backend} {taken:.3f} s, {seconds[-1] / taken:.1f} times as fast, off by {off:.1e}")
    dcn.set_backend(None)


def softmax_block(block: GalerkinBlock) -> Callable[[Tensor], Tensor]:
    """The same projections with softmax attention instead of the Galerkin products."""
    attention = block.attention

    def run(tokens: Tensor) -> Tensor:
        key, value = attention.key_value(tokens).chunk(2, dim=-1)
        heads = (x.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for x in (attention.query(tokens), key, value))
        return attention.appearance(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))

    return run


def galerkin(rounds: int, picture: Path | None) -> None:
    """All sizes alternate, so that load on the machine does not affect only one of them."""
    block = GalerkinBlock(128, 8, 512).eval()
    softmax = softmax_block(block)
    counts = [height * width for height, width in TOKENS]
    tokens = [torch.randn(2, count, 128) for count in counts]
    repeats = [max(1, 20_000 // count) for count in counts]

    def linear(index: int) -> None:
        for _ in range(repeats[index]):
            block(tokens[index], *TOKENS[index])

    small = [index for index, count in enumerate(counts) if count <= 15_000]
    taken = best(3 * rounds, *(partial(linear, index) for index in range(len(counts))))
    compared = best(1, *(partial(softmax, tokens[index]) for index in small))
    curve = [(n, 1e6 * s / k / n) for n, s, k in zip(counts, taken, repeats, strict=True)]
    other = [(counts[index], 1e6 * s / counts[index]) for index, s in zip(small, compared, strict=True)]
    for name, points in (("block", curve), ("softmax attention only", other)):
        print(f"galerkin: us a token, {name}: " + ", ".join(f"{count}: {value:.1f}" for count, value in points))
    values = [value for _, value in curve]
    print(f"galerkin: time per token varies by {max(values) / min(values) - 1:.0%}")
    if picture:
        curves = {"softmax attention only": other, "Galerkin block": curve}
        title = "Two frames, time per token"
        plot(picture, title, ("tokens per frame", "microseconds per token"), curves, log="xy")


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["clip", "times", "query", "galerkin"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    measures = {"clip": clip, "times": times, "query": query, "galerkin": partial(galerkin, picture=arguments.plot)}
    unknown = [part for part in arguments.parts if part not in measures]
    if unknown:
        raise InputError(f"there is no part '{unknown[0]}': expected some of {', '.join(measures)}")
    if arguments.plot:
        needed()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    dcn.ensure_built()
    with torch.inference_mode():
        for part in arguments.parts:
            measures[part](arguments.rounds)


if __name__ == "__main__":
    cli.run(main)
