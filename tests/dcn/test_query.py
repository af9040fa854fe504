"""STNO's query: the compiled operator against the layers that it replaces."""

from __future__ import annotations

import math
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import dcn
from models.stno.query import Query
from tests.models.plain_query import plain_query

pytestmark = pytest.mark.usefixtures("compiled")
# Channels, hidden values, LR height and width, output height and width. More than 32 intervals are processed in blocks.
SIZES = [
    (6, 10, 9, 7, 36, 28),
    (3, 1, 9, 7, 27, 21),  # odd scale: outputs on the centres
    (16, 64, 5, 4, 23, 37),
    (32, 64, 40, 70, 43, 99),
    (5, 33, 34, 32, 20, 15),  # smaller than the features: intervals without outputs
    (8, 16, 1, 1, 5, 3),
    (4, 16, 2, 66, 60, 66),
]


def make(channels: int, hidden: int) -> Query:
    torch.manual_seed(0)
    query = Query(channels, hidden)
    for weight in query.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return query


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
def test_equals_the_layers_it_replaces(size: tuple[int, ...]) -> None:
    channels, hidden, height, width, *output = size
    query, features = make(channels, hidden), torch.randn(2, channels, height, width)
    with torch.no_grad():
        assert dcn.query.usable(features)
        result = query(features, tuple(output))
        expected = plain_query(query.double(), features.double(), tuple(output))
    assert result.dtype == torch.float32
    assert (result - expected).abs().max() < 2e-6 * expected.abs().max()


def arguments(hidden: int = 20) -> dict[str, Any]:
    """Arguments with features of zero: an output's hidden values are `shift_y + shift_x`."""
    return {
        "features": torch.zeros(1, 2, 3, 4),
        "corners": torch.randn(4, 4, hidden),
        "shift_y": torch.zeros(3, 2, hidden),
        "shift_x": torch.zeros(4, 2, hidden),
        "colour": torch.zeros(3, hidden),
        "bias": torch.zeros(3),
        "y": dcn.query.Positions(torch.tensor([0, 1, 1]), torch.tensor([0.5, 0.0, 0.5])),
        "x": dcn.query.Positions(torch.tensor([1]), torch.tensor([0.0])),
    }


def arguments_of(query: Query, features: Tensor, size: tuple[int, int]) -> dict[str, Any]:
    """The arguments that `query` passes to the operator for features (N, h, w, C)."""
    names = ("features", "corners", "shift_y", "shift_x", "colour", "bias", "y", "x")
    with torch.no_grad(), patch.object(dcn.query, "render", wraps=dcn.query.render) as render:
        query(features.permute(0, 3, 1, 2), size)
    return dict(zip(names, render.call_args.args, strict=True))


def scattered(values: Tensor) -> Tensor:
    """The same values with a stride of 2 in memory."""
    return torch.stack([values, values], -1)[..., 0]


def gelu(values: Tensor) -> Tensor:
    """The operator's GELU of each value, computed with one hidden value."""
    given = arguments(hidden=1)
    given["shift_x"] = values.float().view(-1, 1, 1).expand(-1, 2, 1)
    given["features"] = torch.zeros(1, 2, len(values) - 1, 4)
    given["colour"] = torch.tensor([[1.0], [0.0], [0.0]])
    given["x"] = dcn.query.Positions(torch.arange(len(values)), torch.zeros(len(values)))
    return dcn.query.render(**given)[0, 0, 0]


def test_gelu_equals_pytorch() -> None:
    x = torch.cat([torch.linspace(-7, 7, 20_001), torch.tensor([-1e30, -1e4, -0.0, 1e-30, 1e4, 1e30])])
    result, expected = gelu(x), F.gelu(x.double())
    assert torch.equal(result[-6:], expected[-6:].float())
    assert (result - expected)[:-6].abs().max() < 1.3e-6
    assert gelu(torch.tensor([math.nan, -math.inf, 0.0])).isnan().tolist() == [True, True, False]


@pytest.mark.parametrize("where", ["features", "corners", "shift_y", "shift_x", "colour", "bias"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_arguments_propagate(where: str, value: float) -> None:
    given = arguments()
    given["features"] = torch.randn(1, 2, 3, 4)
    given["colour"] = torch.randn(3, 20)
    assert dcn.query.render(**given).isfinite().all()
    given[where] = torch.full_like(given[where], value)
    assert not dcn.query.render(**given).isfinite().any()


def test_result_does_not_depend_on_thread_count() -> None:
    query, features = make(8, 20), torch.randn(2, 70, 70, 8)
    given = arguments_of(query, features, (100, 130))
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            results.append(dcn.query.render(**given))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_strided_arguments_and_empty_batch() -> None:
    given = arguments_of(make(8, 20), torch.randn(2, 6, 5, 8), (12, 11))
    expected = dcn.query.render(**given)
    strided = {name: scattered(value) for name, value in given.items() if isinstance(value, Tensor)}
    strided |= {axis: dcn.query.Positions(*map(scattered, given[axis])) for axis in ("y", "x")}
    assert not any(value.is_contiguous() for value in (*strided["y"], strided["features"], strided["bias"]))
    assert torch.equal(dcn.query.render(**strided), expected)
    empty = dcn.query.render(**{**given, "features": given["features"][:0]})
    assert empty.shape == (0, 3, 12, 11)


def test_nan_feature_changes_its_neighbourhood_only() -> None:
    query, features = make(4, 20), torch.randn(1, 4, 40, 40)
    features[0, 1, 33, 7] = math.nan
    with torch.no_grad():
        result = query(features, (80, 80)).isnan()
        assert torch.equal(result, plain_query(query, features, (80, 80)).isnan())
    assert 0 < result.sum() <= 3 * 6 * 6


def test_unusable_with_gradients_or_other_dtypes() -> None:
    x = torch.zeros(1, 4, 2, 2)
    assert not dcn.query.usable(x)  # gradients are on
    with torch.no_grad():
        assert dcn.query.usable(x)
        assert not dcn.query.usable(x.double()) and not dcn.query.usable(x.bfloat16())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("features", torch.zeros(2, 3, 4), r"features must be \(N, h, w, C\)"),
        ("features", torch.zeros(1, 2, 3, 5), r"corners must have shape \[5, 4, 20\]"),
        ("features", torch.zeros(1, 2, 3, 4).double(), "unsupported type Double"),
        ("corners", torch.zeros(4, 4, 20).double(), "corners is Double, expected float32"),
        ("shift_y", torch.zeros(2, 2, 20), r"shift_y must have shape \[3, 2, 20\]"),
        ("shift_x", torch.zeros(3, 2, 20), r"shift_x must have shape \[4, 2, 20\]"),
        ("bias", torch.zeros(4), "bias must have shape"),
        ("colour", torch.tensor(1.0), r"colour must be \(3, width\)"),
        ("features", torch.zeros(1, 2, 3, 0), r"features must be \(N, h, w, C\)"),
        ("x", dcn.query.Positions(torch.tensor([4]), torch.zeros(1)), "x intervals must lie between 0 and 3"),
        ("x", dcn.query.Positions(torch.tensor([-1]), torch.zeros(1)), "x intervals must lie between 0 and 3"),
        ("y", dcn.query.Positions(torch.tensor([1, 0]), torch.zeros(2)), "y intervals must ascend"),
        ("y", dcn.query.Positions(torch.tensor([1, 1]), torch.zeros(1)), "y fractions must have shape"),
        ("y", dcn.query.Positions(torch.tensor([1.0]), torch.zeros(1)), "y intervals must be a list of int64"),
    ],
)
def test_wrong_arguments_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        dcn.query.render(**{**arguments(), name: value})
