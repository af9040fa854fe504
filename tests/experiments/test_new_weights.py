"""Scripts that make weights from other weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from engine.checkpoint import load_network, save_weights
from errors import InputError
from experiments import add_difference, soften, widen
from models.layers import bicubic_upscale
from models.mtdo.config import HATConfig
from tests.engine.small import moving_clip, small_mtdo

HAT = HATConfig(embed=12, depths=[1], heads=2, window=8, squeeze=4)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    def run(script, *words: object) -> None:
        monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, words)])
        script.main()

    return run


@pytest.mark.parametrize("wide", [False, True])
def test_widened_network_starts_as_the_old_one(run, tmp_path: Path, wide: bool) -> None:
    old = small_mtdo(reconstruction="hat", hat=HAT, wide=wide, stdm=False)
    save_weights(tmp_path / "old.safetensors", old)
    run(widen, tmp_path / "old.safetensors", tmp_path / "new.safetensors", "--frames", 5)
    new = load_network(tmp_path / "new.safetensors")
    assert new.config.frames == 5 and new.config.wide
    frames = moving_clip(5, 16, 16).window(2, 5)[None]
    with torch.no_grad():
        torch.testing.assert_close(new(frames), old(frames[:, 1:4]), rtol=0, atol=1e-5)


def test_softened_residual(run, tmp_path: Path) -> None:
    network = small_mtdo()
    save_weights(tmp_path / "old.safetensors", network)
    run(soften, tmp_path / "soft.safetensors", tmp_path / "old.safetensors", 0.5)
    frames = moving_clip(3, 16, 16).window(1, 3)[None]
    with torch.no_grad():
        bicubic = bicubic_upscale(frames[:, 1], 2)
        residual, softer = (each(frames) - bicubic for each in (network, load_network(tmp_path / "soft.safetensors")))
    assert residual.abs().max() > 0.01
    torch.testing.assert_close(softer, residual / 2, rtol=0, atol=1e-3)
    with pytest.raises(InputError, match="exists"):
        run(soften, tmp_path / "soft.safetensors", tmp_path / "old.safetensors", 0.5)


def test_released_names_are_taken(run, tmp_path: Path) -> None:
    run(widen, "mtdo_s", tmp_path / "wide.safetensors", "--frames", 9)
    assert load_network(tmp_path / "wide.safetensors").config.frames == 9


def test_added_difference(run, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.safetensors" for name in ("weights", "before", "after")]
    networks = [small_mtdo() for _ in paths]
    for value, path, network in zip((1.0, 2.0, 6.0), paths, networks, strict=True):
        torch.nn.init.constant_(network.reconstruction.conv_last.bias, value)
        save_weights(path, network)
    run(add_difference, tmp_path / "out.safetensors", *paths, 0.25)
    assert load_network(tmp_path / "out.safetensors").reconstruction.conv_last.bias.tolist() == [2.0] * 3
