"""Compare ways to reach a scale without weights for it: python experiments/scales.py --datapath CLIPS [--scales 2.5 3] [key.sub=value ...].

stno_s without key networks at the scale itself, mtdo_s (x4), mtdo_s_x3 and mtdo_s_x2 resized to it with antialiased bicubic, as
`upscale.py --size` does. Y PSNR in dB, protocol `standard`, of the first frames of every clip; low resolution is made from the ground
truth, cropped to complete LR pixels. Other options as for eval.py.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor

import cli
import metrics
from data.clips import Clip, DegradedClip, RegionClip
from data.degrade import Degradation, imresize
from engine.checkpoint import load_network
from engine.config import MAX_SCALE
from engine.evaluate import scripts
from engine.evaluate.options import evaluation_parser, move_overrides_, number
from engine.released import released
from engine.restore import restore
from engine.sources import open_source
from errors import InputError

EXAMPLE = "  python experiments/scales.py --datapath CLIPS --frames 5 --scales 2.5 3"
CPU = torch.device("cpu")
Way = Callable[[Clip, tuple[int, int], list[int]], Iterator[Tensor]]  # LR clip, size of the result, frame numbers


def bicubic(low: Clip, size: tuple[int, int], frames: list[int]) -> Iterator[Tensor]:
    return (imresize(low.frame(index), size=size) for index in frames)


def resized(scale: float) -> Way:
    """The MTDO weights of `scale`, then bicubic to the size."""
    network = load_network(released("mtdo", scale)).eval()

    def way(low: Clip, size: tuple[int, int], frames: list[int]) -> Iterator[Tensor]:
        return (imresize(frame, size=size) for frame in restore(network, low, device=CPU, frames=frames))

    return way


def direct() -> Way:
    network = load_network(released("stno"), key_networks=False).eval()
    return lambda low, size, frames: restore(network, low, device=CPU, frames=range(len(frames)), times=(), size=size)


def whole_pixels(clip: Clip, scale: float) -> tuple[Clip, Clip]:
    """The clip cropped so that `scale` divides both sides, and its low resolution."""
    step = next((n for n in range(1, 101) if math.isclose(n * scale, round(n * scale))), None)
    if step is None or min(clip.size) < step * scale:
        raise InputError(
            f"--scales {scale:g}: '{clip.name}' has no size that it divides: expected a number such as 2.5"
        )
    height, width = (int(side / (step * scale)) * round(step * scale) for side in clip.size)
    gt = RegionClip(clip, 0, 0, height, width)
    return gt, DegradedClip(gt, Degradation(), scale)


@torch.no_grad()
def main() -> None:
    arguments = evaluation_parser("Compare ways to reach a scale without weights for it.", EXAMPLE, None)
    arguments.add_argument("--scales", type=number, nargs="+", default=[2.5, 3.0])
    options = cli.parse(arguments)
    move_overrides_(options, "scales")
    _, config, _ = scripts.prepare(options, space_time=False)
    ways: dict[str, Way] = {
        "bicubic": bicubic,
        "stno_s": direct(),
        "mtdo_s, resized": resized(4),
        "mtdo_s_x3, resized": resized(3),
        "mtdo_s_x2, resized": resized(2),
    }
    print("| clip | scale | " + " | ".join(ways) + " |\n|---|---|" + "---|" * len(ways))
    for scale in options.scales:
        if not 1 < scale <= MAX_SCALE:
            raise InputError(f"--scales {scale:g}: expected numbers above 1, up to {MAX_SCALE:g}")
        for pair in open_source(config, "val").pairs:
            gt, low = whole_pixels(pair.gt, scale)
            frames = list(range(min(config.eval.frames or len(gt), len(gt))))
            cells = []
            for way in ways.values():
                shown = zip(frames, way(low, gt.size, frames), strict=True)
                values = [measured(frame, gt.frame(index), scale) for index, frame in shown]
                cells.append(f"{statistics.mean(values):.2f}")
            print(f"| {pair.name} | {scale:g} | " + " | ".join(cells) + " |", flush=True)


def measured(frame: Tensor, gt: Tensor, scale: float) -> float:
    return metrics.psnr(frame.clamp(0, 1), gt, "standard", math.ceil(scale)).item()


if __name__ == "__main__":
    cli.run(main)
