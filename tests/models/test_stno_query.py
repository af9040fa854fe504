"""The folded query against the published form."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.stno.query import Query, locate, plan_slabs
from tests.models.plain_query import plain_query
from tests.parity import max_difference


def make(channels: int = 6, width: int = 10) -> Query:
    torch.manual_seed(0)
    return Query(channels, width).double()


SIZES = [(9, 7), (18, 14), (27, 21), (28, 35), (45, 49), (13, 60), (5, 4), (1, 1), (63, 8)]


@pytest.mark.parametrize("size", SIZES)
def test_equals_the_published_form(size):
    query, features = make(), torch.randn(2, 6, 9, 7, dtype=torch.float64)
    with torch.no_grad():
        assert max_difference(query(features, size), plain_query(query, features, size)) < 1e-12


@settings(max_examples=40)
@given(st.tuples(*[st.integers(1, 9)] * 2), st.tuples(*[st.integers(1, 40)] * 2), st.integers(1, 300))
def test_equals_the_published_form_for_any_size_and_slab(shape, size, slab):
    query, features = make(), torch.randn(3, 6, *shape, dtype=torch.float64)
    with torch.no_grad():
        assert max_difference(query(features, size, slab), plain_query(query, features, size)) < 1e-12


@pytest.mark.parametrize("slab", [1, 100, 10**6])
@pytest.mark.parametrize("kept", [0, 10**9], ids=["recomputed", "kept"])
def test_gradients_equal_the_published_form(slab, kept, monkeypatch):
    monkeypatch.setattr("models.stno.query.KEPT_VALUES", kept)
    query = make()
    features = torch.randn(2, 6, 5, 4, dtype=torch.float64, requires_grad=True)
    target = torch.randn(2, 3, 15, 13, dtype=torch.float64)
    gradients = []
    for output in (query(features, (15, 13), slab), plain_query(query, features, (15, 13))):
        loss = (output * target).sum()
        gradients.append(torch.autograd.grad(loss, [features, *query.parameters()]))
    for folded, plain in zip(*gradients, strict=True):
        assert max_difference(folded, plain) < 1e-10


@pytest.mark.parametrize(("outputs", "cells"), [(1, 1), (7, 3), (3, 7), (12, 4), (15, 5), (1280, 320), (77, 32)])
def test_intervals_follow_the_definition(outputs, cells):
    axis = locate(outputs, cells)
    for i in range(outputs):
        lower = ((2 * i + 1) * cells - outputs) // (2 * outputs)
        assert axis.interval[i] == lower + 1
        assert abs(axis.fraction[i].item() - (((i + 0.5) * cells / outputs - 0.5) - lower)) < 1e-9


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 30))
def test_slabs_cover_all_rows_once(outputs, cells, rows):
    slabs = plan_slabs(outputs, cells, rows)
    assert [row for slab in slabs for row in range(slab.start, slab.stop)] == list(range(outputs))
    assert all(0 < slab.stop - slab.start <= rows for slab in slabs)
    interval = locate(outputs, cells).interval
    for slab in slabs:
        assert set(interval[slab.start : slab.stop].tolist()) <= set(slab.intervals)
