"""Upscale videos, frame folders and TIFF stacks: python upscale.py IN OUT [--weight FILE]."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine import cli

EXAMPLE = """example:
  python upscale.py clip.mp4 large.mp4                        four times as large, with the small released weights
  python upscale.py clip.mp4 large.mp4 --fps x2               and twice as many frames per second
  python upscale.py frames/ large/ --weight runs/mtdo_s/weights.safetensors --compare
  python upscale.py scene.tif large.tif --limits 0,2047       11-bit data stay 11-bit, and georeferenced
  torchrun --nproc_per_node 2 upscale.py clips/ large/        many clips, or one long one, by several processes"""


def arguments() -> argparse.ArgumentParser:
    """All options. Defaults are those of `engine.request.Request`."""
    parser = argparse.ArgumentParser(
        description="Upscale a video, a folder of frames, a TIFF stack, or a folder of these.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("source", metavar="IN", type=Path, help="video file, TIFF stack, folder of frames, or folder of clips")
    add("out", metavar="OUT", type=Path, help="video file (.mp4 .mov .mkv .avi .webm), .tif stack, or folder")

    _add_what(parser.add_argument_group("what is made").add_argument)
    _add_how(parser.add_argument_group("how it is made").add_argument)
    _add_files(parser.add_argument_group("files").add_argument)
    return parser


def _add_what(add: Callable[..., Any]) -> None:
    add("--weight", type=Path, help="weights of MTDO or STNO (default: the small released ones)")
    add(
        "--scale",
        type=float,
        help="how many times as large (default 4; without --weight any: 2 and 4 by MTDO, others by STNO)",
    )
    add("--fps", metavar="x2", help="STNO: frames per second as a multiple (x2) or a number")
    add("--times", type=_times, metavar="T,T", help="STNO: times of new frames between two, such as 0.25,0.5,0.75")
    add("--input-fps", type=_positive, help="frames per second of a folder or a stack (default 25)")
    add(
        "--bands",
        type=_bands,
        metavar="R,G,B",
        help="images of many bands: the three to take as colours, or one, from 1",
    )
    add("--limits", type=_two, metavar="LOW,HIGH", help="stored values that become black and white, such as 0,2047")
    add(
        "--percentiles",
        type=_two,
        metavar="LOW,HIGH",
        help="or these percentiles of the clip; results are in the units of the source",
    )
    add("--padding", choices=["reflect", "replicate", "circular"], help="neighbours beyond the ends of the clip (MTDO)")
    add("--ensemble", action="store_true", help="mean over eight turned and mirrored versions: slower, slightly better")


def _add_how(add: Callable[..., Any]) -> None:
    add(
        "--precision", choices=["auto", "fp32", "bf16", "fp16"], help="auto (default): the fastest without visible loss"
    )
    add("--tile", type=_tile, metavar="N", help="LR pixels a side (default: as memory allows)")
    add("--exact", action="store_true", help="never tiles: whole frames, whatever memory they take")
    add("--context", type=_count, help="STNO: key frames that a chunk sees beyond its ends (default 4)")
    add("--compile", action="store_true", help="torch.compile: pays for long clips on a GPU")
    add("--device", help="auto, cpu, cuda")


def _add_files(add: Callable[..., Any]) -> None:
    add("--image-format", choices=["png", "tif", "jpg", "webp", "bmp"], help="of frames (default: png, tif for TIFF)")
    add("--codec", choices=["h264", "h265", "vp9", "ffv1"], help="of videos (default h264; vp9 in .webm)")
    add("--crf", type=_count, help="quality of videos, lower is better (default 16)")
    add("--lossless", action="store_true", help="videos without any loss")
    add("--compare", action="store_true", help="also write OUT_compare.mp4: bicubic | ours")
    add(
        "--preview",
        type=_count,
        nargs="?",
        const=-1,
        metavar="FRAME",
        help="only OUT_preview.png of one frame (the middle)",
    )
    add("--resume", action="store_true", help="go on with an interrupted upscaling")
    add("--overwrite", action="store_true", help="replace an output that exists")


def _times(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _bands(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _two(text: str) -> tuple[float, float]:
    low, high = (float(part) for part in text.split(","))
    return low, high


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def _tile(text: str) -> int:
    value = int(text)
    if value < 64:
        raise argparse.ArgumentTypeError(f"{value} is too small: a tile needs at least 64 LR pixels a side")
    return value


def main() -> None:
    options = vars(arguments().parse_args())

    from engine.request import Request  # torch is imported after the arguments are known to be right
    from engine.upscale import upscale

    for path in upscale(Request(**options)):
        print(path)


if __name__ == "__main__":
    cli.run(main)
