"""A clip in, a clip out: the one way a network meets a clip, for evaluation, validation and upscale.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

import models
from data.clips import Clip
from data.datasets import neighbours


def restore(
    network: nn.Module,
    clip: Clip,
    *,
    device: torch.device | str | None = None,
    padding: str = "reflect",
    frames: Sequence[int] | None = None,
    times: Sequence[float] = (0.5,),
    size: tuple[int, int] | None = None,
) -> Iterator[Tensor]:
    """Yield restored frames (3, H, W), float32 on the CPU, in time order.

    MTDO: one per frame of `clip` (or of `frames`), neighbours beyond the ends as `padding` says. STNO: the key frames and, between
    each two, one per entry of `times`, at `size` = (H, W).
    """
    raise NotImplementedError
