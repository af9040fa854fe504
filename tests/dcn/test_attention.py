"""Window attention: the compiled operator against the same arithmetic in plain PyTorch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import dcn
from models.mtdo.attention import OverlapAttention, WindowAttention, window_plan

pytestmark = pytest.mark.usefixtures("compiled")
SIZES = [(60, 2, 16, 4, 32, 48), (64, 2, 8, 1, 24, 40), (30, 3, 7, 2, 21, 14), (36, 6, 8, 2, 8, 8)]
KINDS = ["plain", "shifted", "overlapping"]


def attention(kind: str, embed: int, heads: int, window: int, margin: int) -> nn.Module:
    torch.manual_seed(0)
    if kind == "overlapping":
        network: nn.Module = OverlapAttention(embed, heads, window, margin)
    else:
        network = WindowAttention(embed, heads, window)
    nn.init.normal_(network.relative_position_bias_table, std=0.5)
    network.qkv.weight.data.mul_(3)  # makes the scores differ strongly
    return network


def run(network: nn.Module, x: Tensor, kind: str) -> Tensor:
    if kind == "overlapping":
        return network(x)
    plan = window_plan(*x.shape[1:3], network.window, x) if kind == "shifted" else None
    return network(x, plan)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.06)])
def test_equals_plain_pytorch(kind: str, size: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    *sizes, height, width = size
    network = attention(kind, *sizes).to(dtype)
    x = torch.randn(2, height, width, sizes[0]).to(dtype)
    with torch.no_grad():
        expected = run(network.double(), x.double(), kind)  # float64 runs in plain PyTorch
        assert dcn.attention.usable(x)
        result = run(network.to(dtype), x, kind)
    assert result.dtype == dtype
    assert (result - expected).abs().max() < tolerance
    assert (result - expected).std() < 0.1 * tolerance


def test_result_does_not_depend_on_thread_count() -> None:
    network = attention("shifted", *SIZES[0][:4])
    x = torch.randn(1, 32, 48, 60)
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            with torch.no_grad():
                qkv = torch.ones(1, 32, 48, 180) * x.repeat(1, 1, 1, 3)
                bias = network.position_bias()[0]
                results.append(dcn.attention.window_attention(qkv, bias, 2, 16, 0.2, shift=8))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_large_scores_stay_finite() -> None:
    qkv = 200 * torch.randn(1, 8, 8, 3 * 16)
    result = dcn.attention.window_attention(qkv, torch.zeros(1, 64, 64), 1, 8, 1.0)
    query, key, value = qkv.flatten(1, 2).split(16, -1)
    expected = torch.softmax((query @ key.mT).double(), -1) @ value.double()
    assert (result.flatten(1, 2) - expected).abs().max() < 1e-2 * expected.abs().max()


def write_non_finite(what: str, qkv: Tensor, bias: Tensor) -> None:
    """Write non-finite values into qkv (1, window, window, 3 * heads * width) and bias (heads, queries, keys)."""
    tokens = qkv.unflatten(-1, (3, 2, -1))
    bad = torch.tensor(-1, dtype=torch.int32 if qkv.dtype == torch.float32 else torch.int16).view(qkv.dtype)
    assert bad.isnan()  # all bits are set: integer arithmetic on the bits must not turn it into a number
    if what in ("query", "key", "value"):
        tokens[0, 4, 1, ("query", "key", "value").index(what), 1, 2] = bad
    elif what == "bias":
        bias[1, 5, 6] = bad
    elif what == "infinite score":
        bias[1, 5, 6] = math.inf
    elif what == "infinite query":
        tokens[0, 4, 1, 0, 1, 2] = math.inf
    elif what == "no key left":
        bias[1, 5] = -math.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [7, 8])  # 49 and 64 keys: with and without padding of the last vector
@pytest.mark.parametrize(
    "what", ["query", "key", "value", "bias", "infinite score", "infinite query", "no key left", "nothing"]
)
def test_non_finite_values_propagate(what: str, window: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(1, window, window, 3 * 2 * 5).to(dtype)
    bias = torch.randn(2, window**2, window**2).to(dtype)
    write_non_finite(what, qkv, bias)
    result = dcn.attention.window_attention(qkv, bias, 2, window, 0.4)
    query, key, value = qkv.double().flatten(1, 2).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
    expected = torch.softmax(0.4 * query @ key.mT + bias.double(), -1) @ value  # (1, heads, L, width)
    expected = expected.transpose(1, 2).reshape(result.shape)
    assert torch.equal(result.isnan(), expected.isnan()) and expected.isnan().any() == (what != "nothing")
    rest = ~expected.isnan()
    assert ((result - expected)[rest].abs() < (1e-5 if dtype == torch.float32 else 0.03)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_key_with_score_of_minus_infinity_is_ignored(dtype: torch.dtype) -> None:
    qkv, bias = torch.randn(1, 8, 8, 3 * 16).to(dtype), torch.zeros(1, 64, 64, dtype=dtype)
    bias[..., 1:] = -math.inf
    result = dcn.attention.window_attention(qkv, bias, 1, 8, 0.2)
    assert torch.equal(result, qkv[:, :1, :1, 32:].expand_as(result))


def test_unusable_with_gradients_float64_or_plain_backend() -> None:
    x = torch.randn(1, 8, 8, 4)
    assert not dcn.attention.usable(x)  # gradients are on
    with torch.no_grad():
        assert dcn.attention.usable(x)
        assert not dcn.attention.usable(x.double())
        dcn.set_backend("plain")
        try:
            assert not dcn.attention.usable(x)
        finally:
            dcn.set_backend(None)


@pytest.mark.parametrize(
    ("shape", "bias", "arguments", "message"),
    [
        ((1, 8, 8, 50), (2, 64, 64), {}, r"qkv must be \(B, H, W"),
        ((1, 8, 9, 48), (2, 64, 64), {}, "not made of windows of 8"),
        ((1, 8, 8, 48), (2, 64, 100), {}, r"bias must be \(2, 64, 64\)"),
        ((1, 8, 8, 48), (2, 64, 100), {"margin": 1, "shift": 4}, "margin 1 and shift 4 do not fit a window of 8"),
        ((1, 8, 8, 48), (2, 64, 64), {"shift": 8}, "margin 0 and shift 8 do not fit a window of 8"),
        ((1, 8, 8, 48), (2, 64, 64), {"shift": -1}, "margin 0 and shift -1 do not fit a window of 8"),
    ],
)
def test_wrong_shapes_are_refused(shape, bias, arguments, message) -> None:
    with pytest.raises(RuntimeError, match=message):
        dcn.attention.window_attention(torch.zeros(shape), torch.zeros(bias), 2, 8, 1.0, **arguments)
