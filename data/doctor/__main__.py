"""`python -m data.doctor ROOT`: print the faults of a data set. Exit code 0: no fault; 1: faults; 2: wrong usage."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

import cli
from data.doctor import ClipReport, Diagnosis, examine
from data.doctor.findings import FAULT, NOTE, WARNING
from data.files import replacing
from errors import InputError, one_line

EXAMPLE = """examples:
  python -m data.doctor ../Jilin-189                     headers of all frames, a few frames of each clip decoded
  python -m data.doctor ../REDS/train --full --json report.json

Exit code: 0 no fault (warnings are possible), 1 faults, 2 wrong usage."""
ORDER = {FAULT: 0, WARNING: 1, NOTE: 2}
CLIPS_SHOWN = 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return cli.exit_code(lambda: run(arguments))


def run(arguments: Sequence[str] | None) -> int:
    parser = cli.Parser(
        description="Examine a data set: structure, frames, pairs of ground truth and low resolution.",
        epilog=EXAMPLE,
    )
    parser.add_argument("root", help="data set, clip or video")
    parser.add_argument("--kind", default="auto", help="layout, if detection fails (default: auto)")
    parser.add_argument("--scale", type=int, default=4, help="of the low resolution to look for (default: 4)")
    parser.add_argument("--full", action="store_true", help="decode every frame; finds scene cuts too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings to FILE")
    parser.add_argument("--notes", action="store_true", help="also print notes (checks that passed)")
    options = parser.parse_args(arguments)
    if options.json:
        check_own(options.json)
    diagnosis = examine(options.root, options.kind, scale=options.scale, full=options.full, progress=_bar)
    if options.json:
        with replacing(options.json) as temporary:
            temporary.write_text(json.dumps(diagnosis.plain(), indent=1), encoding="utf-8")
    print(text(diagnosis, options.notes))
    return 1 if diagnosis.count(FAULT) else 0


def check_own(path: Path) -> None:
    """Raises InputError if `path` exists and does not hold the findings of an earlier examination."""
    if not path.exists():
        return
    try:
        own = json.loads(path.read_text(encoding="utf-8")).keys() >= {"root", "findings", "clips"}
    except (OSError, ValueError, AttributeError):
        own = False
    if not own:
        raise InputError(f"--json '{path}' exists and was not written by this program: name another file")


def text(diagnosis: Diagnosis, notes: bool = False) -> str:
    """The report for the terminal."""
    frames = sum(clip.frames for clip in diagnosis.clips)
    size = f"{_counted(len(diagnosis.clips), 'clip')}, {_counted(frames, 'frame')}"
    head = f"{diagnosis.root}: layout {diagnosis.kind} ({diagnosis.reason}), {size}"
    lines = [head, "", *_table(diagnosis.clips)]
    shown = [finding for finding in diagnosis.findings if notes or finding.severity != NOTE]
    if shown:
        lines += ["", *(finding.line() for finding in sorted(shown, key=lambda finding: ORDER[finding.severity]))]
    depth = "every frame was decoded" if diagnosis.full else "a sample was decoded; --full decodes every frame"
    faults, warnings = (_counted(diagnosis.count(severity), severity) for severity in (FAULT, WARNING))
    lines += ["", f"{faults}, {warnings} ({depth})"]
    return "\n".join(map(one_line, lines))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _table(clips: list[ClipReport]) -> list[str]:
    """One row per clip; if there are many, clips with findings first."""
    worst = sorted(clips, key=lambda clip: min((ORDER[f.severity] for f in clip.findings), default=3))
    rows: list[tuple[str, ...]] = [("clip", "frames", "size", "bits", "fps", "low resolution", "faults", "warnings")]
    for clip in clips if len(clips) <= CLIPS_SHOWN else worst[:CLIPS_SHOWN]:
        low = "made from GT" if clip.lr_size is None else f"{clip.lr_frames} x {_size(clip.lr_size)}"
        counted = [str(sum(f.severity == severity for f in clip.findings)) for severity in (FAULT, WARNING)]
        fps = "" if clip.fps is None else f"{clip.fps:g}"
        rows.append(
            (one_line(clip.name), str(clip.frames), _size(clip.size), str(clip.bits or "?"), fps, low, *counted)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return lines + ([f"... {len(clips) - CLIPS_SHOWN} more clips"] if len(clips) > CLIPS_SHOWN else [])


def _size(size: tuple[int, int] | None) -> str:
    return "?" if size is None else f"{size[1]}x{size[0]}"


def _bar(reports: Iterable[ClipReport], total: int) -> Iterable[ClipReport]:
    return tqdm(reports, total=total, unit="clip", desc="examine", leave=False, dynamic_ncols=True)


if __name__ == "__main__":
    sys.exit(main())
