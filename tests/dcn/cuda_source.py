"""Compare the CUDA source, run on the CPU, with `dcn.plain` on random cases; print one JSON line per case.

    python tests/dcn/cuda_source.py LIBRARY CASES

test_cuda_source.py builds the library (see cuda_on_cpu/cuda.h) and runs this script in a subprocess, because the library may be
instrumented by sanitizers.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from dcn import plain
from tests.dcn.cases import Case

KINDS = ("float64", "float32", "bfloat16", "float16", "bfloat16 with float32 offsets", "float16 with float32 offsets")
BOUNDS = {"float64": 1e-13, "float32": 5e-6, "bfloat16": 8e-3, "float16": 2e-3}  # relative, see `error`
MARGIN = 0.05  # distance of sampling positions from integers, where the gradients with respect to the offsets jump
Tensors = dict[str, Tensor | None]


def draw(number: int) -> Case:
    """Draw a random case with a non-empty output."""
    dice = random.Random(number)
    while True:
        case = Case(
            batch=dice.randint(1, 3),
            size=(dice.randint(1, 12), dice.randint(1, 12)),
            channels=dice.choice([1, 2, 3, 4, 8, 12, 16]),
            outs=dice.randint(1, 6),
            kernel=(dice.randint(1, 3), dice.randint(1, 3)),
            stride=(dice.randint(1, 3), dice.randint(1, 3)),
            padding=(dice.randint(0, 3), dice.randint(0, 3)),
            dilation=(dice.randint(1, 2), dice.randint(1, 2)),
            deform_groups=dice.choice([1, 2, 3, 8]),
            groups=dice.choice([1, 1, 2]),
            mask=dice.random() < 0.75,
        )
        if number % 31 == 0:  # more pixels than fit in one chunk of columns
            case = case._replace(batch=3, size=(40, 37), stride=(1, 1), channels=2, deform_groups=2)
        if min(case.out_size()) >= 1:
            return case


def tensors_of(case: Case, kind: str, seed: int) -> Tensors:
    """Arguments in the types of `kind`, with sampling positions away from integers."""
    dtype = getattr(torch, kind.split()[0])
    made = case.tensors(torch.float64, spread=0.8 if dtype.itemsize == 2 else 3.0, seed=seed)
    full = made["offset"].floor()
    made["offset"] = (full + MARGIN + (1 - 2 * MARGIN) * (made["offset"] - full)).clamp(-20, 20)
    wide = torch.float32 if "offsets" in kind else dtype
    return {
        name: None if tensor is None else tensor.to(wide if name in ("offset", "mask") else dtype)
        for name, tensor in made.items()
    }


def expected(case: Case, tensors: Tensors, grad: Tensor) -> list[Tensor | None]:
    """Output and gradients (input, offset, weight, mask) from `dcn.plain` in float64."""
    exact = {
        name: None if tensor is None else tensor.double().clone().requires_grad_() for name, tensor in tensors.items()
    }
    settings = case.settings().values()
    out = plain.deform_conv2d(
        exact["input"], exact["offset"], exact["weight"], exact["bias"], *settings, mask=exact["mask"]
    )
    leaves = [exact[name] for name in ("input", "offset", "weight", "mask") if exact[name] is not None]
    grads = list(torch.autograd.grad(out, leaves, grad.double()))
    return [out.detach(), *grads] + ([] if case.mask else [None])


def found(case: Case, tensors: Tensors, grad: Tensor, wanted: list[bool], operators: Any = None) -> list[Tensor]:
    """The same of the CUDA source; operators: forward and backward of another library."""
    shim = torch.ops.dcn_cuda_on_cpu
    forward, backward = operators or (shim.forward, shim.backward)
    input, offset, weight, bias, mask = tensors.values()
    settings = [list(pair) for pair in case.settings().values()]
    out = forward(input, offset, weight, bias, mask, *settings)
    return [out, *backward(grad, input, offset, weight, mask, *settings, wanted)]


def error(value: Tensor, exact: Tensor | None) -> float:
    """Largest difference relative to the largest expected number; 0 for both empty."""
    if exact is None:
        return 0.0 if value.numel() == 0 else float("inf")
    if value.shape != exact.shape:
        return float("inf")
    if value.numel() == 0:
        return 0.0
    difference = (value.double() - exact).abs().max() / exact.abs().max().clamp_min(1)
    return float(difference)


def gradient(case: Case, tensors: Tensors, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (case.batch, case.outs * case.groups, *case.out_size())
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(tensors["input"].dtype)


def compare(number: int) -> dict[str, object]:
    """One random case; every second one with shuffled threads, every fourth without some of the gradients."""
    case, kind = draw(number), KINDS[number % len(KINDS)]
    tensors = tensors_of(case, kind, number)
    grad = gradient(case, tensors, number)
    torch.ops.dcn_cuda_on_cpu.shuffle(number if number % 2 else 0)
    wanted = [random.Random(-number - 1).random() < 0.5 for _ in range(4)] if number % 4 == 3 else [True] * 4
    exact = expected(case, tensors, grad)
    exact[1:] = [value if want else None for value, want in zip(exact[1:], wanted, strict=True)]
    before = torch.ops.dcn_cuda_on_cpu.launches()
    values = found(case, tensors, grad, wanted)
    chunks = torch.ops.dcn_cuda_on_cpu.launches() - before
    names = ("output", "input", "offset", "weight", "mask")
    errors = {name: error(value, right) for name, value, right in zip(names, values, exact, strict=True)}
    return {"check": "random", "case": str(case), "kind": kind, "errors": errors, "launches": chunks}


def compare_deterministic(number: int) -> dict[str, object]:
    """In deterministic mode any order of the threads gives the same bits, near the exact gradient."""
    case, kind = draw(number)._replace(mask=True), KINDS[number % len(KINDS)]
    tensors = tensors_of(case, kind, number)
    grad = gradient(case, tensors, number)
    runs = []
    torch.use_deterministic_algorithms(True)
    try:
        for seed in (0, 1, 2):
            torch.ops.dcn_cuda_on_cpu.shuffle(seed)
            runs.append(found(case, tensors, grad, [True] * 4))
    finally:
        torch.use_deterministic_algorithms(False)
    same = all(torch.equal(a, b) for other in runs[1:] for a, b in zip(runs[0], other, strict=True))
    exact = expected(case, tensors, grad)
    return {
        "check": "deterministic",
        "case": str(case),
        "kind": kind,
        "same": same,
        "errors": {"input": error(runs[0][1], exact[1])},
    }


def compare_views(kind: str) -> dict[str, object]:
    """Arguments that start anywhere in memory: packs of numbers must not be read from unaligned addresses."""
    case = Case(channels=16, deform_groups=1, size=(5, 6))
    tensors = tensors_of(case, kind, 1)
    grad = gradient(case, tensors, 1)
    shifted = {}
    for name, tensor in tensors.items():
        channels_last = tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 else tensor
        room = torch.zeros(tensor.numel() + 1, dtype=tensor.dtype)[1:]
        room.copy_(channels_last.reshape(-1))
        view = room.view(channels_last.shape)
        shifted[name] = view.permute(0, 3, 1, 2) if tensor.dim() == 4 else view
    torch.ops.dcn_cuda_on_cpu.shuffle(0)
    values = found(case, shifted, grad, [True] * 4)
    errors = {str(i): error(v, e) for i, (v, e) in enumerate(zip(values, expected(case, tensors, grad), strict=True))}
    return {"check": "views", "case": str(case), "kind": kind, "errors": errors}


HOSTILE = (1e4, -1e4, 2.0**31, 1e30, float("inf"), float("-inf"), float("nan"))


def hostile(value: float, kind: str) -> dict[str, object]:
    """Far, infinite and NaN positions sample zero and give no gradient."""
    case = Case(channels=4)
    tensors = tensors_of(case, kind, 2)
    tensors["offset"] = torch.full(tensors["offset"].shape, value, dtype=torch.float32).to(tensors["offset"].dtype)
    out, *grads = found(case, tensors, gradient(case, tensors, 2), [True] * 4)
    bias = tensors["bias"][:, None, None].expand_as(out)
    zero = torch.equal(out, bias) and not any(grad.any() for grad in grads)
    return {"check": "hostile", "case": f"offset {value}", "kind": kind, "same": zero, "errors": {}}


def empty(case: Case) -> dict[str, object]:
    """Maps without pixels and batches without samples."""
    tensors = case.tensors(torch.float32)
    out, *grads = found(case, tensors, gradient(case, tensors, 3), [True] * 4)
    bias = tensors["bias"][:, None, None].expand_as(out)
    fine = torch.equal(out, bias) and all(not grad.any() for grad in grads)
    return {"check": "empty", "case": str(case), "kind": "float32", "same": fine, "errors": {}}


def main() -> None:
    torch.set_num_threads(1)
    torch.ops.load_library(sys.argv[1])
    count = int(sys.argv[2])
    for number in range(count):
        print(json.dumps(compare(number)))
    for number in range(0, count, 7):
        print(json.dumps(compare_deterministic(number)))
    for kind in KINDS:
        print(json.dumps(compare_views(kind)))
        for value in HOSTILE:
            print(json.dumps(hostile(value, kind)))
    for case in (Case(batch=0), Case(size=(0, 5), padding=(2, 1)), Case(size=(2, 5), padding=(0, 0))):
        print(json.dumps(empty(case)))


if __name__ == "__main__":
    main()
