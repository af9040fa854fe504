"""The temporal filter's neighbours: python experiments/temporal_filter.py --datapath CLIPS [--weight FILE].

The frames of each clip are restored without the filter and then filtered: gain in dB, Y, protocol `standard`, over the unfiltered
frames, and flicker (tOF in pixels), with smaller largest steps, and with absolute weights, which do not depend on how well the other
neighbours match. Then the time of the filter for one frame of each clip, with its compiled operator and without, in turn in one
process. `--weight`, `--datapath` and overrides as for eval.py.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor

import cli
import dcn
import metrics
from engine.evaluate import scripts
from engine.evaluate.options import evaluation_parser
from engine.report.tables import number
from engine.restore import restore, temporal_filter
from engine.restore.filter_frames import STEPS
from engine.restore.temporal_filter import TemporalFilter
from engine.sources import open_source

EXAMPLE = "  python experiments/temporal_filter.py --datapath CLIPS 'data.val.region=[0.75,0,1,1]'"
CHOICES = ((1,), (2, 1), STEPS, (4, *STEPS))
ABSOLUTE = math.inf  # instead of temporal_filter.WORSE
ROUNDS = 5


def filtered(
    restored: Sequence[Tensor], lows: Sequence[Tensor], form: str, steps: Sequence[int], wanted: Sequence[int]
) -> list[Tensor]:
    """The frames `wanted` of `restored`, the frames of a clip."""
    method = TemporalFilter(form, len(restored), (lows[0].shape[1], lows[0].shape[2]), steps=steps)
    needed = method.needed(wanted)
    method.keep((number, lows[number]) for number in needed)
    return list(method(wanted, iter([restored[number] for number in needed])))


def seconds(restored: Sequence[Tensor], lows: Sequence[Tensor], form: str, backend: str) -> float:
    """Time of filtering the middle frame, its neighbours included."""
    dcn.set_backend(backend)
    started = time.perf_counter()
    filtered(restored, lows, form, STEPS, [len(restored) // 2])
    taken = time.perf_counter() - started
    dcn.set_backend(None)
    return taken


@torch.no_grad()
def main() -> None:
    arguments = evaluation_parser("Compare choices of the temporal filter's neighbours.", EXAMPLE, None)
    network, config, _ = scripts.prepare(cli.parse(arguments), space_time=False)
    form = "clean" if network.temporal_filter == "none" else network.temporal_filter
    print("| clip | largest step | gain, dB | tOF, px |\n|---|---|---|---|")
    for pair in open_source(config, "val").pairs:
        restored = list(restore(network, pair.lr, padding=config.data.padding, temporal_filter="none"))
        lows = [pair.lr.frame(index) for index in range(len(restored))]
        assert pair.gt is not None  # val sources have it
        truth = torch.stack([pair.gt.truth(index) for index in range(len(restored))])

        def measured(frames: Sequence[Tensor], truth: Tensor = truth) -> tuple[float, float]:
            clip = torch.stack(list(frames)).clamp(0, 1)
            psnr = metrics.psnr(clip, truth, "standard", network.config.scale).mean().item()
            return psnr, metrics.tof(clip, truth).mean().item()

        plain, flicker = measured(restored)
        print(f"| {pair.name}, {len(restored)} frames | none | | {flicker:.3f} |", flush=True)
        for steps in CHOICES:
            psnr, flicker = measured(filtered(restored, lows, form, steps, range(len(restored))))
            print(f"| | {steps[0]} | {number(psnr - plain, '+.3f')} | {flicker:.3f} |", flush=True)
        chosen, temporal_filter.WORSE = temporal_filter.WORSE, ABSOLUTE
        psnr, flicker = measured(filtered(restored, lows, form, STEPS, range(len(restored))))
        temporal_filter.WORSE = chosen
        print(f"| | {STEPS[0]}, absolute weights | {number(psnr - plain, '+.3f')} | {flicker:.3f} |", flush=True)
        rounds = [[seconds(restored, lows, form, backend) for backend in ("compiled", "plain")] for _ in range(ROUNDS)]
        fast, slow = (min(column) for column in zip(*rounds, strict=True))
        height, width = truth.shape[-2:]
        print(
            f"| | {width}x{height}: {fast:.3f} s a frame, {slow:.3f} in plain PyTorch: {slow / fast:.1f} times | | |",
            flush=True,
        )


if __name__ == "__main__":
    cli.run(main)
