"""Figures of benchmarks/peers.py: PSNR, flicker and seconds of each contender, their tables and the plot."""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import metrics
from benchmarks.contenders import SCALE
from benchmarks.figure import plot
from data.clips import Clip
from data.media import to_uint8, write_image
from engine.restore import Options


class Table:
    """PSNR, tOF and seconds of each contender, by clip, input and kind of frame; `half`: all in bfloat16."""

    def __init__(self, half: bool = False, folder: Path | None = None, flicker: bool = False) -> None:
        """folder: output of the frames, as FOLDER/CONTENDER/CLIP/FRAME.png, of the first input.   flicker: measure tOF too."""
        self.half, self.folder, self.flicker = half, folder, flicker
        self.input = "clean"  # of the frames that are measured now
        self.saving = True
        self.options = Options(precision="bf16" if half else "fp32")
        self.psnr: dict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.tof: dict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.meters: dict[tuple[str, str, str], metrics.TemporalMeter] = defaultdict(metrics.TemporalMeter)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.grouped: set[str] = set()  # contenders that compute frames in groups
        self.warmed: set[tuple[str, tuple[int, int]]] = set()  # and the frame sizes that they were set up for

    def measure(self, name: str, gt: Clip, kinds: Sequence[str], make: Callable[[int], Tensor]) -> None:
        """Compute frames 0 to len(kinds) - 1 one by one. kinds: "" or the kind of each frame."""
        for index, kind in enumerate(kinds):
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
                frame = make(index).float()
            self.seconds[name].append(time.perf_counter() - start)
            self.note(name, gt, index, kind, frame)

    def measure_together(
        self, name: str, gt: Clip, kinds: Sequence[str], make: Callable[[], Iterator[Tensor]], warm: bool = True
    ) -> None:
        """Time a run over a clip. warm: run once before, because the peers' medians exclude the setup of their first frames too."""
        if warm and (name, gt.size) not in self.warmed:
            for _ in make():
                pass
        self.grouped.add(name)
        self.warmed.add((name, gt.size))
        start = time.perf_counter()
        made = list(make())
        self.seconds[name] += [(time.perf_counter() - start) / len(made)] * len(made)
        for index, (kind, frame) in enumerate(zip(kinds, made, strict=True)):
            self.note(name, gt, index, kind, frame)

    def note(self, name: str, gt: Clip, index: int, kind: str, frame: Tensor) -> None:
        truth, frame = gt.frame(index), frame.clamp(0, 1)
        if self.folder and self.saving:
            write_image(self.folder / name / gt.name / f"{gt.frame_names[index]}.png", to_uint8(frame))
        self.psnr[gt.name, self.input, kind][name].append(metrics.psnr(frame, truth, "standard", SCALE).item())
        if self.flicker:
            gap = self.meters[gt.name, self.input, name].add(frame, truth)
            if gap:
                self.tof[gt.name, self.input, ""][name].append(gap["tof"])

    def typical(self) -> dict[str, float]:
        """Seconds a frame of each contender."""
        return {
            name: (statistics.mean if name in self.grouped else statistics.median)(values)
            for name, values in self.seconds.items()
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row for each clip, input and kind of frame: PSNR by contender, in dB."""
        return rows_of(self.psnr, 3)

    def flicker_rows(self) -> list[dict[str, Any]]:
        """One row for each clip and input: tOF by contender, in pixels."""
        return rows_of(self.tof, 4)

    def show(self) -> None:
        names = list(self.seconds)
        print("\n".join(markdown(self.rows(), names, "Y PSNR, dB", 2)))
        print("| seconds a frame | | | " + " | ".join(f"{value:.3f}" for value in self.typical().values()) + " |")
        if self.flicker:
            print("\n" + "\n".join(markdown(self.flicker_rows(), names, "tOF, pixels", 3)))


def rows_of(values: dict[tuple[str, str, str], dict[str, list[float]]], digits: int) -> list[dict[str, Any]]:
    return [
        {"clip": clip, "input": source, "kind": kind, "frames": len(next(iter(found.values())))}
        | {name: round(statistics.mean(numbers), digits) for name, numbers in found.items()}
        for (clip, source, kind), found in values.items()
    ]


def markdown(rows: list[dict[str, Any]], names: Sequence[str], title: str, digits: int) -> list[str]:
    """Lines of a table of `rows`, ordered by input, with the mean over clips of each input and kind where there are several."""
    lines = [f"| {title} | input | frames | " + " | ".join(names) + " |", "|---|---|---|" + "---|" * len(names)]

    def add(label: str, source: str, frames: int, values: dict[str, Any]) -> None:
        cells = " | ".join(f"{values[name]:.{digits}f}" if name in values else "" for name in names)
        lines.append(f"| {label} | {source} | {frames} | {cells} |")

    for source, kind in dict.fromkeys((row["input"], row["kind"]) for row in rows):
        group = [row for row in rows if (row["input"], row["kind"]) == (source, kind)]
        for row in group:
            add(f"{row['clip']} {kind}".strip(), source, row["frames"], row)
        if len(group) > 1:
            shared = [name for name in names if all(name in row for row in group)]
            means = {name: statistics.mean(row[name] for row in group) for name in shared}
            add(f"mean {kind}".strip(), source, sum(row["frames"] for row in group), means)
    return lines


def draw(picture: Path, files: list[Path]) -> None:
    """Gain over the first contender (mean of the first input's rows) over seconds; one line joins the precisions."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for file in files:
        found = json.loads(file.read_text("utf-8"))
        baseline = found["baseline"]
        rows = [row for row in found["rows"] if row["input"] == found["rows"][0]["input"]]
        for name in found["seconds"]:
            if name == baseline:
                continue
            gains = [row[name] - row[baseline] for row in rows]
            points[f"{name} ({found['what']})"].append((found["seconds"][name], statistics.mean(gains)))
    lines = {name: sorted(line) for name, line in points.items()}
    plot(picture, "Speed and quality", ("seconds a frame", "gain, dB"), lines, log="x")
