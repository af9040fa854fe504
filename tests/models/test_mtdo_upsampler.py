"""MTDO's folded upsampler against the upsampler followed by the last convolution."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from models.layers import Upsampler
from models.mtdo.upsampler import FoldedUpsampler


def folded_upsampler(channels: int, scale: int, dtype: torch.dtype = torch.float64) -> FoldedUpsampler:
    torch.manual_seed(scale)
    upsample, last = Upsampler(channels, scale), nn.Conv2d(channels, 3, 3, padding=1)
    return FoldedUpsampler(upsample.to(dtype), last.to(dtype), scale)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("size", [(8, 8), (9, 30), (33, 12)])
def test_equals_stepwise(scale: int, size: tuple[int, int]) -> None:
    layer = folded_upsampler(5, scale)
    x = torch.randn(2, 5, *size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer.folded(x), layer.stepwise(x), rtol=0, atol=1e-12)


def test_border_needs_its_own_strips() -> None:
    """Without the border strips the 5x5 convolution is wrong in the outermost low-resolution pixel only."""
    layer = folded_upsampler(5, 4)
    x = torch.randn(1, 5, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        weight, bias = layer.kernel()
        bare = nn.functional.pixel_shuffle(nn.functional.conv2d(x, weight, bias, padding=2), 4)
        wrong = (bare - layer.stepwise(x)).abs().amax((0, 1)) > 1e-9
    assert wrong[:3].any() and wrong[:, -3:].any() and not wrong[4:-4, 4:-4].any()


@pytest.mark.parametrize("mode", ["train", "gradients"])
def test_kernel_is_refolded_after_a_fused_optimizer(mode: str) -> None:
    """Such optimizers, the default on GPUs, do not raise the version of a weight."""
    layer = folded_upsampler(4, 2, torch.float32)
    x = torch.rand(1, 4, 40, 40)
    optimizer = torch.optim.Adam(layer.last.parameters(), lr=0.1, fused=True)
    layer.eval()
    with torch.no_grad():
        before = layer(x)
    if mode == "train":
        layer.train()
        layer.stepwise(x).sum().backward()  # compiled code does not pass `forward`
        layer.eval()
    else:
        layer(x).sum().backward()
    optimizer.step()
    with torch.no_grad():
        torch.testing.assert_close(layer(x), layer.stepwise(x), rtol=0, atol=1e-4)
        assert not torch.allclose(layer(x), before)


def test_kernel_is_refolded_when_weights_change() -> None:
    layer = folded_upsampler(4, 2)
    x = torch.randn(1, 4, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        before = layer(x)
        layer.last.weight.mul_(2)
        layer.upsample[0].bias.add_(1)
        torch.testing.assert_close(layer(x), layer.stepwise(x), rtol=0, atol=1e-12)
        assert (layer(x) - before).abs().max() > 0.1
        other = copy.deepcopy(layer)
        other.last.bias.add_(1)
        torch.testing.assert_close(other(x), layer(x) + 1, rtol=0, atol=1e-12)


def test_training_uses_stepwise() -> None:
    layer = folded_upsampler(4, 4)
    layer(torch.randn(1, 4, 64, 64, dtype=torch.float64)).sum().backward()
    assert layer.upsample[0].weight.grad is not None and layer._known is None


def test_bfloat16_error_is_no_larger_than_stepwise() -> None:
    exact = folded_upsampler(16, 4)
    half = copy.deepcopy(exact)
    half.upsample.bfloat16(), half.last.bfloat16()
    x = torch.randn(1, 16, 64, 64, dtype=torch.float64).bfloat16()
    with torch.no_grad():
        expected = exact(x.double())
        folded, steps = ((each.double() - expected).abs().mean() for each in (half(x), half.stepwise(x)))
    assert folded < 1.1 * steps
