"""Upscale videos, frame folders and TIFF stacks: python upscale.py IN OUT [--weight FILE]."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cli

EXAMPLE = """example:
  python upscale.py clip.mp4 large.mp4                        four times as large, with the small released weights
  python upscale.py clip.mp4 large.mp4 --fps x2               and twice as many frames per second
  python upscale.py frames/ large/ --weight runs/mtdo_s/weights.safetensors --compare
  python upscale.py scene.tif large.tif --limits 0,2047       11-bit data stay 11-bit, and georeferenced
  torchrun --nproc_per_node 2 upscale.py clips/ large/        many clips, or one long one, by several processes"""


def arguments() -> argparse.ArgumentParser:
    """All options. Defaults are those of `engine.upscale.Request`."""
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
        type=_positive,
        help="how many times as large (default: that of MTDO weights, else 4). Without --weight 2 and 4 by MTDO, "
        "other scales and all with --fps or --times by STNO",
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
    add(
        "--limits",
        type=_two,
        metavar="LOW,HIGH",
        help="stored values that become black and white, such as 0,2047 or -100,3000",
    )
    add(
        "--percentiles",
        type=_two,
        metavar="LOW,HIGH",
        help="or these percentiles of the clip; results are in the units of the source",
    )
    add(
        "--padding",
        choices=["reflect", "replicate", "circular", "distinct"],
        help="neighbours beyond the ends of the clip (MTDO)",
    )
    add(
        "--spacing",
        type=cli.spacing,
        metavar="N",
        help="frames from one of MTDO's windows to the next, or auto: by what moves (default: as the weights say)",
    )
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


def _numbers(text: str, kind: Callable[[str], Any], expected: str) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}': expected {expected}") from None


def _times(text: str) -> tuple[float, ...]:
    return _numbers(text, float, "rising numbers between 0 and 1, such as 0.25,0.5,0.75")


def _bands(text: str) -> tuple[int, ...]:
    return _numbers(text, int, "one band or three, from 1, such as 5,3,2")


def _two(text: str) -> tuple[float, float]:
    expected = "two numbers LOW,HIGH, such as 0,2047"
    numbers = _numbers(text, float, expected)
    if len(numbers) != 2:
        raise argparse.ArgumentTypeError(f"'{text}': expected {expected}")
    return numbers[0], numbers[1]


def _one(text: str, kind: Callable[[str], Any], fits: Callable[[Any], bool], expected: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"'{text}': expected {expected}")
    return value


def _positive(text: str) -> float:
    return _one(text, float, lambda value: 0 < value < float("inf"), "a number above 0")


def _count(text: str) -> int:
    return _one(text, int, lambda value: value >= 0, "a whole number from 0 on")


def _tile(text: str) -> int:
    return _one(text, int, lambda value: value >= 64, "a whole number: a tile needs at least 64 LR pixels a side")


def parse(words: Sequence[str]) -> dict[str, Any]:
    """The options given, by name. A pair that begins with a minus (`--limits -100,3000`) would be taken for an option
    of its own, so it is joined to the word before it."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in ("--limits", "--percentiles") and re.match(r"-[\d.]", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return vars(arguments().parse_args(joined))


def main() -> None:
    options = parse(sys.argv[1:])

    from engine.upscale import Request, upscale  # torch is imported after the arguments are known to be right

    for path in upscale(Request(**options)):
        print(path)


if __name__ == "__main__":
    cli.run(main)
