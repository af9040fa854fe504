"""Effect of the spacing of MTDO's windows: python experiments/spacing.py --datapath CLIPS [--weight W] [key.sub=value ...].

Restores every clip with frames 1 to 9 apart and with `auto` (engine/restore/spacing.py): gain over bicubic in dB, Y, protocol
`standard`, and the mean gain inside the boxes of moving objects if there are any. Also prints the displacement between
neighbouring frames in LR pixels, as `auto` measures it (median over the clip), and seconds a frame of one run. Other options as for
eval.py.
"""

from __future__ import annotations

import statistics
import sys
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

import cli
from data.clips import Clip
from engine import distributed
from engine.evaluate import scripts
from engine.evaluate.measure import evaluate
from engine.evaluate.options import evaluation_parser
from engine.report.tables import number
from engine.restore.spacing import FrameLuma
from engine.sources import open_source
from errors import InputError

EXAMPLE = "  python experiments/spacing.py --datapath CLIPS --frames 10"
SPACINGS: tuple[int | str, ...] = (1, 3, 6, 9, "auto")


def pace(clip: Clip) -> float:
    """LR pixels from frame to frame."""
    views = [FrameLuma(clip.frame(index)) for index in range(len(clip))]
    return statistics.median(a.displacement(b) for a, b in pairwise(views))


@torch.no_grad()
def main() -> None:
    arguments = evaluation_parser("Measure the effect of the spacing of windows.", EXAMPLE, None)
    network, config, _ = scripts.prepare(cli.parse(arguments), space_time=False)
    device = distributed.choose_device(config.device)
    layout = open_source(config, "val")
    still = [pair.name for pair in layout.pairs if len(pair.lr) < 2]
    if still:
        raise InputError(f"clip '{still[0]}' has one frame: this experiment needs two or more")
    reports, seconds = [], []
    for spacing in SPACINGS:
        network.spacing = spacing
        report = evaluate(network, layout, config, device=device, progress=False)
        reports.append(report["clips"])
        seconds.append(report["network"]["seconds_per_frame"])
    print("| clip | pixels a frame | " + " | ".join(map(str, SPACINGS)) + " |\n|---|---|" + "---|" * len(SPACINGS))
    for pair in layout.pairs:
        clips = [report[pair.name] for report in reports]
        gains = " | ".join(number(clip["gain_psnr_y"], "+.2f") for clip in clips)
        print(f"| {pair.name} | {pace(pair.lr):.2f} | {gains} |")
        inside = [clip["objects"]["all"]["gain_psnr_y"] for clip in clips if "objects" in clip]
        if inside and None not in inside:
            print("| in boxes | | " + " | ".join(number(value, "+.2f") for value in inside) + " |")
    print("| seconds a frame | | " + " | ".join(f"{value:.3f}" for value in seconds) + " |")


if __name__ == "__main__":
    cli.run(main)
