"""Run the compiled CPU operators on odd shapes and extreme values; test_sanitizers.py runs this under sanitizers.

Results are not compared: the sanitizers abort on out-of-bounds accesses and undefined behaviour.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

import dcn
from models.stno.query import Query
from tests.dcn.cases import SWEEP, Case

HOSTILE = [1e4, -1e4, 2.0**31, 1e30, float("inf"), float("-inf"), float("nan"), -0.0, 1e-40]
CASES = [
    *SWEEP,
    Case(batch=0),
    Case(size=(0, 5), padding=(2, 1)),
    Case(size=(2, 5), padding=(0, 0)),
    Case(channels=16, size=(33, 9)),
]


WINDOWS = [(1, 0, 0), (5, 0, 2), (7, 0, 3), (4, 3, 0), (8, 1, 0), (16, 0, 8)]  # window, margin, shift


def attention() -> None:
    """Window attention with head widths that do not fill a vector, and with huge, infinite and NaN scores.

    Every window meets every value in both types, with one or two of the widths.
    """
    calls = itertools.product(WINDOWS, (1, 3, 16, 30), (torch.float32, torch.bfloat16))
    for number, ((window, margin, shift), width, dtype) in enumerate(calls):
        bias = torch.randn(2, window**2, (window + 2 * margin) ** 2)
        for value in (None, *HOSTILE[number % 3 :: 3]):
            qkv = torch.randn(2, 2 * window, 3 * window, 3 * 2 * width).to(dtype)
            if value is not None:
                qkv.view(-1)[::7] = value
            dcn.attention.window_attention(qkv, bias, 2, window, 1.0, margin=margin, shift=shift)


RENDERINGS = [(1, 1, 1, 1, 1, 1), (3, 5, 33, 32, 70, 31), (8, 16, 31, 66, 5, 400), (17, 40, 2, 65, 9, 130)]


def query() -> None:
    """STNO's query with sizes that leave blocks partly filled, and with huge, infinite and NaN features."""
    for channels, hidden, height, width, *output in RENDERINGS:
        layer = Query(channels, hidden)
        for value in (None, *HOSTILE):
            features = torch.randn(2, channels, height, width)
            if value is not None:
                features.view(-1)[::7] = value
            with torch.no_grad():
                assert dcn.query.usable(features)
                layer(features, (output[0], output[1]))


def motion() -> None:
    """Motion-compensated addition with images smaller than the kernel, and with motion beyond every border."""
    for size, low in (((1, 1), (1, 1)), ((2, 3), (1, 2)), ((33, 17), (8, 5)), ((40, 64), (10, 16))):
        for value in (None, *HOSTILE):
            shift = 3 * torch.randn(2, *low)
            if value is not None:
                shift.view(-1)[::2] = value
            image, total, weights = torch.rand(3, *size), torch.zeros(3, *size), torch.zeros(1, *size)
            dcn.motion.add_moved(total, weights, image, shift, torch.rand(1, *low))
            assert weights.isfinite().all()


def main() -> None:
    dcn.set_backend("compiled")
    types = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
    for case, dtype in itertools.product(CASES, types):
        for value in (None, *HOSTILE):
            tensors = case.tensors(dtype, spread=5.0)
            if value is not None and tensors["offset"].numel():
                tensors["offset"].view(-1)[:: 1 if case.batch == 2 else 3] = value
            if value is not None and case.mask:
                tensors["mask"].view(-1)[::5] = value
            leaves = [tensor.requires_grad_() for tensor in tensors.values() if tensor is not None]
            out = dcn.deform_conv2d(**tensors, **case.settings())
            torch.autograd.grad(out.sum(), leaves)
    attention()
    query()
    motion()
    print("ok", len(CASES) * len(types) * (len(HOSTILE) + 1))


if __name__ == "__main__":
    if not dcn.ensure_built():
        raise SystemExit("not built")
    main()
