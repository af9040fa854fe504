"""Every implementation of the operator against its definition, closed forms and the reference outputs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import dcn
from errors import InputError
from tests.dcn.cases import SWEEP, Case
from tests.parity import fixture, max_difference, seeded_state, tolerance


def run(case: Case, tensors):
    return dcn.deform_conv2d(**tensors, **case.settings())


@pytest.mark.parametrize("case", SWEEP, ids=str)
def test_gradients_of_every_argument(backend, case):
    tensors = case.tensors()
    names = [name for name, tensor in tensors.items() if tensor is not None]
    leaves = [tensors[name].requires_grad_() for name in names]

    def call(*values):
        return dcn.deform_conv2d(**dict(zip(names, values, strict=True)), **case.settings())

    assert torch.autograd.gradcheck(call, leaves, fast_mode=True, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", SWEEP, ids=str)
def test_zero_offset_and_unit_mask_equal_convolution(backend, case, dtype):
    tensors = case.tensors(dtype)
    tensors["offset"].zero_()
    if case.mask:
        tensors["mask"].fill_(1)
    expected = F.conv2d(tensors["input"], tensors["weight"], tensors["bias"], **case.settings(), groups=case.groups)
    assert max_difference(run(case, tensors), expected) < (1e-12 if dtype == torch.float64 else 2e-5)


@pytest.mark.parametrize("dy, dx", [(0, 1), (-2, 3), (40, 0)])
def test_integer_offset_equals_convolution_of_the_shifted_map(backend, dy, dx):
    case = Case(mask=False, padding=(0, 0), size=(9, 8))
    tensors = case.tensors()
    tensors["offset"][:, 0::2] = dy
    tensors["offset"][:, 1::2] = dx
    shifted = torch.zeros_like(tensors["input"])
    for y in range(9):
        for x in range(8):
            if 0 <= y + dy < 9 and 0 <= x + dx < 8:
                shifted[:, :, y, x] = tensors["input"][:, :, y + dy, x + dx]
    expected = F.conv2d(shifted, tensors["weight"], tensors["bias"])
    assert max_difference(run(case, tensors), expected) < 1e-12


@pytest.mark.parametrize("name", ["mtdo_dcn", "mtdo_dcn_bigoffset"])
def test_reference_outputs(backend, name):
    prefix = "msd.dcnpack."
    layer = dcn.DCNv2Pack(64, 64)
    layer.load_state_dict({k[len(prefix) :]: v for k, v in seeded_state("mtdo").items() if k.startswith(prefix)})
    data = fixture(name)
    with torch.no_grad():
        found = layer(data["in_x"], data["in_fea"])
    assert max_difference(found, data["out_y"]) <= tolerance(name, "y")


sizes = st.integers(1, 9)
small = st.integers(1, 3)


@settings(max_examples=40)
@given(
    case=st.builds(
        Case,
        batch=small,
        size=st.tuples(st.integers(3, 11), st.integers(3, 11)),
        channels=st.sampled_from([1, 2, 4, 8, 12, 16]),
        outs=sizes,
        kernel=st.tuples(small, small),
        stride=st.tuples(small, small),
        padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
        dilation=st.tuples(st.just(1), st.integers(1, 2)),
        deform_groups=small,
        groups=st.integers(1, 2),
        mask=st.booleans(),
    ),
    seed=st.integers(0, 100),
    spread=st.sampled_from([0.3, 3.0, 50.0]),
)
def test_compiled_equals_plain(compiled, case, seed, spread):
    if min(case.out_size()) < 1:
        return
    results = []
    for name in ("plain", "compiled"):
        dcn.set_backend(name)
        tensors = case.tensors(seed=seed, spread=spread)
        leaves = [tensor.requires_grad_() for tensor in tensors.values() if tensor is not None]
        out = run(case, tensors)
        grads = torch.autograd.grad((out * torch.linspace(-1, 1, out.numel()).double().view_as(out)).sum(), leaves)
        results.append([out, *grads])
    dcn.set_backend(None)
    for plain, found in zip(*results, strict=True):
        assert max_difference(found, plain) < 1e-9 * max(1.0, plain.abs().max().item())


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.bfloat16, 0.02), (torch.float16, 0.003)])
def test_all_dtypes_are_close_to_float64(backend, dtype, bound):
    case = Case(channels=8, deform_groups=2, outs=16, size=(12, 11))
    tensors = case.tensors(dtype)
    exact = run(case, {name: tensor.double() for name, tensor in tensors.items()})
    found = run(case, tensors)
    assert found.dtype == dtype
    assert max_difference(found, exact) < bound * exact.abs().max().item()
    tensors["offset"], tensors["mask"] = tensors["offset"].float(), tensors["mask"].float()
    assert max_difference(run(case, tensors), exact) < bound * exact.abs().max().item()


@pytest.mark.parametrize("value", [1e4, 1e30, float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_infinite_and_nan_offsets_sample_zero(backend, value, dtype):
    if backend == "torchvision":
        pytest.skip("its behaviour for such offsets is not ours to fix")
    case = Case(channels=4)
    tensors = case.tensors(dtype)
    tensors["offset"].fill_(value)
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]
    out = run(case, tensors)
    assert torch.equal(out, tensors["bias"][:, None, None].expand_as(out))
    grads = torch.autograd.grad(out.sum(), leaves)
    assert all(not grads[i].any() for i in (0, 1, 2, 4))


def test_batch_equals_single_runs_and_inputs_are_unchanged(backend):
    case = Case(batch=3, channels=8)
    tensors = case.tensors(torch.float32)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    full = run(case, tensors)
    for i in range(3):
        single = {n: t[i : i + 1] if n in ("input", "offset", "mask") else t for n, t in tensors.items()}
        assert max_difference(run(case, single), full[i : i + 1]) < 1e-5
    assert all(torch.equal(before[name], tensors[name]) for name in before)


def test_strided_arguments(backend):
    case = Case(channels=8, size=(9, 10))
    tensors = case.tensors(torch.float32)
    expected = run(case, tensors)
    joined = torch.cat([tensors["offset"], tensors["mask"]], dim=1)
    count = tensors["offset"].shape[1]
    views = tensors | {"offset": joined[:, :count], "mask": joined[:, count:]}
    views["input"] = tensors["input"].contiguous(memory_format=torch.channels_last)
    views["weight"] = tensors["weight"].contiguous(memory_format=torch.channels_last)
    assert max_difference(run(case, views), expected) < 1e-5
    flipped = tensors | {"offset": tensors["offset"].contiguous(memory_format=torch.channels_last)}
    flipped["input"] = tensors["input"].transpose(2, 3).contiguous().transpose(2, 3)
    assert max_difference(run(case, flipped), expected) < 1e-5


@pytest.mark.parametrize(
    "case", [Case(channels=8, size=(9, 10), groups=2), Case(size=(7, 1)), Case(size=(1, 6), deform_groups=2)]
)
def test_channels_last_in_and_out(backend, case):
    """Offsets and masks are slices of one channels-last convolution output: not contiguous in any memory format."""
    tensors = case.tensors(torch.float64)
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    expected = run(case, tensors)
    joined = torch.cat([leaves["offset"], leaves["mask"]], 1).contiguous(memory_format=torch.channels_last)
    count = leaves["offset"].shape[1]
    given = leaves | {"offset": joined[:, :count], "mask": joined[:, count:]}
    given["input"] = leaves["input"].contiguous(memory_format=torch.channels_last)
    out = run(case, given)
    assert max_difference(out, expected) < 1e-12
    plain = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    weights = torch.randn(expected.shape, dtype=torch.float64)
    run(case, plain).mul(weights).sum().backward()
    out.mul(weights).sum().backward()
    assert all(max_difference(leaves[name].grad, plain[name].grad) < 1e-11 for name in leaves)


def test_axis_of_size_one_may_have_any_stride(backend):
    case = Case(channels=4, size=(6, 1))
    tensors = case.tensors(torch.float64)
    odd = {
        name: tensors[name].as_strided(tensors[name].shape, (*tensors[name].stride()[:3], 5))
        for name in ("offset", "mask")
    }
    assert max_difference(run(case, tensors | odd), run(case, tensors)) < 1e-12


@pytest.mark.parametrize("case", [Case(batch=0), Case(size=(0, 5), padding=(2, 1)), Case(size=(2, 2), padding=(0, 0))])
def test_empty_batch_input_and_output(backend, case):
    if case.size == (2, 2):
        case = case._replace(size=(2, 5))  # output height 0
    tensors = case.tensors(torch.float32)
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]
    out = run(case, tensors)
    assert list(out.shape) == [case.batch, case.outs, *case.out_size()]
    assert torch.equal(out, tensors["bias"].detach()[:, None, None].expand_as(out))
    assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(out.sum(), leaves))


def test_autocast(backend):
    case = Case(channels=8, deform_groups=1, outs=8)
    tensors = case.tensors(torch.float32)
    expected = run(case, tensors)
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(case, tensors | {"mask": tensors["mask"].bfloat16()})
    assert found.dtype == torch.bfloat16
    assert max_difference(found, expected) < 0.05 * expected.abs().max().item()
    grads = torch.autograd.grad(found.float().sum(), leaves)
    assert all(grad.dtype == torch.float32 and torch.isfinite(grad).all() for grad in grads)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"input": torch.zeros(4, 7, 6)}, "input must be (B, C, H, W)"),
        ({"offset": torch.zeros(2, 36, 7, 5)}, "offset must have shape (2, 36, 7, 6)"),
        ({"offset": torch.zeros(2, 35, 7, 6)}, "offset must be (B, 2*G*9"),
        ({"offset": torch.zeros(2, 3 * 18, 7, 6)}, "cannot be split into 3 deformable groups"),
        ({"mask": torch.zeros(2, 9, 7, 6)}, "mask must have shape (2, 18, 7, 6)"),
        ({"weight": torch.zeros(3, 3, 3, 3)}, "does not fit input with 4 channels"),
        ({"bias": torch.zeros(4)}, "bias must have shape (3,)"),
        (
            {"weight": torch.zeros(3, 4, 3, 3, dtype=torch.float64)},
            "weight is torch.float64 but input is torch.float32",
        ),
        ({"offset": torch.zeros(2, 36, 7, 6, dtype=torch.int64)}, "offset must be a floating-point tensor"),
        ({"input": torch.zeros(2, 4, 7, 6, device="meta")}, "is on cpu but input is on meta"),
        ({"stride": (0, 1)}, "stride must be at least 1"),
        ({"padding": -1}, "padding must be at least 0"),
        ({"dilation": (1, 2, 3)}, "dilation must be an int or two ints"),
        ({"dilation": 9}, "output size would be negative"),
    ],
)
def test_bad_input_is_refused_in_one_line(backend, change, words):
    case = Case()
    arguments = case.tensors(torch.float32) | case.settings() | change
    with pytest.raises(InputError) as error:
        dcn.deform_conv2d(**arguments)
    assert words in str(error.value) and "\n" not in str(error.value)
