"""What a run leaves behind while it goes: TensorBoard, a line per logged step, the progress bar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from data.files import replacing


class Logger:
    """Losses, learning rate, PSNR/SSIM and pictures of one run. With `active=False` (other ranks) every call does nothing."""

    def __init__(self, folder: Path, *, start: int, total: int, active: bool = True) -> None:
        self.active = active
        if not active:
            return
        self.lines = folder / "log.jsonl"
        _cut_log(self.lines, start)
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=start)
        self.bar = tqdm(total=total, initial=start, unit="step", desc=folder.name, dynamic_ncols=True, mininterval=0.5)

    def advance(self, **shown: str) -> None:
        if self.active:
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if not self.active:
            return
        for name, value in values.items():
            self.board.add_scalar(name, value, step)
        with self.lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def picture(self, step: int, name: str, bicubic: Tensor, ours: Tensor, gt: Tensor) -> None:
        """bicubic | ours | ground truth beside each other, each (3, H, W) in [0, 1]."""
        if self.active:
            self.board.add_image(name, torch.cat([bicubic, ours, gt], dim=-1).clamp(0, 1), step)

    def say(self, text: str) -> None:
        if self.active:
            self.bar.write(text)

    def flush(self) -> None:
        if self.active:
            self.board.flush()

    def close(self) -> None:
        if self.active:
            self.bar.close()
            self.board.close()


def _cut_log(path: Path, start: int) -> None:
    """Drop lines after step `start`: a resumed run writes them again."""
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step(line) <= start]
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _step(line: str) -> Any:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):  # a line cut off by a kill
        return float("inf")
