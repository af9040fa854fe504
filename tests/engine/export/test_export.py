"""Export to ONNX; skipped without the optional packages."""

from __future__ import annotations

import importlib.util

import pytest
import torch

import engine.export.to_onnx
from engine.checkpoint import load_network
from engine.export import to_onnx
from engine.export.to_onnx import PACKAGES, TOLERANCE, FreeGraph, export
from engine.released import released
from errors import InputError
from models.mtdo.config import HATConfig
from tests.engine.small import moving_clip, small_mtdo, small_stno

installed = all(importlib.util.find_spec(name) for name in PACKAGES)
HAT = HATConfig(embed=12, depths=[2], heads=2, window=8, squeeze=4)


@pytest.mark.skipif(not installed, reason="needs onnx, onnxscript and onnxruntime")
@pytest.mark.parametrize(
    ("network", "size"),
    [
        (small_mtdo(), (16, 24)),
        (small_mtdo(reconstruction="hat", hat=HAT, residual="none"), (16, 24)),
        (small_stno(), (16, 16)),
    ],
    ids=["residual", "hat", "stno"],
)
def test_onnxruntime_equals_pytorch(network, size, tmp_path):
    out = tmp_path / "model.onnx"
    assert export(network, out, size, scale=2.5) <= TOLERANCE / 10
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.slow
@pytest.mark.skipif(not installed, reason="needs onnx, onnxscript and onnxruntime")
@pytest.mark.parametrize("network", [small_mtdo(reconstruction="hat", hat=HAT), small_stno()], ids=["mtdo", "stno"])
def test_dynamic_graph_runs_at_other_sizes(network, tmp_path):
    assert export(network, tmp_path / "model.onnx", (16, 24), free=True) <= TOLERANCE / 10


def test_symbolic_window_plan_equals_the_fixed_one():
    network, frames = small_mtdo(reconstruction="hat", hat=HAT), moving_clip(3, 40, 24).window(1, 3)[None]
    with torch.no_grad():
        expected = network(frames)
        for free in (False, True):
            assert torch.equal(network.exportable(free, (40, 24))(frames), expected)


def test_symbolic_form_equals_the_network_on_white_noise():
    """In float64, because on white noise in float32 the two forms differ by rounding errors."""
    network = load_network(released("stno")).double()
    frames = torch.rand(1, 2, 3, 32, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(frames, times=[0.4], size=(70, 96))
        graph = FreeGraph(network.exportable(True, (32, 24)))
        restored = graph(frames, torch.tensor([0.4], dtype=torch.float64), torch.tensor((70, 96)))
    assert (restored - expected).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("size", "times", "changes"),
    [
        ((75, 51), [0.5], {}),
        ((11, 100), [0.3, 0.4, 0.9], {"residual": "none"}),  # key frames from the second time
        ((1, 3), [0.1, 0.8], {"times_mode": "shared"}),
        ((32, 16), [0.2, 0.6], {}),  # output size = input size: every fraction is zero
    ],
)
def test_symbolic_form_equals_the_network(size, times, changes):
    equals_the_network(size, times, changes, (32, 16))


@pytest.mark.parametrize("frame", [(8, 8), (5, 19)])
def test_symbolic_form_equals_the_network_on_tiny_frames(frame):
    """The coarsest level of the operator has a side of one token."""
    equals_the_network((16, 24), [0.5], {}, frame)


def equals_the_network(size, times, changes, frame):
    network, frames = small_stno(**changes), moving_clip(3, *frame).window(1, 3)[None]
    torch.nn.init.normal_(network.query.colour.weight, std=0.1)
    with torch.no_grad():
        expected = network(frames, times=times, size=size)
        restored = FreeGraph(network.exportable(True, frame))(frames, torch.tensor(times), torch.tensor(size))
        assert (restored - expected).abs().max() < 1e-5
        assert torch.equal(network(frames, times=times, size=size), expected)  # the network itself is unchanged


@pytest.mark.skipif(not installed, reason="needs onnx, onnxscript and onnxruntime")
def test_dynamic_graph_is_traced_at_two_multiples_or_more(tmp_path):
    with pytest.raises(InputError, match="trace at 16 16 or more"):
        export(small_stno(), tmp_path / "model.onnx", (8, 16), free=True)


def test_sizes_that_do_not_fit(tmp_path):
    if installed:
        with pytest.raises(InputError, match="multiples of 8"):
            export(small_stno(), tmp_path / "model.onnx", (12, 16))


@pytest.mark.skipif(not installed, reason="needs onnx, onnxscript and onnxruntime")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keys": 1}, "at least 2 key frames"),
        ({"times": (1.5,)}, "between 0 and 1"),
        ({"times": (0.5, 0.2)}, "ascending"),
        ({"scale": 0.0}, "--scale 0"),
        ({"scale": float("nan")}, "--scale nan"),
        ({"scale": 0.001}, "leaves no pixels"),
    ],
)
def test_wrong_arguments_are_refused_before_the_export(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        export(small_stno(), tmp_path / "model.onnx", (16, 16), **arguments)


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(engine.export.to_onnx, "PACKAGES", ("no_such_package",))
    with pytest.raises(InputError, match="pip install no_such_package"):
        export(small_stno(), tmp_path / "model.onnx", (16, 16))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weight", "mtdo_s", "--scale", "2"], "--scale: is for space-time networks"),
        (["--weight", "mtdo_s", "--times", "0.5"], "--times: is for space-time networks"),
        (["--weight", "stno_s", "--free", "--scale", "2"], "--scale: with --free"),
    ],
)
def test_options_without_effect_are_refused(tmp_path, monkeypatch, words, message):
    monkeypatch.setattr("sys.argv", ["export", "--out", str(tmp_path / "a.onnx"), *words])
    monkeypatch.setattr(to_onnx, "export", lambda *_, **options: 0.0)
    with pytest.raises(InputError, match=message):
        to_onnx.main()


@pytest.mark.parametrize(("name", "message"), [("a.safetensors", "ends with .onnx"), ("a.onnx", "use --overwrite")])
def test_existing_files_are_not_replaced(tmp_path, monkeypatch, name, message):
    (tmp_path / name).write_bytes(b"mine")
    monkeypatch.setattr("sys.argv", ["export", "--weight", "mtdo_s", "--out", str(tmp_path / name)])
    with pytest.raises(InputError, match=message):
        to_onnx.main()
    assert (tmp_path / name).read_bytes() == b"mine"
