"""Contribution of neighbouring frames: python experiments/neighbours.py --weight FILE --datapath CLIPS [key.sub=value ...].

A three-frame MTDO restores the middle frame of each clip with its true neighbours, and with neighbours changed in one
respect at a time; gain over bicubic in dB, Y, protocol `standard`. If "the frame itself" gains more than the true neighbours,
the network mistakes something in them for motion. If a share of the difference from bicubic gains more than all of it, the
network adds too much detail. `--weight`, `--datapath` and overrides as for eval.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor

import cli
import metrics
from data.degrade import imresize
from data.media import LUMA
from engine.evaluate import scripts
from engine.evaluate.options import evaluation_parser
from engine.report.tables import number
from engine.sources import open_source
from errors import InputError

EXAMPLE = """  python main.py name=three network.frames=3
  python experiments/neighbours.py --weight runs/three/weights.safetensors --datapath CLIPS"""


def luma(difference: Tensor) -> Tensor:
    """(3, h, w) -> its luma in all three channels."""
    return torch.einsum("c,chw->hw", torch.tensor(LUMA), difference).expand(3, -1, -1)


def versions(noise: Tensor) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Each: (centre, neighbour), LR frames (3, h, w) -> the neighbour to take."""
    return {
        "true neighbours": lambda centre, other: other,
        "the frame itself": lambda centre, other: centre,
        "the frame itself with white noise of 1 grey level": lambda centre, other: centre + noise / 255,
        "the frame itself with white noise of 4": lambda centre, other: centre + 4 * noise / 255,
        "true neighbours with the frame's colours": lambda centre, other: centre + luma(other - centre),
        "the frame itself with its neighbours' colours": lambda centre, other: other - luma(other - centre),
    }


@torch.no_grad()
def main() -> None:
    arguments = evaluation_parser("Measure the contribution of neighbouring frames.", EXAMPLE, None)
    network, config, _ = scripts.prepare(cli.parse(arguments), space_time=False)
    if network.config.frames != 3:
        raise InputError(
            f"these weights take {network.config.frames} frames: this experiment needs three (network.frames=3 in training)"
        )
    network.eval()
    for pair in open_source(config, "val").pairs:
        if len(pair.gt) < 3:
            raise InputError(f"{pair.name} has {len(pair.gt)} frames: this experiment needs three")
        middle = len(pair.gt) // 2
        before, centre, after = (pair.lr.frame(middle + step) for step in (-1, 0, 1))
        truth = pair.gt.frame(middle)
        noise = torch.randn(centre.shape, generator=torch.Generator().manual_seed(0))

        def psnr(frame: Tensor, truth: Tensor = truth) -> float:
            return metrics.psnr(frame.clamp(0, 1), truth, "standard", network.config.scale).item()

        enlarged = imresize(centre, size=truth.shape[-2:])
        bicubic = psnr(enlarged)
        print(f"{pair.name}, frame {middle}: bicubic {bicubic:.2f} dB\n| neighbours | gain, dB |\n|---|---|")
        for name, change in versions(noise).items():
            window = torch.stack([change(centre, before), centre, change(centre, after)])
            restored = network(window[None])[0]
            print(f"| {name} | {number(psnr(restored) - bicubic, '+.2f')} |", flush=True)
            for share in (0.6, 0.8) if name == "true neighbours" else ():
                gain = number(psnr(enlarged + share * (restored - enlarged)) - bicubic, "+.2f")
                print(f"| {name}, {share} of the difference from bicubic | {gain} |", flush=True)


if __name__ == "__main__":
    cli.run(main)
