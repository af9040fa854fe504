"""Free memory, its estimate for a network, and the tiles that fit into it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from engine.restore import memory, tiles
from engine.restore.work import key_network
from models.mtdo import MTDO, MTDOConfig
from tests.engine.small import small_mtdo, small_stno


def test_automatic_size():
    assert memory.largest_tile((180, 320), 50_000, 16e9, 16) is None  # 57,600 pixels take 2.9 GB
    tile = memory.largest_tile((720, 1280), 50_000, 16e9, 16)
    assert tile is not None and tile % 16 == 0 and tile**2 * 50_000 <= 8e9 < (tile + 16) ** 2 * 50_000
    assert memory.largest_tile((720, 1280), 50_000, 1e6, 16) == tiles.SMALLEST


def test_memory_estimate_of_paper_size_mtdo_is_close_to_measurement():
    """The published code was measured at 1.65 GB for 160x160, weights included (docs/upscale.md)."""
    with torch.device("meta"):
        network = MTDO(MTDOConfig())
    assert 0.5e9 < memory.bytes_per_pixel(network) * 160**2 < 2.5e9


def test_memory_of_key_networks_counts_where_they_are_used():
    """Key frames of an output at x4 with a temporal filter are restored by the network for x4, and without new ones all frames."""
    network, large = small_stno(), small_mtdo(scale=4, channels=32)
    network.key_networks = [small_mtdo(scale=2), large]
    own, of_keys = memory.bytes_per_pixel(network, 16, 1), memory.bytes_per_pixel(large)
    for out, form, expected in (((64, 96), "clean", large), ((48, 72), "clean", None), ((64, 96), "none", None)):
        used = key_network(network, (16, 24), out, form)
        assert used is expected
        assert memory.bytes_per_pixel(network, 16, 1, used) == own + (of_keys if used else 0)
        assert memory.bytes_per_pixel(network, 16, 0, used) == (of_keys if used else own)


def test_out_of_memory_is_recognised():
    assert memory.is_out_of_memory(MemoryError())
    assert memory.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not memory.is_out_of_memory(RuntimeError("shape mismatch"))
    for text in (
        "CUDA error: out of memory",  # of the driver, such as for pinned memory
        "MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1 GB, max allowed: 9.07 GB)",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ):
        assert memory.is_out_of_memory(RuntimeError(text))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert memory.is_out_of_memory(caught.value)


def test_free_memory_is_plausible(monkeypatch, tmp_path):
    cpu = torch.device("cpu")
    assert 2**20 < memory.free_memory(cpu) < 2**50
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=8e9))
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    assert memory.free_memory(cpu) == 8e9
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory.free_memory(cpu) == 2e9


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        (".", ("memory.max", "memory.current", "inactive_file")),
        ("memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")),
    ],
)
def test_files_kept_in_memory_do_not_count_as_used_in_a_container(monkeypatch, tmp_path, folder, names):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=8e9))
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    (tmp_path / folder).mkdir(exist_ok=True)
    for name, text in ((names[0], "1000"), (names[1], "900"), ("memory.stat", f"anon 5\n{names[2]} 700\n")):
        (tmp_path / folder / name).write_text(text)
    assert memory.free_memory(torch.device("cpu")) == 800
