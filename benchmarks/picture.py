"""The README's comparison picture: python benchmarks/picture.py OUT.png [CLIP] [--frame 12] [--box LEFT TOP WIDTH HEIGHT].

A frame of a film or folder is shrunk by 4 and restored with the small released MTDO: bicubic | MTDO | the frame itself.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

import cli
from data.clips import DegradedClip
from data.degrade import Degradation, imresize
from data.layouts import open_layout
from data.media import to_uint8, write_image
from data.samples import natural
from engine.checkpoint import load_network, released
from engine.restore import restore


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a comparison picture.")
    parser.add_argument("out", type=Path)
    parser.add_argument("clip", nargs="?", default=str(next(natural("test").glob("*.mp4"))))
    parser.add_argument("--frame", type=int, default=12)
    parser.add_argument("--box", type=int, nargs=4, default=[190, 20, 300, 220])
    options = parser.parse_args()
    truth = open_layout(options.clip)[0].gt
    low = DegradedClip(truth, Degradation(), 4)
    ours = next(iter(restore(load_network(released("mtdo")).eval(), low, frames=[options.frame])))
    frames = [imresize(low.frame(options.frame), size=truth.size), ours, truth.frame(options.frame)]
    left, top, width, height = options.box
    parts = [to_uint8(frame.clamp(0, 1))[top : top + height, left : left + width] for frame in frames]
    write_image(options.out, np.concatenate(parts, axis=1))


if __name__ == "__main__":
    cli.run(main)
