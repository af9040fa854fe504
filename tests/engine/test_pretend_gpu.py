"""The code for GPUs without one: restoring and losses with tensors that pretend to be on CUDA's or Apple's device."""

from __future__ import annotations

import shutil
import sys

import pytest
import torch

import dcn
from engine.config import config_from_mapping
from engine.restore import Options, graphs, restore
from engine.restore.graphs import WARM
from engine.restore.temporal_filter import TemporalFilter
from engine.train.ahead import LossTerms, Pending
from engine.train.guard import Undo
from engine.train.objectives import build_objective
from engine.train.optim import EMA, build_optimizer
from tests.engine.conftest import space_time, tiny_mapping
from tests.engine.restore.test_transfer import Recorded
from tests.engine.small import moving_clip, small_mtdo, small_stno
from tests.pretend_gpu import OnGpu, PretendGpu, build_guard, moved, pretend

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU"),
    pytest.mark.skipif(sys.platform != "linux" or shutil.which("g++") is None, reason="needs g++ on Linux"),
]


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    build_guard(tmp_path_factory.mktemp("guard"))


@pytest.fixture
def gpu(guard, monkeypatch):
    dcn.set_backend("plain")
    return lambda: pretend(monkeypatch) or monkeypatch.setattr(graphs, "Recording", Recorded)


FILTERED, TILED = {"temporal_filter": "clean"}, {"options": Options(tile=24, overlap=8)}


@pytest.mark.parametrize("make", [small_mtdo, small_stno])
@pytest.mark.parametrize(("device", "settings"), [("cuda", FILTERED), ("cuda", TILED), ("mps", FILTERED)])
def test_restored_frames_equal_the_cpus(gpu, device, make, settings):
    """Windows in batches, a replayed graph, bytes, tiles on the device, downloads, the temporal filter on the device."""
    clip = moving_clip(WARM + 2, 40, 48)
    expected = list(restore(make(), clip, device="cpu", **settings))
    network = make()
    gpu()
    with torch.no_grad(), PretendGpu() as mode:
        found = list(restore(moved(network, device), clip, device=device, **settings))
    assert max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) < 1e-5
    inside = [wait for wait in mode.waits if "temporal_filter.py" not in wait]  # whose motion is that of the CPU
    assert device == "mps" or inside == []


@pytest.mark.parametrize(("free", "device"), [(2**35, "cuda"), (2**20, "cpu")])
def test_filtered_frames_are_held_where_there_is_memory(gpu, monkeypatch, free, device):
    clip, network, places = moving_clip(3, 40, 48), small_mtdo(), set()
    plain = TemporalFilter._filtered

    def filtered(self, centre, others):
        places.update(frame.restored.device.type for frame in (centre, *others))
        return plain(self, centre, others)

    expected = list(restore(network, clip, device="cpu", **FILTERED))
    gpu()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (free, 2**36))
    monkeypatch.setattr(TemporalFilter, "_filtered", filtered)
    with torch.no_grad(), PretendGpu():
        found = list(restore(moved(network, "cuda"), clip, device="cuda", **FILTERED))
    assert places == {device}
    assert max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) < 1e-5


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("kind", [lambda runs: config_from_mapping(tiny_mapping(runs)), space_time])
def test_losses_and_a_step_stay_on_the_device(gpu, device, kind, tmp_path):
    config = kind(tmp_path)
    network = (small_stno if config.space_time else small_mtdo)()
    batch = {"lr": torch.rand(1, 3, 3, 12, 16), "gt": torch.rand(1, 5, 3, 24, 32), "times": torch.tensor([[0.5]])}
    if not config.space_time:
        batch["gt"] = batch["gt"][:, 0]
    with torch.no_grad():
        expected = build_objective(network, config)(batch)
    gpu()
    place = torch.device(device, 0)
    with torch.no_grad(), PretendGpu() as mode:
        moved(network, device)
        on_gpu = {key: value if key == "times" else OnGpu(value, place) for key, value in batch.items()}
        found = build_objective(network, config)(on_gpu)
        values = torch.stack(list(found.values()))
        losses = LossTerms()
        losses.add(found, values)
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer, average = build_optimizer(network, config.train), EMA(network, 0.9)
        undo = Undo(network, average, optimizer)
        undo.keep(0)
        optimizer.step()
        average.update(network, 0)
        pending = Pending(0, batch, losses, [values[0], *undo.update_norms()], caught=False)
        assert mode.waits == []
        numbers = pending.take().losses if device == "cuda" else {name: float(value) for name, value in found.items()}
    assert numbers == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-4)


def test_tensors_of_two_devices_are_found(gpu):
    gpu()
    with torch.no_grad(), PretendGpu() as mode:
        x = torch.ones(3, device="cuda")
        with pytest.raises(
            RuntimeError, match=r"aten.add.Tensor at test_pretend_gpu.py:\d+: tensors on \['cuda:0', 'cpu'\]"
        ):
            x + torch.ones(3)
        assert x.is_cuda and float(x.sum()) == 3
        assert all("test_pretend_gpu" in wait for wait in mode.waits) and len(mode.waits) == 1
        with pytest.raises(TypeError, match="MPS"):
            torch.ones(3, device="mps").double()
