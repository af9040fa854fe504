"""Automatic choice of the precision."""

from __future__ import annotations

import time

import pytest
import torch

from engine.restore import precision
from errors import InputError
from tests.engine.small import small_mtdo

CPU = torch.device("cpu")


def test_auto_chooses_the_faster_precision_only_if_accurate(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)

    def sample(error: float, seconds: float, exact: float = 0.5):
        def restore_sample(name: str) -> torch.Tensor:
            now[0] += 2.0 if name == "fp32" else seconds
            return torch.full((1, 3, 8, 8), exact) + (error if name != "fp32" else 0)

        return restore_sample

    chosen, reason = precision.choose(sample(1e-4, 0.5), CPU)
    assert chosen == "bf16" and "bf16 4.0 times as fast as fp32" in reason
    assert precision.choose(sample(1e-2, 0.5), CPU)[0] == "fp32"
    assert precision.choose(sample(1e-4, 3.0), CPU)[0] == "fp32"
    assert precision.choose(sample(float("nan"), 0.5), CPU)[0] == "fp32"
    assert precision.choose(sample(0.0, 0.5, exact=float("nan")), CPU)[0] == "fp32"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False, "cpu_name": "x"}, False),  # has AVX-512 only
        ({"avx512_f": True, "avx512_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
        ({"neon": True}, False),
    ],
)
def test_bf16_of_a_cpu_is_that_of_its_instructions(flags, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    assert precision.has_bf16(CPU) is expected


def test_auto_on_a_device_without_bf16(monkeypatch):
    """There bf16 takes many times as long: it is not even tried."""
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)
    assert precision.choose(lambda name: pytest.fail(f"{name} was tried"), CPU)[0] == "fp32"
    assert precision.for_training("auto", CPU)[0] == "fp32"
    chosen, note = precision.for_training("bf16", CPU)
    assert chosen == "bf16" and "this CPU has no bf16" in note
    assert precision.for_training("fp32", CPU) == ("fp32", "")
    assert precision.slow("bf16", CPU) == note and not precision.slow("fp32", CPU) and not precision.slow("auto", CPU)


def test_training_in_auto_takes_bf16_where_the_device_has_it(monkeypatch):
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    assert precision.for_training("auto", CPU) == ("bf16", "") == precision.for_training("bf16", CPU)


def test_largest_error_changes_psnr_by_the_stated_amount():
    own = 10 ** (-precision.TYPICAL_PSNR / 10)
    loss = 10 * torch.log10(torch.tensor((own + precision.largest_error()) / own))
    assert loss.item() == pytest.approx(precision.LARGEST_LOSS, rel=1e-3)


def test_unusable_precisions_are_named():
    with pytest.raises(InputError, match="fp8"):
        precision.check("fp8", CPU)
    with pytest.raises(InputError, match="for GPUs"):
        precision.check("fp16", CPU)


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
def test_fp32_is_exact_on_gpus() -> None:
    """By default cuDNN rounds the factors of convolutions to 10-bit mantissas (TensorFloat-32)."""

    def settings() -> tuple[bool, str]:
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()

    before = settings()
    with precision.inference("fp32", torch.device("cuda"), small_mtdo()):
        assert settings() == (False, "highest")
    assert settings() == before
    with precision.inference("bf16", torch.device("cuda"), small_mtdo()):
        assert settings() == before
