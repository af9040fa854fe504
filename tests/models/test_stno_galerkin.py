"""The Galerkin block against a token-by-token computation of its definition."""

from __future__ import annotations

import torch

from models.stno.galerkin import GalerkinAttention, HeadNorm, InterFrame, coordinate_grid
from tests.parity import max_difference


def test_attention_equals_the_quadratic_form():
    """q (k^T v) = (q k^T) v: the network never forms the n x n matrix; the reference does."""
    torch.manual_seed(0)
    attention = GalerkinAttention(12, 3).double()
    tokens, other = torch.randn(2, 2, 20, 12, dtype=torch.float64)
    coordinates = coordinate_grid(4, 5, tokens)
    appearance, motion = attention(tokens, other, coordinates)

    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (3, 4)).transpose(-3, -2)

    query = heads(attention.query(tokens))
    key, value = (heads(x) for x in attention.key_value(other).split(12, dim=-1))
    position = attention.coordinate(coordinates)
    weights = query @ attention.key_norm(key).transpose(-1, -2) / 20  # (2, 3, 20, 20)
    seen = (weights @ attention.value_norm(value)).transpose(1, 2).flatten(2) + tokens
    moved = (weights @ attention.coordinate_norm(heads(position))).transpose(1, 2).flatten(2) - position
    assert max_difference(appearance, attention.appearance(seen) + tokens) < 1e-12
    assert max_difference(motion, attention.motion(moved)) < 1e-12


def test_head_norm_equals_its_formula_also_for_constants():
    norm = HeadNorm(2, 4).double()
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    expected = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5)
    assert max_difference(norm(x), expected) < 1e-12
    constant = torch.full((2, 5, 4), 3.0, requires_grad=True)
    HeadNorm(2, 4)(constant).sum().backward()
    assert constant.grad.isfinite().all()


def test_coordinates_run_from_corner_to_corner():
    grid = coordinate_grid(3, 5, torch.zeros(1)).view(3, 5, 2)
    assert grid[0, 0].tolist() == [-1, -1]
    assert grid[0, -1].tolist() == [1, -1]
    assert grid[-1, 2].tolist() == [0, 1]


def test_swapping_the_frames_swaps_the_results():
    torch.manual_seed(0)
    block = InterFrame(5, 8, 2, 16)
    first, second = torch.randn(2, 3, 5, 4, 6)
    with torch.no_grad():
        look0, look1, motion0, motion1 = block(first, second)
        swapped = block(second, first)
    for actual, expected in zip(swapped, (look1, look0, motion1, motion0), strict=True):
        assert max_difference(actual, expected) < 1e-6


def test_result_does_not_depend_on_chunks(monkeypatch):
    torch.manual_seed(0)
    block = InterFrame(5, 8, 2, 16).double()
    first, second = torch.randn(2, 3, 5, 7, 6, dtype=torch.float64)
    with torch.no_grad():
        full = block(first, second)
        for chunk in (1, 5, 13, 41):
            monkeypatch.setattr("models.stno.galerkin.CHUNK", chunk)
            for actual, expected in zip(block(first, second), full, strict=True):
                assert max_difference(actual, expected) < 1e-12
