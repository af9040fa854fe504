"""A new network works with the complete engine after adding a module, a line in `models.NETWORKS` and a YAML file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import cli
import models
from data.media import read_image, write_image
from engine.checkpoint import load_network, save_weights
from engine.config import load_config
from engine.evaluate import scripts
from engine.evaluate.options import evaluation_parser
from engine.export.to_onnx import PACKAGES, TOLERANCE, export
from engine.report.cost import gmac_per_frame
from engine.restore import Options, restore
from engine.train.loop import train
from engine.train.validation import FINAL
from engine.upscale.request import Request
from engine.upscale.run import upscale
from errors import InputError
from tests.engine.conftest import tiny_mapping
from tests.engine.small import moving_clip
from tests.third_network import LINES

CPU = torch.device("cpu")
SPACE_TIME = {"key_frames": 2, "scales": [2.0, 2.0], "strides": [2]}
installed = all(importlib.util.find_spec(name) for name in PACKAGES)


@pytest.fixture(autouse=True)
def two_more_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, line in LINES.items():
        monkeypatch.setitem(models.NETWORKS, name, line)


def small(name: str):
    torch.manual_seed(0)
    return models.build({"name": name}).eval()


def yaml_file(folder: Path, name: str) -> Path:
    mapping = {**tiny_mapping(folder / "runs"), "network": {"name": name}}
    mapping["data"] |= SPACE_TIME if name == "blend" else {"spacing": 2}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(mapping))
    return path


@pytest.mark.parametrize("name", LINES)
def test_training_evaluation_and_loading(name: str, tmp_path: Path) -> None:
    config = load_config(yaml_file(tmp_path, name), ["train.steps=2", "train.precision=bf16", "eval.frames=3"])
    before = models.build(config.network).state_dict()
    report = train(config, tmp_path / "run")
    assert np.isfinite(report["mean"]["psnr_y"]) and report["network"]["name"] == name
    network = load_network(tmp_path / "run" / FINAL)
    assert type(network) is LINES[name].network
    assert network.spacing == (None if name == "blend" else 2)
    assert network.state_dict().keys() == before.keys()


@pytest.mark.parametrize("name", LINES)
def test_evaluation_scripts(name: str, tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", small(name))
    options = cli.parse(evaluation_parser("Test.", "", "runs/test"), ["--weight", str(tmp_path / "w.safetensors")])
    network, config, _ = scripts.prepare(options, space_time=name == "blend")
    assert config.network == network.config
    with pytest.raises(InputError, match=f"{name.upper()} weights, .*: evaluate them with"):
        scripts.prepare(options, space_time=name != "blend")


@pytest.mark.parametrize("how", [
    {}, {"tile": 64, "overlap": 24}, {"ensemble": True}, {"precision": "bf16"}, {"workers": 2},
], ids=str)  # fmt: skip
def test_restored_windows_equal_the_network(how: dict) -> None:
    network, clip = small("three"), moving_clip(5, 40, 100)
    restored = torch.stack(list(restore(network, clip, options=Options(**how))))
    windows = torch.stack([clip.window(index, 3) for index in range(5)])
    with torch.no_grad():
        if how.get("ensemble"):
            positions = [(x, orientation) for x in (windows, windows.flip(-1)) for orientation in range(4)]
            expected = [torch.rot90(network(torch.rot90(x, t, (-2, -1))), -t, (-2, -1)) for x, t in positions]
            expected = torch.stack([x.flip(-1) if k >= 4 else x for k, x in enumerate(expected)]).mean(0)
        else:
            expected = network(windows)
    torch.testing.assert_close(restored, expected, atol=3e-3 if "precision" in how else 1e-5, rtol=0)


@pytest.mark.parametrize("how", [{}, {"tile": 64, "overlap": 16}, {"chunk": 2, "context": 1}], ids=str)
def test_restored_key_frames_equal_the_network(how: dict) -> None:
    network, clip = small("blend"), moving_clip(5, 40, 100)
    restored = restore(network, clip, times=(0.25, 0.5), size=(80, 200), options=Options(**how))
    with torch.no_grad():
        expected = network(torch.stack([clip.frame(k) for k in range(5)])[None], (0.25, 0.5), (80, 200))[0]
    torch.testing.assert_close(torch.stack(list(restored)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "frames"), [("three", 4), ("blend", 7)])
def test_upscale(name: str, frames: int, tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", small(name))
    for index in range(4):
        write_image(tmp_path / "in" / f"{index}.png", moving_clip(4, 16, 24).array(index))
    more = {"scale": 1.5, "times": (0.5,)} if name == "blend" else {"spacing": 2}
    upscale(Request(tmp_path / "in", tmp_path / "out", tmp_path / "w.safetensors", precision="auto", **more))
    made = sorted((tmp_path / "out").iterdir())
    assert len(made) == frames
    assert read_image(made[0]).shape == ((24, 36, 3) if name == "blend" else (32, 48, 3))


@pytest.mark.parametrize("more, message", [
    ({"times": (0.5,)}, "holds THREE weights, which make no intermediate frames"),
    ({"scale": 4.0}, "is for scale 2, but 4 was requested"),
])  # fmt: skip
def test_upscale_refuses_unsupported_options(more: dict, message: str, tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", small("three"))
    write_image(tmp_path / "in" / "0.png", moving_clip(1, 16, 24).array(0))
    with pytest.raises(InputError, match=message):
        upscale(Request(tmp_path / "in", tmp_path / "out", tmp_path / "w.safetensors", **more))


@pytest.mark.parametrize("name, key, message", [
    ("three", "loss.lr_warp=1", "is for space-time networks, not for three"),
    ("three", "train.stages=[{steps: 1, operator_only: true}]", "operator_only is not for 'three'"),
    ("blend", "train.stages=[{steps: 1, operator_only: true}]", "operator_only is not for 'blend'"),
    ("blend", "loss.lr_intermediate=1", "'blend' makes no flows and intermediate frames"),
    ("blend", "data.spacing=2", "data.spacing"),
    ("three", "network.chanels=8", "did you mean 'channels'"),
])  # fmt: skip
def test_configs_refuse_unsupported_keys(name: str, key: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        train(load_config(yaml_file(tmp_path, name), [key]), tmp_path / "run")


def test_published_weights_are_refused() -> None:
    with pytest.raises(InputError, match="no published weights of 'three'"):
        models.load_official("three", {})


def test_multiplications_are_counted() -> None:
    assert gmac_per_frame(small("three"), 16, 16) == pytest.approx(16 * 16 * 9 * (9 * 4 + 4 * 4 + 4 * 12) / 1e9)
    assert gmac_per_frame(small("blend"), 16, 16) == pytest.approx(16 * 16 * 9 * 9 / 1e9)


@pytest.mark.skipif(not installed, reason="needs onnx, onnxscript and onnxruntime")
def test_export(tmp_path: Path) -> None:
    assert export(small("three"), tmp_path / "three.onnx", (8, 10)) <= TOLERANCE / 10
