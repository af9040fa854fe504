"""Small networks and clips for tests of restoring and upscaling."""

from __future__ import annotations

import numpy as np
import torch

from data.clips import ArrayClip
from models.base import Spacing
from models.mtdo import MTDO, MTDOConfig
from models.stno import STNO, STNOConfig


def small_mtdo(spacing: Spacing = 1, padding: str = "reflect", **changes) -> MTDO:
    torch.manual_seed(0)
    sizes = {"channels": 8, "deformable_groups": 2, "feature_blocks": 1, "correction_blocks": 1, "residual": "bicubic"}
    sizes |= {"reconstruction": "residual", "reconstruction_blocks": 1, "scale": 2, "frames": 3}
    network = MTDO(MTDOConfig(**(sizes | changes))).eval()
    torch.nn.init.normal_(network.reconstruction.conv_last.weight, std=0.005)  # initially zero (pure bicubic)
    torch.nn.init.normal_(network.msd.dcn.conv_offset_mask.weight, std=0.02)
    network.spacing, network.padding = spacing, padding
    return network


def near_bicubic_mtdo() -> MTDO:
    """A network close to bicubic interpolation, like a trained one; `small_mtdo` adds an offset to each colour."""
    network = small_mtdo()
    with torch.no_grad():
        network.reconstruction.conv_last.weight.mul_(0.1)
    return network


SMALL_STNO = {
    "name": "stno", "channels": 8, "blocks": 1, "embedding": 16, "heads": 2, "hidden": 16, "query_width": 16,
    "pyramid": [8, 12, 16], "head_widths": [24, 24, 24], "side_channels": 4, "frame_features": 5, "residual": "bicubic",
}  # fmt: skip


def small_stno(**changes) -> STNO:
    torch.manual_seed(0)
    return STNO(STNOConfig(**(SMALL_STNO | changes))).eval()


def moving_clip(frames: int, height: int, width: int, name: str = "clip") -> ArrayClip:
    """A clip of a smooth moving pattern: `frames` RGB frames of uint8 (height, width), 25 fps."""
    y, x = np.mgrid[:height, :width]
    pictures = [
        np.stack(
            [127 + 100 * np.sin(x / 5 + t / 3), 127 + 90 * np.cos(y / 4 - t / 4), 127 + 80 * np.sin((x + y) / 6)], -1
        )
        for t in range(frames)
    ]
    return ArrayClip(name, np.stack(pictures).astype(np.uint8), fps=25)
