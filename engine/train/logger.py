"""Logs of a run: TensorBoard, one JSON line per logged step, and the progress bar."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from data.files import replacing

LABEL = 14  # pixels of the strip with names above pictures


class Logger:
    """Losses, learning rate, PSNR/SSIM and pictures of one run. With `active=False` (other ranks) all calls are no-ops."""

    def __init__(
        self, folder: Path, *, start: int, total: int, active: bool = True, bar: bool = True, validating: bool = False
    ) -> None:
        """start: step of the last record to keep.   validating: without its validation, which is logged next."""
        self.active, self.failed = active, False
        if not active:
            return
        self.lines = folder / "log.jsonl"
        _cut_log(self.lines, start, validating)
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)  # hides from this step on
        self.bar = tqdm(
            total=total,
            initial=start,
            unit="step",
            desc=folder.name,
            dynamic_ncols=True,
            mininterval=0.5,
            disable=not bar,
        )

    def advance(self, **shown: str) -> None:
        if self.active:
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one record: the values of a step."""

        def write() -> None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
            with self.lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")

        self._try(write)

    def picture(self, step: int, name: str, bicubic: Tensor, ours: Tensor, gt: Tensor) -> None:
        """Baseline, ours and ground truth in a row, each (3, H, W) in [0, 1], with their names above."""
        pictures = {"baseline": bicubic, "ours": ours, "ground truth": gt}
        self._try(lambda: self.board.add_image(name, labelled(pictures).clamp(0, 1), step))

    def say(self, text: str) -> None:
        if self.active:
            self.bar.write(text)

    def flush(self) -> None:
        self._try(lambda: self.board.flush())

    def close(self) -> None:
        if self.active:
            self.bar.close()
        self._try(lambda: self.board.close())

    def _try(self, write: Callable[[], None]) -> None:
        """Report an unwritable log (the disk is full) once, and continue training."""
        if not self.active:
            return
        try:
            write()
        except OSError as error:
            if not self.failed:
                self.say(
                    f"the log in {self.lines.parent} cannot be written ({error.strerror or error}): training continues"
                )
            self.failed = True


def labelled(pictures: Mapping[str, Tensor]) -> Tensor:
    """Pictures (3, H, W) in a row under a strip with their names: (3, LABEL + H, sum of widths)."""
    row = torch.cat([picture.cpu() for picture in pictures.values()], dim=-1)
    strip = Image.new("L", (row.shape[-1], LABEL), 255)
    left = 0
    for name, picture in pictures.items():
        ImageDraw.Draw(strip).text((left + 3, 1), name, fill=0)
        left += picture.shape[-1]
    label = torch.from_numpy(np.array(strip)).to(row.dtype).div(255).expand(3, -1, -1)
    return torch.cat([label, row], dim=-2)


def _cut_log(path: Path, start: int, validating: bool) -> None:
    """Drop records that a resumed run writes again: those after step `start`, and with `validating` the validation of this step.

    A file with other lines than records is copied first.
    """
    if not path.exists():
        return
    lines = path.read_bytes().splitlines()
    records = [_record(line) for line in lines]
    foreign = sum(record is None for record in records[:-1])  # a kill may have truncated the last line
    if foreign:
        copy = path.with_name("log-damaged.jsonl")
        print(
            f"{path}: {foreign} lines do not belong to this log: they are removed; a copy of the file is {copy.name}",
            flush=True,
        )
        with replacing(copy) as temporary:
            temporary.write_bytes(path.read_bytes())
    kept = [
        line
        for line, record in zip(lines, records, strict=True)
        if record is not None
        and record["step"] <= start
        and not (validating and record["step"] == start and any(key.startswith("val/") for key in record))
    ]
    with replacing(path) as temporary:
        temporary.write_bytes(b"".join(line + b"\n" for line in kept))


def _record(line: bytes) -> dict[str, Any] | None:
    """A record, which has a step; None for anything else."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None
