"""Compare tiles with full frames: python benchmarks/tiles.py [--weights FILE ...] [--tiles 64 96] [--size 160x96].

Restores a few frames of a sample video (bicubic LR of its middle) in full and in tiles. Writes tiles.md and, for every case, the
difference as a picture: grey for zero, `--amplify` levels for one level of 255.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from torch import Tensor

import cli
import dcn
from data.clips import ArrayClip, Clip, SubClip, VideoClip
from data.degrade import imresize
from data.media import to_uint8, write_image
from data.samples import natural
from engine.checkpoint import load_network
from engine.released import released
from engine.restore import Options, restore, tiles
from models.base import Network

HEADER = "| network | tile | tiles | largest difference | mean | PSNR to the full frame |\n|---|---|---|---|---|---|\n"


def sample(size: tuple[int, int], frames: int, video: Path) -> Clip:
    """`frames` frames of (h, w): the video at half size, cropped to its middle."""
    clip = VideoClip(video)
    pictures = []
    for index in range(frames):
        small = imresize(clip.frame(index), scale=0.5).clamp(0, 1)
        top, left = (small.shape[1] - size[0]) // 2, (small.shape[2] - size[1]) // 2
        if min(top, left) < 0:
            raise SystemExit(f"--size: the video has {small.shape[2]}x{small.shape[1]} LR pixels at most")
        pictures.append(to_uint8(small[:, top : top + size[0], left : left + size[1]]))
    return ArrayClip(video.stem, np.stack(pictures))


def restored(network: Network, clip: Clip, tile: int | None) -> Tensor:
    """Frames (n, 3, H, W) of the middle of the clip."""
    if not network.space_time:
        return torch.stack(list(restore(network, clip, frames=[len(clip) // 2], options=Options(tile=tile))))
    return torch.stack(list(restore(network, SubClip(clip, range(3)), options=Options(tile=tile))))


def compare(network: Network, clip: Clip, sides: list[int], amplify: float, out: Path, name: str) -> list[str]:
    """Return a table row and write a picture for every tile size."""
    full, lines = restored(network, clip, None), []
    size = network.output_size(clip.size)
    for side in sides:
        difference = 255 * (restored(network, clip, side) - full)
        count = len(tiles.plan(clip.size, size, side, network.multiple))
        decibels = 20 * np.log10(255) - 10 * np.log10(difference.double().square().mean().item() or 1e-20)
        lines.append(
            f"| {name} | {side} | {count} | {difference.abs().max():.2f} | {difference.abs().mean():.4f} | {decibels:.1f} dB |"
        )
        middle = difference[len(difference) // 2] * amplify
        write_image(out / f"{name}_{side}.png", to_uint8((0.5 + middle / 255).clamp(0, 1)))
    return lines


def main() -> None:
    parser = cli.Parser(description="Compare tiles with full frames.")
    parser.add_argument("--weights", type=cli.weights, nargs="+", default=[released("mtdo"), released("stno")])
    parser.add_argument(
        "--video", type=Path, default=next(natural("test").glob("*.mp4")), help="default: a sample video"
    )
    parser.add_argument("--size", default="160x96", help="LR width x height (default 160x96)")
    parser.add_argument("--tiles", type=int, nargs="+", default=[64, 96], help="LR pixels a side (default 64 96)")
    parser.add_argument("--amplify", type=float, default=64.0, help="amplification in the pictures (default 64)")
    parser.add_argument("--out", type=Path, default=Path("runs/tiles"))
    options = parser.parse_args()
    dcn.ensure_built(log=lambda line: print(line, file=sys.stderr))
    width, height = map(int, options.size.split("x"))
    clip = sample((height, width), 5, options.video)
    lines = []
    for path in options.weights:
        lines += compare(load_network(path).eval(), clip, options.tiles, options.amplify, options.out, path.stem)
    table = HEADER + "".join(f"{line}\n" for line in lines)
    (options.out / "tiles.md").write_text(table, encoding="utf-8")
    print(table, end="")


if __name__ == "__main__":
    cli.run(main)
