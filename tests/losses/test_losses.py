"""Losses against closed forms and slow reference implementations."""

from __future__ import annotations

import math

import pytest
import torch

import losses
from losses.census import SOFTNESS, TOLERANCE


def test_l1_and_charbonnier_closed_forms():
    pred, target = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.3)
    assert losses.l1(pred, target).item() == pytest.approx(0.3)
    assert losses.charbonnier(pred, target, eps=0.4).item() == pytest.approx(0.5)
    assert losses.charbonnier(pred, pred, eps=1e-3).item() == pytest.approx(1e-3)
    for loss in (losses.l1, losses.charbonnier):
        with pytest.raises(ValueError, match="shapes"):
            loss(pred, target[:1])


def plain_census(pred: torch.Tensor, target: torch.Tensor, radius: int) -> float:
    def gray(x, row, column):
        return (0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2])[row, column].item()

    def value(x, row, column, dy, dx):
        difference = gray(x, row + dy, column + dx) - gray(x, row, column)
        return difference / math.sqrt(difference**2 + SOFTNESS**2)

    around = range(-radius, radius + 1)
    terms = []
    for row in range(radius, pred.shape[1] - radius):
        for column in range(radius, pred.shape[2] - radius):
            for dy, dx in [(dy, dx) for dy in around for dx in around if dy or dx]:
                distance = (value(pred, row, column, dy, dx) - value(target, row, column, dy, dx)) ** 2
                terms.append(distance / (TOLERANCE + distance))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("radius", [1, 2])
def test_census_equals_plain_loops(radius):
    torch.manual_seed(0)
    pred, target = torch.rand(2, 3, 7, 8, dtype=torch.float64)
    actual = losses.census(pred[None], target[None], radius).item()
    assert actual == pytest.approx(plain_census(pred, target, radius), abs=1e-12)


def test_census_ignores_brightness_and_takes_clips():
    clip = torch.rand(2, 3, 3, 12, 12) * 0.5
    assert losses.census(clip, clip + 0.3).item() < 1e-4
    assert losses.census(clip, clip).item() == 0
    assert 0 < losses.census(clip, torch.rand_like(clip)).item() < 1
    with pytest.raises(ValueError, match="shapes"):
        losses.census(clip, clip[:1])


def test_flow_smoothness_closed_form():
    """A flow that grows by 1 px per column and 2 px per row, on a constant image and on one with steps in x."""
    flow = (torch.arange(5.0) + 2 * torch.arange(4.0)[:, None]).expand(1, 2, 4, 5)
    flat = torch.zeros(1, 3, 4, 5)
    assert losses.flow_smoothness(flow, flat).item() == pytest.approx(3.0)
    steps = (0.1 * torch.arange(5.0)).expand(1, 3, 4, 5)
    assert losses.flow_smoothness(flow, steps, edge=10).item() == pytest.approx(2 + math.exp(-1))
    with pytest.raises(ValueError, match="do not match"):
        losses.flow_smoothness(flow, flat[..., 1:])


def test_all_losses_have_gradients():
    pred = torch.rand(1, 2, 3, 9, 9, requires_grad=True)
    target = torch.rand(1, 2, 3, 9, 9)
    for loss in (losses.l1, losses.charbonnier, losses.census):
        (gradient,) = torch.autograd.grad(loss(pred, target), pred)
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0
