"""Memory layout and arithmetic of the shared blocks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models.layers import gelu_, interleave_channels, leaky_relu_
from models.mtdo.attention import linear


def test_interleaved_frames_are_one_channels_last_image() -> None:
    frames = torch.randn(2, 3, 4, 5, 6)
    laid = interleave_channels(frames)
    joined = laid.flatten(1, 2)
    assert torch.equal(laid, frames)
    assert joined.data_ptr() == laid.data_ptr() and joined.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(joined, frames.flatten(1, 2))


@pytest.mark.parametrize("grad", [True, False])
def test_activations_are_in_place_only_without_gradients(grad: bool) -> None:
    for ours, theirs in ((gelu_, F.gelu), (lambda x: leaky_relu_(x, 0.1), lambda x: F.leaky_relu(x, 0.1))):
        x = torch.linspace(-3, 3, 101, dtype=torch.float64, requires_grad=grad)
        before = x.detach().clone()
        with torch.set_grad_enabled(grad):
            out = ours(x)
        assert torch.equal(out, theirs(before))
        assert torch.equal(x.detach(), before) == grad


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_equals_f_linear(dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    x, weight, bias = (
        torch.randn(2, 5, 7, 16, dtype=dtype),
        torch.randn(24, 16, dtype=dtype),
        torch.randn(24, dtype=dtype),
    )
    expected = F.linear(x.double(), weight.double(), bias.double())
    terms = F.linear(x.double().abs(), weight.double().abs(), bias.double().abs())  # rounding is relative to these
    assert ((linear(x, weight, bias).double() - expected).abs() <= 2 * torch.finfo(dtype).eps * terms).all()
