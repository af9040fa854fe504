"""A small MTDO and inputs for its tests."""

from __future__ import annotations

import torch
from torch import nn

import models
from models.mtdo.network import MTDO

HAT = {"embed": 24, "depths": [2], "heads": 2, "window": 4, "squeeze": 4}
SMALL = {"name": "mtdo", "channels": 8, "deformable_groups": 2, "feature_blocks": 1, "correction_blocks": 1, "hat": HAT}


def small(seed: int = 0, **changes) -> MTDO:
    """A small network whose zero-initialised layers (offsets; the last layer with `residual: bicubic`) are random.

    With zeros, the layers before them would get no gradient in the first step.
    """
    torch.manual_seed(seed)
    network = models.build({**SMALL, **changes})
    nn.init.normal_(network.msd.dcn.conv_offset_mask.weight, std=0.05)
    nn.init.kaiming_normal_(network.reconstruction.conv_last.weight)
    if network.config.wide:
        nn.init.kaiming_normal_(network.reconstruction.wide_enter.weight)
        nn.init.kaiming_normal_(network.reconstruction.wide_leave.weight)
    return network.eval()


def clip(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal within 1e-5 of the largest value: with the paper's initialisation outputs reach 10 and more."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * max(1, expected.abs().max().item()))
