"""Tests of training and restoring that need a GPU; skipped without one (docs/gpu.md lists the tests that need none)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dcn import compiled, verify
from engine.config import Config
from engine.restore import Options, restore
from engine.train.ahead import on_device
from engine.train.loop import Trainer
from tests.engine.small import moving_clip, small_mtdo, small_stno

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def batches(count: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "lr": torch.randint(0, 256, (2, 3, 3, 12, 12), generator=generator, dtype=torch.uint8),
            "gt": torch.randint(0, 256, (2, 3, 24, 24), generator=generator, dtype=torch.uint8),
            "source": ["a", "b"],
        }
        for _ in range(count)
    ]


def trained(config: Config, folder: Path, device: str, ahead: bool) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The loss of each step, and the weights."""
    trainer = Trainer(config, folder, torch.device(device))
    trainer.ahead, losses = ahead, []
    with trainer.arithmetic():
        for batch in on_device(iter(batches(4)), trainer.device):
            trainer.update(batch)
            trainer.step += 1
            trainer.settle()
            losses.append(sum(trainer.latest[0].values()))
    return losses, {name: tensor.cpu() for name, tensor in trainer.network.state_dict().items()}


def test_training_follows_the_cpu(tiny: Config, tmp_path: Path) -> None:
    expected, _ = trained(tiny, tmp_path / "cpu", "cpu", False)
    found, _ = trained(tiny, tmp_path / "gpu", "cuda:0", True)
    assert found == pytest.approx(expected, rel=1e-3)


def test_deterministic_training_gives_the_same_bits(tiny: Config, tmp_path: Path) -> None:
    config = replace(tiny, train=replace(tiny.train, deterministic=True))
    runs = [trained(config, tmp_path / str(number), "cuda:0", number == 2) for number in range(3)]
    for losses, weights in runs[1:]:
        assert losses == runs[0][0]
        assert all(torch.equal(weights[name], runs[0][1][name]) for name in weights)


@pytest.mark.parametrize("make", [small_mtdo, small_stno])
@pytest.mark.parametrize("tile", [None, 64])
def test_restoring_follows_the_cpu(make, tile) -> None:
    """Covers batches of windows, copies as bytes, CUDA graphs (the clip is longer than their warm-up) and tiles."""
    clip, options = moving_clip(40, 48, 96), Options(tile=tile, overlap=16)
    expected = list(restore(make(), clip, device="cpu", options=options))
    found = list(restore(make(), clip, device="cuda", options=options))
    assert len(found) == len(expected) and all(frame.device.type == "cpu" for frame in found)
    assert max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) < 5e-3  # TF32 in convolutions


def test_compiled_operator_agrees_with_plain_pytorch_on_this_card() -> None:
    if not compiled.available("cuda"):
        pytest.skip(f"no compiled operator for this card: {compiled.why_not()}")
    assert verify.why_not(0) == ""
