"""Upscale videos, frame folders and TIFF stacks: python upscale.py IN OUT [--weight FILE]."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import cli
from errors import one_line
from settings import PADDINGS, TEMPORAL_FILTERS

EXAMPLE = """example:
  python upscale.py clip.mp4 large.mp4                        four times as large, with the small released weights
  python upscale.py clip.mp4 large.mp4 --fps x2               and twice as many frames per second
  python upscale.py frames/ large/ --weight runs/mtdo_s/weights.safetensors --compare
  python upscale.py scene.tif large.tif --limits 0,2047       11-bit data stay 11-bit, and georeferenced
  torchrun --nproc_per_node 2 upscale.py clips/ large/        many clips, or one long one, by several processes"""


def arguments() -> argparse.ArgumentParser:
    """All options. Defaults are those of `engine.upscale.Request`."""
    parser = cli.Parser(
        description="Upscale a video, a folder of frames, a TIFF stack, or a folder of these.",
        epilog=EXAMPLE,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add(
        "source", metavar="IN", type=cli.path, help="video file, TIFF stack, folder of frames or of clips, - for a pipe"
    )
    add(
        "out",
        metavar="OUT",
        type=cli.path,
        help="video file (.mp4 .mov .mkv .avi .webm), .tif stack, folder, - for a pipe",
    )

    _add_result(parser.add_argument_group("result").add_argument)
    _add_source(parser.add_argument_group("source").add_argument)
    _add_processing(parser.add_argument_group("processing").add_argument)
    _add_files(parser.add_argument_group("files").add_argument)
    return parser


def _add_result(add: Callable[..., Any]) -> None:
    add(
        "--weight",
        type=cli.weights,
        metavar="FILE",
        help="weights of MTDO or STNO: a file, or a released name such as mtdo_s_free (default: by scale and source)",
    )
    add(
        "--scale",
        type=_positive,
        help="magnification (default: that of the MTDO weights, else 4). Without --weight the released MTDO weights for x2, x3 and x4 "
        "are used and the result is resized to other scales; with --fps or --times STNO is used",
    )
    add(
        "--size",
        metavar="WxH",
        help="output size instead of --scale, such as 1920x1080; 1920x or x1080 keep the aspect ratio",
    )
    add("--fps", metavar="x2", help="STNO: frames per second as a multiple (x2) or any number (60)")
    add(
        "--times",
        type=_times,
        metavar="T,T",
        help="STNO: times of new frames between two frames, such as 0.25,0.5,0.75",
    )
    add(
        "--padding",
        choices=PADDINGS,
        help="neighbours beyond the ends of the clip (MTDO)",
    )
    add(
        "--spacing",
        type=cli.spacing,
        metavar="N",
        help="MTDO: distance between the frames of a window, or auto: chosen from the motion (default: stored in the weights)",
    )
    add(
        "--temporal-filter",
        choices=TEMPORAL_FILTERS,
        help="average restored frames along the motion, for clean or compressed sources (default: stored in the weights)",
    )
    add(
        "--key-weights",
        type=lambda text: tuple(cli.file_names(text)),
        metavar="FILE",
        help="STNO: weights of MTDO in the same folder, which restore the frames of the source, or none (default: stored in the "
        "weights)",
    )
    add(
        "--quality",
        choices=["auto", "clean", "compressed"],
        help="quality of the source: selects the released weights for clean or for compressed video (default: auto)",
    )
    add(
        "--ensemble",
        action="store_true",
        help="average over eight rotated and mirrored versions: slower, slightly better",
    )


def _add_source(add: Callable[..., Any]) -> None:
    add(
        "--input-fps",
        type=_rate,
        help="frames per second of a folder or a stack (default 25); for a video, changes its speed",
    )
    add("--from", dest="begin", type=_seconds, metavar="TIME", help="skip frames before this time: seconds or h:m:s")
    add("--to", dest="end", type=_seconds, metavar="TIME", help="skip frames from this time on")
    add("--no-scenes", dest="scenes", action="store_false", help="let windows and new frames reach across scene cuts")
    add("--no-deinterlace", dest="deinterlace", action="store_false", help="do not deinterlace")
    add(
        "--bands",
        type=_bands,
        metavar="R,G,B",
        help="images with more than three bands: the three bands to use as RGB, or one; the first band is 1",
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
        help="the same as percentiles of the clip; the result is in the units of the source",
    )


def _add_processing(add: Callable[..., Any]) -> None:
    add(
        "--precision", choices=["auto", "fp32", "bf16", "fp16"], help="auto (default): the fastest without visible loss"
    )
    add("--tile", type=_tile, metavar="N", help="side of the tiles in LR pixels, at least 64 (default: by memory)")
    add("--exact", action="store_true", help="process full frames, never tiles, even if memory is short")
    add("--context", type=_count, help="STNO: key frames read beyond the ends of a chunk (default 4)")
    add("--compile", action="store_true", help="use torch.compile: worthwhile for long clips on a GPU")
    add("--device", help="auto, cpu, cuda, mps, xpu")


def _add_files(add: Callable[..., Any]) -> None:
    add(
        "--image-format",
        choices=["png", "tif", "jpg", "webp", "bmp"],
        help="format of frames (default: png; tif for TIFF sources)",
    )
    add(
        "--codec",
        choices=["h264", "h265", "vp9", "ffv1"],
        help="codec of videos (default: h264, h265 for more than 8 bits, vp9 in .webm)",
    )
    add("--crf", type=_count, help="constant rate factor of videos: lower is better (default 16)")
    add("--bitrate", type=_bits, metavar="5M", help="bits per second of videos, instead of --crf")
    add("--pix-fmt", metavar="FORMAT", help="FFmpeg pixel format of videos, such as yuv444p or yuv420p10le")
    add(
        "-e",
        "--encoder-option",
        dest="encoder_options",
        type=_pair,
        action="append",
        metavar="KEY=VALUE",
        help="FFmpeg option of the encoder, such as -e preset=slow; may be repeated",
    )
    add("--lossless", action="store_true", help="encode videos without loss")
    add("--compare", action="store_true", help="also write OUT_compare.mp4: bicubic | ours")
    add(
        "--trust",
        action="store_true",
        help="also write OUT_trust/: maps of the uncertainty of the result and of its agreement with the input "
        "(adds eight times the processing time)",
    )
    add(
        "--preview",
        type=_preview,
        nargs="?",
        const=-1,
        metavar="FRAME|5s",
        help="write only OUT_preview.png of one frame (default: the middle one), or this many seconds as a video",
    )
    add("--pipe-format", choices=["y4m", "rgb24", "rgb48le"], help="format of a pipe (default: y4m)")
    add("--input-size", type=_size, metavar="WxH", help="size of raw frames from a pipe")
    add(
        "--stills",
        action="store_true",
        help="treat the images of a folder as separate photographs, not as frames of a video",
    )
    add("--resume", action="store_true", help="resume an interrupted upscaling")
    add("--overwrite", action="store_true", help="replace an existing output")


def _numbers(text: str, kind: Callable[[str], Any], expected: str) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}': expected {expected}") from None


def _times(text: str) -> tuple[float, ...]:
    return _numbers(text, float, "ascending numbers between 0 and 1, such as 0.25,0.5,0.75")


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
    except (ValueError, ArithmeticError):
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"'{text}': expected {expected}")
    return value


def _positive(text: str) -> float:
    return _one(text, float, lambda value: 0 < value < float("inf"), "a number above 0")


def _count(text: str) -> int:
    return _one(text, int, lambda value: value >= 0, "an integer from 0 on")


def _rate(text: str) -> float:
    """Parse a number or a ratio such as 24000/1001 or 23.976, which means the same."""
    return _one(
        text,
        lambda word: float(cli.frame_rate(word)),
        lambda value: value > 0,
        "a number above 0, such as 25 or 24000/1001",
    )


def _seconds(text: str) -> float:
    """Parse a time: `90`, `1:30` or `0:01:30.5`."""
    expected = "a time from 0 on, as seconds (90) or h:m:s (1:30)"

    def read(word: str) -> float:
        parts = [float(part) for part in word.split(":")]
        if len(parts) > 3 or min(parts) < 0:
            raise ValueError
        return sum(part * 60**place for place, part in enumerate(reversed(parts)))

    return _one(text, read, lambda value: 0 <= value < float("inf"), expected)


def _bits(text: str) -> int:
    units = {"k": 1_000, "M": 1_000_000}
    expected = "bits per second, such as 800k or 5M"
    return _one(
        text, lambda word: int(float(word.rstrip("kM")) * units.get(word[-1:], 1)), lambda value: value > 0, expected
    )


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not (key and sign):
        raise argparse.ArgumentTypeError(f"'{text}': expected KEY=VALUE, such as preset=slow")
    return key, value


def _size(text: str) -> str:
    return _one(
        text, str, lambda value: bool(re.fullmatch(r"[1-9]\d*[xX][1-9]\d*", value)), "WIDTHxHEIGHT, such as 640x360"
    )


def _preview(text: str) -> int | str:
    """Parse a frame number; seconds such as `5s` stay strings."""
    if re.fullmatch(r"\d+(\.\d+)?s", text) and float(text[:-1]) > 0:
        return text
    return _one(text, int, lambda value: value >= 0, "a frame number, or seconds such as 5s")


def _tile(text: str) -> int:
    return _one(text, int, lambda value: value >= 64, "an integer from 64 on (LR pixels)")


def parse(words: Sequence[str]) -> dict[str, Any]:
    """The given options by name. A pair that begins with a minus (`--limits -100,3000`) is joined to the argument before it,
    because argparse would read it as an option."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in ("--limits", "--percentiles") and re.match(r"-[\d.]", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    options = vars(arguments().parse_args(joined))
    if isinstance(options.get("preview"), str):
        options["preview_seconds"] = float(options.pop("preview")[:-1])
    if "encoder_options" in options:
        options["encoder_options"] = tuple(options["encoder_options"])
    return options


def main() -> None:
    options = parse(sys.argv[1:])

    from engine.upscale import Request, pipe, upscale  # importing torch is slow: only for valid arguments

    if pipe.is_pipe(options["out"]):
        pipe.take_stdout()
    cli.keep_working_without_output()
    for path in upscale(Request(**options)):
        print(one_line(str(path)))


if __name__ == "__main__":
    cli.run(main)
