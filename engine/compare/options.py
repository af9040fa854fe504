"""The command-line options of a comparison. It imports no PyTorch, so that --help and wrong options are answered at once."""

from __future__ import annotations

import argparse

from errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a comparison."""
    add = parser.add_argument_group("comparison of methods").add_argument
    add(
        "--results",
        nargs="+",
        metavar="NAME=FOLDER",
        help="compare the frames of these methods, without running a network",
    )
    add(
        "--scale",
        type=float,
        help="with --results: magnification, for bicubic and the border (default: 4)",
    )
    add("--metrics", nargs="+", metavar="NAME", help="with --results: metrics to compute (docs/compare.md lists them)")
    add("--crop", action="append", metavar="CLIP/FRAME:x,y,w,h", help="with --results: draw a figure of this crop")
    add(
        "--figures",
        type=int,
        help="with --results: number of figures of crops where the methods differ most (default: 2)",
    )
    add("--ndvi", metavar="NIR,RED", help="with --results: change of NDVI; positions of the two bands, from 1")


def check_unused(options: argparse.Namespace) -> None:
    """Raises InputError for an option of comparisons without `--results`, where it would have no effect."""
    for name in ("scale", "metrics", "crop", "figures", "ndvi"):
        if getattr(options, name) is not None:
            note = " (weights have their own scale, such as mtdo_s_x2)" if name == "scale" else ""
            raise InputError(
                f"--{name} needs a comparison: name frames with --results NAME=FOLDER, or leave it out{note}"
            )
