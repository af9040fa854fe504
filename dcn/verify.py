"""Verify the compiled operator on a CUDA card: it is used only if it agrees with `dcn.plain` there.

The comparison runs once per build and card, in a separate process (an illegal access would otherwise make the card unusable for the
caller), and its result is stored next to the library. It covers cards and drivers that were not tested in advance.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcn import build, plain

log = logging.getLogger("dcn")
# Relative to the largest number of plain's float64 result. float64 finds indexing errors; the others verify that the type works.
# float32 leaves room for TF32 products.
BOUNDS = {torch.float64: 1e-9, torch.float32: 5e-3, torch.bfloat16: 3e-2, torch.float16: 1e-2}
TIMEOUT = 300.0  # seconds, for a card that others use too
PAIRS = ([1, 1], [1, 1], [1, 1])  # stride, padding, dilation
NAMES = ("output", "gradient of input", "gradient of offset", "gradient of weight", "gradient of mask")
_known: dict[int, str] = {}
_asking = threading.Lock()


def why_not(index: int | None) -> str:
    """The reason why the compiled operator is not used on a CUDA card (None: the current one); empty: it is used.

    Fast after the first call for a card. A disagreement is logged as a warning, once per process.
    """
    number = torch.cuda.current_device() if index is None else index
    with _asking:
        if number not in _known:
            library = build.library_path()
            try:
                _known[number] = _kept(library, _card(number), lambda: _in_other_process(number))
                again = f"; remove {_verdicts(library)} to compare again"
            except torch.OutOfMemoryError as error:  # another program uses the card: not the verdict of later runs
                _known[number], again = f"no memory for the comparison with plain PyTorch ({error})", ""
            if _known[number]:
                message = "dcn: the compiled operator is not used on %s: %s%s"
                log.warning(message, _card(number), _known[number], again)
    return _known[number]


def _card(index: int) -> str:
    found = torch.cuda.get_device_properties(index)
    return f"{found.name} ({found.major}.{found.minor})"


def _verdicts(library: Path) -> Path:
    return library.with_suffix(".cards.json")


def _kept(library: Path, card: str, check: Callable[[], str]) -> str:
    """The verdict for a build and a card: the stored one, else that of `check`, which is then stored if possible."""
    path = _verdicts(library)
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        verdict = json.loads(path.read_text()).get(card)
        if isinstance(verdict, str):
            return verdict
    verdict = check()
    with contextlib.suppress(OSError):
        _keep(path, card, verdict)
    return verdict


def _keep(path: Path, card: str, verdict: str) -> None:
    with build.locked():
        verdicts: Any = {}
        with contextlib.suppress(OSError, ValueError):
            verdicts = json.loads(path.read_text())
        merged = (verdicts if isinstance(verdicts, dict) else {}) | {card: verdict}
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(merged, indent=1))
        temporary.replace(path)


def _in_other_process(index: int) -> str:
    """The verdict of `python -m dcn.verify INDEX`, or of this process if the card accepts only one process.

    Raises `torch.OutOfMemoryError` where the card has no memory left for it.
    """
    command = [sys.executable, "-m", "dcn.verify", str(index)]
    environment = os.environ | {"DCN_BACKEND": "auto"}
    try:
        root = Path(__file__).parents[1]
        ran = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the comparison with plain PyTorch did not end ({type(error).__name__})"
    lines = ran.stdout.strip().splitlines()
    if ran.returncode == 0 and lines:
        verdict = json.loads(lines[-1])
        return disagreement(torch.device("cuda", index)) if verdict is None else str(verdict)
    last = (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]
    if "out of memory" in last:
        raise torch.OutOfMemoryError(last)
    return f"the comparison with plain PyTorch failed: {last}"


def disagreement(device: torch.device, forward: Any = None, backward: Any = None) -> str:
    """Differences of the compiled operator from `dcn.plain` on small problems on `device`; empty if it agrees.

    forward, backward: the operators to compare; default: torch.ops.dcn.
    """
    forward = forward or torch.ops.dcn.deform_conv2d
    backward = backward or torch.ops.dcn.deform_conv2d_backward
    for dtype, bound in BOUNDS.items():
        for channels, groups, deform_groups in ((16, 1, 2), (6, 2, 1)):
            arguments = _arguments(device, dtype, channels, groups, deform_groups)
            for name, error in _errors(arguments, forward, backward):
                if not error <= bound:
                    kind = str(dtype).removeprefix("torch.")
                    return f"{name} in {kind} differs from plain PyTorch's by {error:.1e} (allowed {bound:.0e})"
    return ""


def _arguments(
    device: torch.device, dtype: torch.dtype, channels: int, groups: int, deform_groups: int
) -> dict[str, Tensor]:
    """Arguments of a map of 23x17, from a fixed seed; offsets avoid integers, where gradients are discontinuous."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    points = 9 * deform_groups
    integers = torch.randint(-3, 3, (2, 2 * points, 23, 17), generator=generator).double()
    made = {
        "input": normal(2, channels, 23, 17),
        "offset": integers + 0.1 + 0.8 * torch.rand(integers.shape, generator=generator, dtype=torch.float64),
        "weight": normal(8, channels // groups, 3, 3) / 4,
        "bias": normal(8),
        "mask": normal(2, points, 23, 17).sigmoid(),
        "grad": normal(2, 8, 23, 17),
    }
    return {name: tensor.to(device, dtype) for name, tensor in made.items()}


def _errors(arguments: dict[str, Tensor], forward: Any, backward: Any) -> Iterable[tuple[str, float]]:
    """Name and relative error of the output and of every gradient."""
    input, offset, weight, bias, mask, grad = arguments.values()
    with torch.no_grad(), torch.autocast(input.device.type, enabled=False):
        found = [forward(input, offset, weight, bias, mask, *PAIRS)]
        found += backward(grad, input, offset, weight, mask, *PAIRS, [True] * 4)
    with torch.enable_grad(), torch.autocast(input.device.type, enabled=False):
        leaves = [tensor.detach().double().requires_grad_() for tensor in (input, offset, weight, mask)]
        samples, moves, matrix, factors = leaves
        out = plain.deform_conv2d(samples, moves, matrix, bias.double(), padding=(1, 1), mask=factors)
        exact = [out.detach(), *torch.autograd.grad(out, leaves, grad.double())]
    for name, value, right in zip(NAMES, found, exact, strict=True):
        yield name, float((value.double() - right).abs().max() / right.abs().max())


def main() -> None:
    """Print the verdict for one card as JSON: a text (empty: agrees), or null where this process cannot use the card."""
    from dcn import compiled

    device = torch.device("cuda", int(sys.argv[1]))
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):
        print("null")
        return
    if not compiled.available("cuda"):
        raise SystemExit(compiled.why_not())
    print(json.dumps(disagreement(device)))


if __name__ == "__main__":
    main()
