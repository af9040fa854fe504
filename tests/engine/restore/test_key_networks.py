"""Key frames by a window network, in place of those of a space-time network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.checkpoint import load_network, save_weights
from engine.config import config_from_mapping
from engine.restore import Options, restore
from engine.restore.temporal_filter import INTERMEDIATE, TemporalFilter
from errors import InputError
from models.base import SpaceTimeNetwork
from tests.engine.small import moving_clip, small_mtdo, small_stno


def saved(folder: Path, names: list[str], temporal_filter: str = "clean") -> Path:
    """Weights of a space-time network and, in the same folder, of a window network for x4."""
    save_weights(folder / "window.safetensors", small_mtdo(scale=4))
    network = small_stno()
    network.set_restore_settings({"key_weights": names, "temporal_filter": temporal_filter})
    save_weights(folder / "space_time.safetensors", network)
    return folder / "space_time.safetensors"


def opened(folder: Path) -> SpaceTimeNetwork:
    network = load_network(saved(folder, ["window.safetensors"]))
    assert isinstance(network, SpaceTimeNetwork)
    return network


def test_key_frames_are_those_of_the_window_network(tmp_path: Path) -> None:
    network, clip = opened(tmp_path), moving_clip(frames=4, height=24, width=32)
    keys = list(restore(network.key_networks[0], clip, temporal_filter="none"))
    frames: list[Tensor] = list(restore(network, clip, temporal_filter="none"))
    frames[::2] = keys
    method = TemporalFilter("clean", len(frames), clip.size, intermediate=INTERMEDIATE)
    method.keep((number, clip.frame(number // 2) if number % 2 == 0 else None) for number in range(len(frames)))
    expected = torch.stack(list(method(range(len(frames)), iter(frames))))
    torch.testing.assert_close(torch.stack(list(restore(network, clip))), expected)


def test_result_does_not_depend_on_the_first_frame(tmp_path: Path) -> None:
    network, clip = opened(tmp_path), moving_clip(frames=8, height=24, width=32)
    options = Options(chunk=2, context=8)
    full = torch.stack(list(restore(network, clip, times=(0.25, 0.5), options=options)))
    part = torch.stack(list(restore(network, clip, times=(0.25, 0.5), frames=range(4, 6), options=options)))
    torch.testing.assert_close(part, full[12:18], atol=2e-5, rtol=0)


@pytest.mark.parametrize(("size", "form"), [((48, 64), "clean"), (None, "none")])
def test_other_sizes_and_no_filter_are_left_to_the_space_time_network(
    tmp_path: Path, size: tuple[int, int] | None, form: str
) -> None:
    network, clip = opened(tmp_path), moving_clip(frames=3, height=24, width=32)
    pair = torch.stack(list(restore(network, clip, size=size, temporal_filter=form)))
    network.key_networks = []
    assert torch.equal(pair, torch.stack(list(restore(network, clip, size=size, temporal_filter=form))))


def test_weights_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which is not in its folder: copy it there, or make weights"):
        load_network(saved(tmp_path, ["other.safetensors"]))
    with pytest.raises(InputError, match="holds STNO weights: key frames need a window network"):
        load_network(saved(tmp_path, ["space_time.safetensors"]))
    for name in ("../window.safetensors", "window.pth", "a\\b.safetensors"):
        with pytest.raises(InputError, match="files in the folder of the weights"):
            saved(tmp_path, [name])
    with pytest.raises(InputError, match="key_weights' has no effect: it is for space-time networks"):
        config_from_mapping({"network": {"name": "mtdo"}}, ["data.key_weights=[a.safetensors]"])
