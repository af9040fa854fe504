"""Drives the compiled CPU operator through odd shapes and hostile offsets; run under sanitizers by test_sanitizers.py.

Nothing is compared here: the sanitizers abort on an access out of bounds or on undefined behaviour.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

import dcn
from tests.dcn.cases import SWEEP, Case

HOSTILE = [1e4, -1e4, 2.0**31, 1e30, float("inf"), float("-inf"), float("nan"), -0.0, 1e-40]
CASES = [
    *SWEEP,
    Case(batch=0),
    Case(size=(0, 5), padding=(2, 1)),
    Case(size=(2, 5), padding=(0, 0)),
    Case(channels=16, size=(33, 9)),
]


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
    print("ok", len(CASES) * len(types) * (len(HOSTILE) + 1))


if __name__ == "__main__":
    if not dcn.ensure_built():
        raise SystemExit("not built")
    main()
