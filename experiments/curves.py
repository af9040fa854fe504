"""Training curves: python experiments/curves.py PICTURE LOG.jsonl ... [--value loss/charbonnier] [--smooth 9].

Draws a value of runs' logs over the steps, as a running median of `--smooth` entries, with the runs one after the other (parts of
one training). Use `--value val/gain_psnr_y` for parts with different losses. Logs of the released weights: experiments/logs.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import cli
from benchmarks.figure import plot
from errors import InputError


def curve(log: Path, value: str, smooth: int) -> tuple[list[tuple[float, float]], int]:
    """Steps and values, smoothed, and the log's last step."""
    try:
        entries = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"'{log}' is no log of a run ({error}): name its log.jsonl") from None
    found = [(entry["step"], entry[value]) for entry in entries if value in entry]
    if not found:
        raise InputError(
            f"'{log}' has no '{value}': it has {', '.join(sorted({key for e in entries for key in e})) or 'nothing'}"
        )
    half = smooth // 2
    points = [
        (step, statistics.median(y for _, y in found[max(0, index - half) : index + half + 1]))
        for index, (step, _) in enumerate(found)
    ]
    return points, entries[-1]["step"]


def main() -> None:
    parser = cli.Parser(description="Draw training curves.")
    parser.add_argument("picture", type=Path, help="PNG to write")
    parser.add_argument("logs", type=Path, nargs="+", help="log.jsonl of each part, in order")
    parser.add_argument("--value", default="loss/charbonnier", help="key of the logs' lines")
    parser.add_argument("--smooth", type=int, default=9, help="entries of the running median")
    options = parser.parse_args()
    if options.smooth < 1:
        raise InputError(f"--smooth {options.smooth}: expected 1 or more")
    if options.picture.suffix.lower() != ".png":
        raise InputError(f"'{options.picture}': expected the PNG to write, before the logs")
    lines, start = {}, 0
    for log in options.logs:
        points, length = curve(log, options.value, options.smooth)
        lines[log.stem] = [(start + step, value) for step, value in points]
        start += length
    few = all(len(points) < 20 for points in lines.values())
    plot(options.picture, "Training", ("steps", options.value), lines, marker="o" if few else "")


if __name__ == "__main__":
    cli.run(main)
