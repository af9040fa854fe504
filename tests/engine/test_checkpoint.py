"""Weights and states: saving and loading; files that do not fit are refused in one line."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
import torch

import models
from data.files import sha256
from engine.checkpoint import (
    load_network,
    load_state,
    load_tensors,
    save_tensors,
    save_weights,
)
from errors import InputError
from tests.engine.conftest import NETWORK


def test_weights_carry_their_config(tmp_path: Path) -> None:
    network = models.build(NETWORK)
    path = tmp_path / "w.safetensors"
    save_weights(path, network, step=5)
    copy = load_network(path)
    assert copy.config == network.config and not copy.training
    for (name, a), (_, b) in zip(network.state_dict().items(), copy.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert load_tensors(path)[1]["step"] == 5
    assert len(sha256(path)) == 64
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_loaded_tensors_do_not_map_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_tensors(path, {"a": torch.arange(100.0)}, {})
    tensors, _ = load_tensors(path)
    path.write_bytes(bytes(path.stat().st_size))  # written in place: a memory map would change
    assert torch.equal(tensors["a"], torch.arange(100.0))


def test_half_precision_weights_are_loaded_as_float32(tmp_path: Path) -> None:
    network = models.build(NETWORK)
    half = {name: tensor.half() for name, tensor in network.state_dict().items()}
    save_weights(tmp_path / "w.safetensors", network, half)
    copy = load_network(tmp_path / "w.safetensors").state_dict()
    assert all(copy[name].dtype == torch.float32 and torch.equal(copy[name], half[name].float()) for name in half)


def test_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, models.build(NETWORK))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"w\.safetensors.*not a readable safetensors"):
        load_network(path)


def test_files_that_are_not_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_network(tmp_path / "none.safetensors")
    text = tmp_path / "weights.pth"
    for words in ("Quota exceeded", "<!DOCTYPE html>\n<html>"):  # as left by a failed download
        for path in (text, tmp_path / "page.safetensors"):
            path.write_text(words)
            with pytest.raises(InputError, match=f"is text, not weights: it begins with '{words.split()[0]}"):
                load_network(path)
    text.write_bytes(b"\x80\x02no weights")
    with pytest.raises(InputError, match="damaged or holds more than tensors"):
        load_network(text)
    torch.save({"state_dict": {"a": torch.zeros(1)}}, text)
    with pytest.raises(InputError, match="neither MTDO nor STNO"):
        load_network(text)
    torch.save([1, 2], text)
    with pytest.raises(InputError, match="no state dict"):
        load_network(text)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harmed",))

    torch.save({"state_dict": Harm()}, tmp_path / "w.pth")
    with pytest.raises(InputError):
        load_network(tmp_path / "w.pth")
    assert not (tmp_path / "harmed").exists()


def test_misfits_are_listed() -> None:
    network = models.build(NETWORK)
    state = dict(network.state_dict())
    name = next(iter(state))
    state["extra"] = state.pop(name)
    with pytest.raises(InputError) as caught:
        load_state(network, state, "w")
    assert f"1 missing: {name}" in str(caught.value) and "1 unexpected: extra" in str(caught.value)


def test_weights_of_another_scale_do_not_fit() -> None:
    other = models.build({**NETWORK, "scale": 8})
    with pytest.raises(InputError, match="do not fit"):
        load_state(models.build(NETWORK), other.state_dict(), "w")


def test_partial_loading_takes_tensors_that_fit() -> None:
    torch.manual_seed(0)
    other, network = models.build(NETWORK), models.build({**NETWORK, "scale": 8})
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    left = load_state(network, {**other.state_dict(), "strange": torch.zeros(1)}, "w", partial=True)
    assert 0 < len(left) < len(before) / 2
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name] if name in left else other.state_dict()[name])
    with pytest.raises(InputError, match="nothing in 'w' fits"):
        load_state(network, {"strange": torch.zeros(1)}, "w", partial=True)


def test_spacing_is_stored_in_the_header_outside_the_config(tmp_path: Path) -> None:
    network = models.build(NETWORK)
    network.spacing = "auto"
    save_weights(tmp_path / "w.safetensors", network)
    tensors, header = load_tensors(tmp_path / "w.safetensors")
    assert header["spacing"] == "auto" and "spacing" not in header["network"]
    assert load_network(tmp_path / "w.safetensors").spacing == "auto"
    save_tensors(tmp_path / "w.safetensors", tensors, {"network": {**header["network"], "spacing": 3}})  # before 0.2
    assert load_network(tmp_path / "w.safetensors").spacing == 3
    save_tensors(tmp_path / "w.safetensors", tensors, {**header, "spacing": "wide"})
    with pytest.raises(InputError, match=r"w\.safetensors.*'spacing' is 'wide'"):
        load_network(tmp_path / "w.safetensors")


def test_nan_in_weights_is_refused() -> None:
    network = models.build(NETWORK)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first = next(iter(state.values()))
    first[(0,) * first.dim()] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        load_state(network, state, "w")


def test_unwritable_folder_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((InputError, OSError)):
        save_tensors(tmp_path / "file" / "w.safetensors", {"a": torch.zeros(1)}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << position % 8
    path.write_bytes(content)


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    """Every byte of a small file: length, names, header, checksum, tensors."""
    path = tmp_path / "w.safetensors"
    save_tensors(path, {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}, {"step": 5})
    before = path.read_bytes()
    for position in range(len(before)):
        flip(path, position)
        with pytest.raises(InputError, match=r"w\.safetensors"):
            load_tensors(path)
        path.write_bytes(before)
    assert load_tensors(path)[1] == {"step": 5}


@pytest.mark.parametrize(
    "network",
    [{"name": "mtdo", "channels": 512}, {"name": "mtdo", "channels": 10**9}, {"name": "stno", "blocks": 10**6}],
)
def test_small_file_cannot_allocate_a_large_network(tmp_path: Path, network: dict, monkeypatch) -> None:
    save_tensors(tmp_path / "w.safetensors", {"a": torch.zeros(1)}, {"network": network})

    def build(config: object) -> torch.nn.Module:
        assert torch.empty(1).is_meta, "memory was taken before shapes were compared"
        return original(config)

    original = models.build
    monkeypatch.setattr(models, "build", build)
    with pytest.raises(InputError, match=r"w\.safetensors"):
        load_network(tmp_path / "w.safetensors")


def test_pth_that_claims_more_data_than_it_has_is_refused(tmp_path: Path) -> None:
    torch.save({"fus.weight": torch.zeros(1).expand(64, 64 * 2001), "hat.a": torch.zeros(1)}, tmp_path / "c.pth")
    with pytest.raises(InputError, match="larger than the file itself"):
        load_network(tmp_path / "c.pth")
    torch.save({"hat.a": torch.zeros(10**6)}, tmp_path / "d.pth")
    with zipfile.ZipFile(tmp_path / "d.pth") as stored, zipfile.ZipFile(tmp_path / "e.pth", "w") as small:
        for entry in stored.namelist():
            small.writestr(entry, stored.read(entry), zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="compressed archive"):
        load_network(tmp_path / "e.pth")


@pytest.mark.parametrize(
    "content",
    [
        {1: torch.zeros(1)},
        {"hat.a": torch.zeros(1, device="meta")},
        {"hat.a": torch.zeros(1, 1).to_sparse()},
        {"hat.a": torch.zeros(1, dtype=torch.complex64)},
        {},
        torch.zeros(3),
    ],
)
def test_pth_without_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth"):
        load_network(tmp_path / "w.pth")


def test_pipes_and_impossible_names_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name in ("pipe.safetensors", "x" * 400, "a\0b.pth"):
        with pytest.raises(InputError, match="weights file"):
            load_network(tmp_path / name)
