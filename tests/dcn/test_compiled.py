"""Properties of the compiled operator: schema, gradients, threads, torch.compile, export."""

from __future__ import annotations

import pytest
import torch

import dcn
from tests.dcn.cases import Case
from tests.parity import max_difference

pytestmark = pytest.mark.usefixtures("compiled")
PAIRS = ([1, 1], [1, 1], [1, 1])


@pytest.fixture(autouse=True)
def _compiled_backend():
    dcn.set_backend("compiled")
    yield
    dcn.set_backend(None)


DEFAULT = Case(channels=8)


def leaves(dtype=torch.float32, case=DEFAULT):
    tensors = case.tensors(dtype)
    return [tensors[name].requires_grad_() for name in ("input", "offset", "weight", "bias", "mask")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype):
    arguments = leaves(dtype)
    torch.library.opcheck(torch.ops.dcn.deform_conv2d, (*arguments, *PAIRS))
    torch.library.opcheck(torch.ops.dcn.deform_conv2d, (*arguments[:3], None, None, *PAIRS))
    plain = [tensor.detach() for tensor in arguments]
    grad = torch.ones(2, 3, 7, 6, dtype=dtype)
    for wanted in ([True] * 4, [False, True, False, True]):
        torch.library.opcheck(torch.ops.dcn.deform_conv2d_backward, (grad, *plain[:3], plain[4], *PAIRS, wanted))


def test_second_derivative_is_refused():
    input, offset, weight, bias, mask = leaves()
    out = dcn.deform_conv2d(input, offset, weight, bias, padding=1, mask=mask)
    (grad,) = torch.autograd.grad(out.square().sum(), input, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        grad.sum().backward()


def test_torch_op_checks_its_arguments():
    input, offset, weight, bias, mask = (tensor.detach() for tensor in leaves())
    with pytest.raises(RuntimeError, match="offset must have shape"):
        torch.ops.dcn.deform_conv2d(input, offset[:, :, 1:], weight, bias, mask, *PAIRS)
    with pytest.raises(RuntimeError, match="padding must be two numbers of at least 0"):
        torch.ops.dcn.deform_conv2d(input, offset, weight, bias, mask, [1, 1], [-1, 0], [1, 1])
    with pytest.raises(RuntimeError, match="weight is Double but input is Float"):
        torch.ops.dcn.deform_conv2d(input, offset, weight.double(), bias, mask, *PAIRS)


@pytest.mark.parametrize("deform_groups", [1, 2, 8])
def test_repeated_calls_give_the_same_bits(deform_groups):
    case = Case(batch=3, channels=64 // deform_groups, deform_groups=deform_groups, outs=16, size=(21, 19))
    runs = []
    for _ in range(3):
        arguments = leaves(case=case)
        out = dcn.deform_conv2d(*arguments[:4], padding=1, mask=arguments[4])
        runs.append([out, *torch.autograd.grad(out.square().sum(), arguments)])
    assert all(torch.equal(a, b) for other in runs[1:] for a, b in zip(runs[0], other, strict=True))


def test_thread_count_changes_results_by_rounding_only():
    case = Case(batch=5, channels=32, deform_groups=1, outs=7, size=(13, 12))
    before, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 3, 16):
            torch.set_num_threads(threads)
            arguments = leaves(torch.float64, case)
            out = dcn.deform_conv2d(*arguments[:4], padding=1, mask=arguments[4])
            runs.append([out, *torch.autograd.grad(out.square().sum(), arguments)])
    finally:
        torch.set_num_threads(before)
    for other in runs[1:]:
        assert all(max_difference(a, b) < 1e-9 for a, b in zip(runs[0], other, strict=True))


def test_one_training_step_through_torch_compile():
    torch._dynamo.reset()
    layer = dcn.DCNv2Pack(16, 8, deformable_groups=2)
    torch.nn.init.normal_(layer.conv_offset_mask.weight, std=0.1)
    graphs = []

    def remember(graph, example):
        graphs.append(graph)
        return graph

    x, feature = torch.randn(2, 16, 9, 8), torch.randn(2, 16, 9, 8)
    expected = layer(x, feature)
    expected.square().mean().backward()
    wanted = {name: parameter.grad.clone() for name, parameter in layer.named_parameters()}
    layer.zero_grad()
    found = torch.compile(layer, fullgraph=True, backend=remember)(x, feature)
    torch.compile(layer, fullgraph=True, backend="aot_eager")(x, feature).square().mean().backward()
    assert "dcn.deform_conv2d" in graphs[0].code
    assert max_difference(found, expected) < 1e-5
    for name, parameter in layer.named_parameters():
        assert max_difference(parameter.grad, wanted[name]) < 1e-4, name


def test_export_with_and_without_the_operator():
    layer = dcn.DCNv2Pack(16, 8, deformable_groups=2).eval()
    sample = (torch.randn(1, 16, 9, 8), torch.randn(1, 16, 9, 8))
    size = {2: torch.export.Dim("h", min=4, max=64), 3: torch.export.Dim("w", min=4, max=64)}
    other = (torch.randn(1, 16, 12, 7), torch.randn(1, 16, 12, 7))
    for name in ("compiled", "plain"):
        dcn.set_backend(name)
        program = torch.export.export(layer, sample, dynamic_shapes=(size, size))
        code = str(program.graph_module.code)
        assert ("dcn.deform_conv2d" in code) == (name == "compiled")
        assert max_difference(program.module()(*other), layer(*other)) < 1e-5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("groups, deform_groups", [(1, 2), (2, 1), (2, 4)])
@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-10), (torch.float32, 1e-3), (torch.bfloat16, 0.05)])
def test_cuda_equals_cpu(dtype, bound, groups, deform_groups):
    case = Case(channels=8, groups=groups, deform_groups=deform_groups, size=(40, 37), outs=16)
    results = []
    for device in ("cpu", "cuda"):
        values = [tensor.to(dtype).to(device).requires_grad_() for tensor in case.tensors().values()]
        out = dcn.deform_conv2d(*values[:4], padding=1, mask=values[4])
        results.append([out, *torch.autograd.grad(out.float().square().sum(), values)])
    for cpu, cuda in zip(*results, strict=True):
        assert max_difference(cuda.cpu(), cpu) < bound * max(1.0, cpu.abs().max().item())
