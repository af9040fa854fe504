"""Space-time super-resolution of Vid4-like folders, x4 in space and x2 in time: python test_vid4.py --datapath Vid4."""

from __future__ import annotations

import cli
from engine.evaluate.options import evaluation_parser

EXAMPLE = """  python test_vid4.py --datapath Vid4 --outputpath runs/vid4 --weight checkpoints/stno_s.safetensors"""


def main() -> None:
    arguments = evaluation_parser(
        "Test STNO weights, x4 in space and x2 in time. The restored frames are always written.",
        EXAMPLE,
        "runs/vid4",
        always_saves=True,
    )
    arguments.add_argument("--scale", type=float, default=4.0, help="magnification in space (default: 4)")
    options = cli.parse(arguments)

    from engine.evaluate import scripts  # importing torch is slow: only for valid arguments

    defaults = [f"eval.scale={options.scale}", "eval.stride=2", "eval.temporal=true"]
    cli.keep_working_without_output()
    scripts.evaluate_and_report(options, space_time=True, defaults=defaults)


if __name__ == "__main__":
    cli.run(main)
