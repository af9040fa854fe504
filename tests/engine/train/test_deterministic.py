"""Deterministic replacements of functions whose backward pass is not deterministic on GPUs, against PyTorch on the CPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from engine.train import deterministic as functions

CALLS = {
    "bilinear, border": lambda x, grid: F.grid_sample(x, grid, padding_mode="border", align_corners=True),
    "bilinear, zeros": lambda x, grid: F.grid_sample(x, grid, align_corners=False),
    "bicubic, border": lambda x, grid: F.grid_sample(x, grid, "bicubic", "border", align_corners=True),
    "bicubic, zeros": lambda x, grid: F.grid_sample(x, grid, mode="bicubic", align_corners=False),
    "bicubic resize": lambda x, grid: F.interpolate(x, size=(13, 30), mode="bicubic", align_corners=False),
    "bilinear resize": lambda x, grid: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
    "max pooling": lambda x, grid: F.max_pool2d(x, 3, 2, 1),
}


def results(call, seed=0):
    """Output and gradients."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 7, 9, generator=generator, dtype=torch.float64)
    x[0, 0, 2:5, 2:5] = 1.0  # several equal maxima
    grid = 2.6 * torch.rand(2, 5, 6, 2, generator=generator, dtype=torch.float64) - 1.3
    leaves = [x.requires_grad_(), grid.requires_grad_()]
    out = call(*leaves)
    weights = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    return [out, *(g for g in torch.autograd.grad(out, leaves, weights, allow_unused=True) if g is not None)]


@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients_equal_pytorch(name):
    expected = results(CALLS[name])
    used = []

    def spied(function):
        return lambda *args, **kwargs: used.append(function) or function(*args, **kwargs)

    with functions.Replaced("cpu"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(functions, "REPLACEMENTS", {f: spied(g) for f, g in functions.REPLACEMENTS.items()})
        found = results(CALLS[name])
    assert len(used) == 1 and len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() < 1e-12


def test_cpu_tensors_use_pytorch_functions():
    with functions.deterministic(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert all(
            torch.equal(a, b) for a, b in zip(results(CALLS["max pooling"]), results(CALLS["max pooling"]), strict=True)
        )
    assert not torch.are_deterministic_algorithms_enabled()
