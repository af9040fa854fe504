"""Data shared by the forward pass of a window and streaming."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class WindowFeatures(NamedTuple):
    """The input of `MTDO.reconstruct`: a window's features (padded sides h, w)."""

    centre: Tensor  # (B, 3, h, w)
    aligned: Tensor  # (B, N, C, h, w): features A_k of every frame, aligned to the centre's
    adjacent: Tensor | None  # (B, N-1, C, h/2, w/2): encoded differences I_k - I_{k+1}
    skipped: Tensor | None  # (B, (N-1)/2, C, h/2, w/2): encoded differences I_k - I_{k+2}, k even
