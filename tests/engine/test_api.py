"""The Python API (arrays in, arrays out) and torch.hub."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.clips import ArrayClip
from engine import api
from engine.restore import memory, restore
from errors import InputError

ROOT = Path(__file__).parents[2]


def frames(dtype: Any = np.uint8, count: int = 3, channels: tuple[int, ...] = (3,)) -> np.ndarray:
    values = np.random.default_rng(0).random((count, 16, 18, *channels))
    return (values * np.iinfo(dtype).max).astype(dtype) if np.issubdtype(dtype, np.integer) else values.astype(dtype)


@pytest.fixture(scope="module")
def mtdo() -> torch.nn.Module:
    return api.load_network("mtdo_s")


@pytest.fixture(scope="module")
def stno() -> torch.nn.Module:
    return api.load_network("stno_s")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_dtype_of_the_frames_is_kept(mtdo: torch.nn.Module, dtype: Any) -> None:
    large = api.upscale_array(frames(dtype), mtdo)
    assert large.shape == (3, 64, 72, 3) and large.dtype == dtype
    scale = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1.0
    exact = api.upscale_array((frames(dtype) / scale).astype(np.float32), mtdo)
    np.testing.assert_allclose(large / scale, exact, atol=0.51 / scale + 1e-6)


def test_frames_equal_restore(mtdo: torch.nn.Module) -> None:
    expected = torch.stack(list(restore(mtdo, ArrayClip("x", frames()))))
    large = api.upscale_array(frames(np.uint8), mtdo)
    np.testing.assert_array_equal(large, (expected.clamp(0, 1) * 255).round().byte().movedim(1, -1).numpy())


@pytest.mark.parametrize("name", ["mtdo_s", "stno_s"])
def test_default_type_of_another_program_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.set_default_dtype(torch.float64)` in the program that calls us; also without our compiled operators."""
    settings: dict[str, Any] = {"times": [0.5], "scale": 2.5} if name == "stno_s" else {}
    expected = api.upscale_array(frames(np.float32), name, **settings)
    torch.set_default_dtype(torch.float64)
    try:
        np.testing.assert_array_equal(api.upscale_array(frames(np.float32), name, **settings), expected)
        monkeypatch.setenv("DCN_BACKEND", "plain")
        np.testing.assert_allclose(api.upscale_array(frames(np.float32), name, **settings), expected, atol=1e-4)
    finally:
        torch.set_default_dtype(torch.float32)


def test_tiles_are_used_when_memory_is_short(mtdo: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = np.tile(frames(np.float32, count=1), (1, 1, 5, 1))  # 16x90
    full = api.upscale_array(wide, mtdo, tile=None)
    np.testing.assert_array_equal(api.upscale_array(wide, mtdo), full)
    monkeypatch.setattr(memory, "free_memory", lambda device: 1e6)
    tiled = api.upscale_array(wide, mtdo)
    np.testing.assert_array_equal(tiled, api.upscale_array(wide, mtdo, tile=64))
    assert not np.array_equal(tiled, full)
    np.testing.assert_allclose(tiled, full, atol=0.05)


def test_gray_frames_and_other_axes(mtdo: torch.nn.Module) -> None:
    gray = frames(np.float32, channels=())
    large = api.upscale_array(gray, mtdo, channel_axis=None)
    colour = api.upscale_array(np.repeat(gray[..., None], 3, axis=-1), mtdo)
    assert large.shape == (3, 64, 72)
    np.testing.assert_allclose(large, colour.mean(-1), atol=1e-5)
    first = api.upscale_array(np.moveaxis(frames(), -1, 1), mtdo, channel_axis=1)
    np.testing.assert_array_equal(np.moveaxis(first, 1, -1), api.upscale_array(frames(), mtdo))


def test_any_scale_and_new_frames() -> None:
    stno = api.load_network("stno_s")
    stno.set_restore_settings(
        {"temporal_filter": "none"}
    )  # with it, key frames depend on the intermediate frames around them
    keys = api.upscale_array(frames(np.float32), stno, scale=2.5)
    dense = api.upscale_array(frames(np.float32), stno, scale=2.5, times=[0.25, 0.75])
    assert keys.shape == (3, 40, 45, 3) and dense.shape == (7, 40, 45, 3)
    assert api.upscale_array(frames(), stno).shape == (3, 64, 72, 3)
    np.testing.assert_allclose(dense[::3], keys, atol=2e-3)  # the flows depend weakly on the times (docs/stno.md)


@pytest.mark.parametrize(
    ("array", "keywords", "message"),
    [
        (frames()[0], {}, r"a single image needs a first axis"),
        (frames(np.float32, channels=()), {}, r"grey frames channel_axis=None"),
        (frames(channels=(4,)), {}, r"expected 3 colours along axis -1, got 4"),
        (frames().astype(np.int64), {}, r"got int64"),
        (frames().tolist(), {}, r"expected a NumPy array, got list"),
        (frames().astype(np.float32), {}, r"finite and in \[0, 1\]"),
        (frames(np.float32) * np.nan, {}, r"finite and in \[0, 1\]"),
        (frames(count=0), {}, r"is empty"),
        (frames(), {"scale": 3}, r"support scale 4 only, got 3"),
        (frames(), {"scale": float("nan")}, r"is too small"),
        (frames(), {"times": [0.5]}, r"no intermediate frames"),
        (frames(), {"precision": "fp8"}, r"precision 'fp8' is unknown"),
        (frames(), {"precision": "auto"}, r"auto is for upscale\.py"),
        (frames(), {"tile": 0}, r"tile: expected an integer from 64"),
        (frames(), {"tile": "large"}, r"got 'large'"),
        (frames(), {"scale": "4"}, r"scale: expected a number, got '4'"),
        (frames(), {"times": 0.5}, r"times: expected a list of numbers"),
        (frames(), {"times": ["a"]}, r"times: expected a list of numbers"),
        (frames(), {"channel_axis": 4}, r"-4 to 3, got 4"),
        (frames(), {"device": "gpu"}, r"device 'gpu' is unknown"),
    ],
)
def test_wrong_frames_are_refused(mtdo: torch.nn.Module, array: Any, keywords: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        api.upscale_array(array, mtdo, **keywords)


def test_network_keeps_its_mode_and_needs_float32(mtdo: torch.nn.Module) -> None:
    network = deepcopy(mtdo).train()
    np.testing.assert_array_equal(api.upscale_array(frames(), network), api.upscale_array(frames(), mtdo))
    assert network.training and network.reconstruction.training and not mtdo.training
    with pytest.raises(InputError, match=r"expected float32 weights, got float64: convert it by network\.float"):
        api.upscale_array(frames(), network.double())


def test_output_that_is_not_finite_is_refused(mtdo: torch.nn.Module) -> None:
    broken = deepcopy(mtdo)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match="output frame 0 is not finite: check the weights"):
        api.upscale_array(np.zeros((1, 16, 16, 3), np.uint8), broken)


@pytest.mark.parametrize("times", [[0.5, 0.25], [0.5, 0.5], [0.0], [1.0]])
def test_wrong_times_are_refused(stno: torch.nn.Module, times: list[float]) -> None:
    with pytest.raises(InputError, match=r"ascending numbers between 0 and 1"):
        api.upscale_array(frames(), stno, times=times)


def test_space_time_networks_need_two_frames(stno: torch.nn.Module) -> None:
    with pytest.raises(InputError, match=r"at least 2 key frames"):
        api.upscale_array(frames(count=1), stno, times=[0.5])
    assert len(api.upscale_array(frames(count=1), stno)) == 1  # by its key network


def test_weights_by_name_or_path(mtdo: torch.nn.Module) -> None:
    assert {"mtdo_s", "mtdo_s_free", "mtdo_s_x2", "mtdo_s_x3", "stno_s"} <= set(api.released())
    again = api.load_network(ROOT / "checkpoints" / "mtdo_s.safetensors")
    assert again.config == mtdo.config and not again.training
    with pytest.raises(InputError, match=r"weights 'nothing': expected a file or one of .*mtdo_s"):
        api.load_network("nothing")


def test_an_install_without_the_clone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.files.REPOSITORY", tmp_path)  # `pip install .` copies the packages without checkpoints/
    with pytest.raises(InputError, match=r"no released weights: install the clone with `pip install -e \.`"):
        api.load_network("mtdo_s")


HUB = """
import sys, torch, numpy
root = sys.argv[1]

for name in ("mtdo_s_x2", "stno_s"):
    network = torch.hub.load(root, name, source="local")
    assert not network.training
small = torch.hub.load(root, "mtdo", source="local", channels=16, frames=3, hat={"embed": 32, "depths": [1], "heads": 2})
assert small.config.frames == 3
from engine.api import upscale_array  # stays importable
network = torch.hub.load(root, "mtdo_s", source="local")
print(upscale_array(numpy.zeros((1, 16, 16, 3), numpy.uint8), network).shape)
"""


def test_torch_hub_from_another_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HUB, str(ROOT)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "(1, 64, 64, 3)"


def test_torch_hub_next_to_another_project(tmp_path: Path) -> None:
    tmp_path.joinpath("models").mkdir()
    tmp_path.joinpath("models", "mine.py").write_text("mine = 1\n")
    code = f"import models.mine, torch; torch.hub.load({str(ROOT)!r}, 'mtdo_s', source='local')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 1
    assert "a module 'models' is already imported from" in done.stderr.strip().split("\n")[-1]


def test_hub_entries_refuse_weights_of_the_other_network() -> None:
    import hubconf

    with pytest.raises(ValueError, match="holds weights of mtdo, not of stno"):
        hubconf.stno("mtdo_s")
    with pytest.raises(ValueError, match="leave frames out"):
        hubconf.mtdo("mtdo_s", frames=3)
    assert hubconf.mtdo("mtdo_s").config == hubconf.mtdo_s().config
