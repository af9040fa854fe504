"""Loss terms of the training objectives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import models
from engine.train.objectives import build_objective, warping_loss
from errors import InputError
from models.flow import Flows
from tests.engine.conftest import space_time

SHIFT = (0.5, -0.3)  # from the intermediate frame to the second key frame, pixels


def pattern(dx: float, dy: float) -> Tensor:
    """A smooth picture shifted by (dx, dy): (1, 1, 3, 24, 32)."""
    ys, xs = torch.arange(24.0)[:, None], torch.arange(32.0)
    return (0.5 + 0.2 * torch.sin((xs - dx) / 2) + 0.2 * torch.cos((ys - dy) / 2.5)).expand(1, 1, 3, 24, 32)


def loss_of(dx: float, dy: float) -> float:
    """The loss for a clip that moves by twice `SHIFT` between key frames, with flows of twice (dx, dy)."""
    keys = torch.cat([pattern(-SHIFT[0], -SHIFT[1]), pattern(*SHIFT)], 1)
    to_second = torch.tensor([dx, dy], dtype=torch.float32).view(1, 1, 2, 1, 1).expand(1, 1, 2, 24, 32)
    flows = Flows(t_0=-to_second, one_0=-2 * to_second, t_1=to_second, zero_1=2 * to_second)
    return warping_loss(keys, pattern(0, 0), flows, 1e-3).item()


def test_patches_that_are_too_small_for_the_census_loss_are_refused(tmp_path: Path) -> None:
    config = space_time(tmp_path)
    build_objective(models.build(config.network), replace(config, data=replace(config.data, patch=7)))
    with pytest.raises(
        InputError, match=r"'data\.patch': loss\.lr_census compares squares of 7 pixels, got patches of 6"
    ):
        build_objective(models.build(config.network), replace(config, data=replace(config.data, patch=6)))


def test_warping_loss_is_least_at_the_true_flows() -> None:
    """At the true flow the loss is zero except for interpolation, borders and epsilon, which contributes 0.001."""
    true = loss_of(*SHIFT)
    assert true < 0.006
    for wrong in ((0.4, -0.3), (0.6, -0.3), (0.5, -0.4), (0.5, -0.2)):
        assert loss_of(*wrong) > 1.5 * true
    assert loss_of(0, 0) > 5 * true
    assert loss_of(-SHIFT[0], -SHIFT[1]) > 10 * true
