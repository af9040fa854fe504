"""Automatic choice of the precision."""

from __future__ import annotations

import time

import pytest
import torch

from engine.restore import precision
from errors import InputError
from tests.engine.small import small_mtdo

CPU = torch.device("cpu")


def sample(error: float, seconds: float):
    def restore_sample(name: str) -> torch.Tensor:
        time.sleep(0.02 if name == "fp32" else seconds)
        return torch.full((1, 3, 8, 8), 0.5) + (error if name != "fp32" else 0)

    return restore_sample


def test_auto_chooses_the_faster_precision_only_if_accurate():
    assert precision.choose(sample(1e-4, 0.001), CPU)[0] == "bf16"
    assert precision.choose(sample(1e-2, 0.001), CPU)[0] == "fp32"
    assert precision.choose(sample(1e-4, 0.06), CPU)[0] == "fp32"
    assert precision.choose(sample(float("nan"), 0.001), CPU)[0] == "fp32"
    assert precision.choose(lambda name: torch.full((1, 3, 8, 8), float("nan")), CPU)[0] == "fp32"


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
