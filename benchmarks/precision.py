"""PSNR loss in half precision: python benchmarks/precision.py [CLIP ...] [--weights FILE ...] [--frames 4].

The middle of each clip (a video or folder of frames; default: a sample video) is reduced by bicubic interpolation, restored in
fp32 and in every other precision, and compared with the truth: PSNR of Y, and the difference from fp32.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor

import cli
import dcn
import metrics
from data.clips import ArrayClip, Clip, FolderClip, VideoClip
from data.degrade import imresize
from data.media import to_uint8
from data.samples import natural
from engine.checkpoint import load_network
from engine.released import released
from engine.restore import Options, restore
from models.base import Network


def truth_and_small(path: Path, side: int, count: int, scale: int) -> tuple[Tensor, Clip]:
    """The middle of `count` frames in [0, 1], (n, 3, H, W), at most `side` pixels a side, and the same reduced by `scale`."""
    clip: Clip = FolderClip(path) if path.is_dir() else VideoClip(path)
    height, width = (min(side, length) // scale * scale for length in clip.size)
    top, left = (clip.size[0] - height) // 2, (clip.size[1] - width) // 2
    frames = [clip.frame(k)[:, top : top + height, left : left + width] for k in range(min(count, len(clip)))]
    truth = torch.stack(frames)
    small = imresize(truth, scale=1 / scale).clamp(0, 1)
    return truth, ArrayClip(clip.name, to_uint8(small))


def psnr(network: Network, truth: Tensor, small: Clip, precision: str) -> float:
    """Mean over the frames (of STNO the key frames)."""
    frames = torch.stack(list(restore(network, small, times=(), size=truth.shape[-2:], options=Options(precision))))
    return metrics.psnr(frames.clamp(0, 1), truth, crop=4, channel="y").mean().item()


def main() -> None:
    parser = cli.Parser(description="Measure the loss of half precision.")
    parser.add_argument("clips", type=Path, nargs="*", default=sorted(natural("test").glob("*.mp4")), metavar="CLIP")
    parser.add_argument("--weights", type=cli.weights, nargs="+", default=[released("mtdo"), released("stno")])
    parser.add_argument("--precisions", nargs="+", default=["bf16"], choices=["bf16", "fp16"])
    parser.add_argument("--frames", type=int, default=4, help="frames of each clip (default 4)")
    parser.add_argument("--side", type=int, default=256, help="pixels a side of the truth (default 256)")
    options = parser.parse_args()
    dcn.ensure_built(log=lambda line: print(line, file=sys.stderr))
    print("| weights | clip | fp32, dB | precision | dB | loss, dB |\n|---|---|---|---|---|---|")
    for path in options.weights:
        network = load_network(path).eval()
        scale = network.output_size((1, 1))[0]
        for clip in options.clips:
            truth, small = truth_and_small(clip, options.side, options.frames, scale)
            best = psnr(network, truth, small, "fp32")
            name = clip.parent.name if clip.name == "GT" else clip.stem
            for precision in options.precisions:
                other = psnr(network, truth, small, precision)
                print(
                    f"| {path.stem} | {name} | {best:.3f} | {precision} | {other:.3f} | {best - other:.4f} |",
                    flush=True,
                )


if __name__ == "__main__":
    cli.run(main)
