"""Space-time super-resolution at many scales and times, one table: python test_contin.py --datapath Vid4."""

from __future__ import annotations

import cli
from engine.evaluate.options import evaluation_parser, move_overrides_, number

EXAMPLE = """  python test_contin.py --datapath Vid4 --weight checkpoints/stno_s.safetensors
  python test_contin.py --datapath video.mp4 --scales 2 3.3 4 --times 2 4 --grid
  python test_contin.py --datapath GoPro/test --scales 4 --times 0.125 0.5 0.875"""
SCALES = [2.0, 2.4, 2.8, 3.2, 3.6, 4.0, 5.0, 6.0, 7.0, 8.0]
TIMES = [2.0, 4.0, 8.0]


def main() -> None:
    arguments = evaluation_parser("Test STNO weights over scales in space and in time.", EXAMPLE, "runs/contin")
    arguments.add_argument(
        "--scales",
        type=number,
        nargs="+",
        default=SCALES,
        help="magnifications in space, any real numbers from 1",
    )
    arguments.add_argument(
        "--times",
        type=number,
        nargs="+",
        default=TIMES,
        help="multiples of the frame rate (2 4 8), or intermediate times in (0, 1)",
    )
    arguments.add_argument(
        "--grid", action="store_true", help="also write a picture of PSNR over scale and time (grid.png)"
    )
    options = cli.parse(arguments)
    move_overrides_(options, "scales", "times")

    from engine.evaluate.sweep import sweep_and_report  # importing torch is slow: only for valid arguments

    cli.keep_working_without_output()
    sweep_and_report(options)


if __name__ == "__main__":
    cli.run(main)
