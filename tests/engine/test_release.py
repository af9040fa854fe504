"""Making weights for release: averaging, half precision, headers, refusals."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

import pytest
import torch

from data.files import sha256
from engine.checkpoint import load_network, load_tensors, save_weights
from engine.release import part, release
from errors import InputError
from tests.engine.small import small_mtdo, small_stno


def test_mean_of_two_in_half_precision(tmp_path: Path) -> None:
    first, second = small_mtdo(), small_mtdo()
    with torch.no_grad():
        second.reconstruction.conv_last.bias.fill_(1.0)
    for name, network in (("a", first), ("b", second)):
        save_weights(tmp_path / f"{name}.safetensors", network)
    digest = release(
        tmp_path / "out.safetensors", [(tmp_path / "a.safetensors", 0.25), (tmp_path / "b.safetensors", 0.75)]
    )
    assert digest == sha256(tmp_path / "out.safetensors")
    tensors, _ = load_tensors(tmp_path / "out.safetensors")
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float16}
    mean = load_network(tmp_path / "out.safetensors")
    assert mean.config == first.config
    assert torch.equal(mean.reconstruction.conv_last.bias, torch.full((3,), 0.75))
    torch.testing.assert_close(mean.tsa.fea_fusion.weight, first.tsa.fea_fusion.weight, rtol=1e-3, atol=1e-6)


def test_spacing_of_released_weights(tmp_path: Path) -> None:
    for name, network in (("a", small_mtdo()), ("b", small_mtdo(spacing=2)), ("c", small_stno())):
        save_weights(tmp_path / f"{name}.safetensors", network)
    parts = [(tmp_path / "a.safetensors", 0.5), (tmp_path / "b.safetensors", 0.5)]
    with pytest.raises(InputError, match="differ in spacing, padding, temporal filter or key weights"):
        release(tmp_path / "out.safetensors", parts)
    release(tmp_path / "out.safetensors", parts, settings={"spacing": "auto", "temporal_filter": "clean"})
    stored = {"spacing": "auto", "padding": "reflect", "temporal_filter": "clean"}
    assert load_network(tmp_path / "out.safetensors").restore_settings == stored
    with pytest.raises(InputError, match=r"--spacing is for window networks, .*c\.safetensors"):
        release(tmp_path / "d.safetensors", [(tmp_path / "c.safetensors", 1.0)], settings={"spacing": 2})


def test_weights_that_do_not_match_are_refused(tmp_path: Path) -> None:
    for name, network in (("a", small_mtdo()), ("b", small_mtdo(channels=16)), ("c", small_stno())):
        save_weights(tmp_path / f"{name}.safetensors", network)
    with pytest.raises(InputError, match=r"add up to 0\.9"):
        release(tmp_path / "out", [(tmp_path / "a.safetensors", 0.4), (tmp_path / "a.safetensors", 0.5)])
    for other in ("b", "c"):
        with pytest.raises(InputError, match="different sizes"):
            release(tmp_path / "out", [(tmp_path / "a.safetensors", 0.5), (tmp_path / f"{other}.safetensors", 0.5)])
    huge = small_mtdo()
    torch.nn.init.constant_(huge.tsa.fea_fusion.bias, 1e6)
    save_weights(tmp_path / "d.safetensors", huge)
    with pytest.raises(InputError, match="float16"):
        release(tmp_path / "out", [(tmp_path / "d.safetensors", 1.0)])
    with pytest.raises(InputError, match=r"add up to 2, expected 1: .* write W1:0\.5 W2:0\.5"):
        release(tmp_path / "out", [part(str(tmp_path / "a.safetensors"))] * 2)
    assert not (tmp_path / "out").exists()


def test_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    save_weights(tmp_path / "a.safetensors", small_mtdo())
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"out\.safetensors' exists: use --overwrite"):
        release(out, [(tmp_path / "a.safetensors", 1.0)])
    assert out.read_bytes() == b"mine"
    assert release(out, [(tmp_path / "a.safetensors", 1.0)], overwrite=True) == sha256(out)


def test_parsing_of_shares() -> None:
    assert part("runs/a.safetensors") == (Path("runs/a.safetensors"), 1.0)
    assert part("runs/a.safetensors:0.3") == (Path("runs/a.safetensors"), 0.3)
    with pytest.raises(ArgumentTypeError, match="expected FILE or FILE:SHARE"):
        part("runs/a.safetensors:half")
