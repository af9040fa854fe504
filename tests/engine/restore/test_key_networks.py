"""Key frames by a window network, in place of those of a space-time network."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

import av
import pytest
import torch

from data.clips import VideoClip
from engine.checkpoint import load_network, save_weights
from engine.config import config_from_mapping
from engine.restore import Options, restore
from engine.restore.filter_frames import REACH, affordable_steps, reach
from engine.restore.temporal_filter import TemporalFilter
from engine.restore.timing import Clock
from engine.restore.work import _in_order, key_network
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


@pytest.mark.parametrize(
    ("times", "weight"),
    [((0.5,), 0.15), ((0.2, 0.5, 0.8), 0.45), (tuple(n / 9 for n in range(1, 9)), 1.0), ([[0.5], [], [0.3, 0.6]], 0.3)],
)
def test_key_frames_are_those_of_the_window_network(tmp_path: Path, times: Any, weight: float) -> None:
    network, clip = opened(tmp_path), moving_clip(frames=4, height=24, width=32)
    frames = list(restore(network, clip, times=times, temporal_filter="none"))
    gaps = [
        len(gap) if isinstance(gap, list) else len(times) for gap in (times if isinstance(times, list) else [0] * 3)
    ]
    starts = [0, *accumulate(1 + count for count in gaps)]
    for start, frame in zip(starts, restore(network.key_networks[0], clip, temporal_filter="none"), strict=True):
        frames[start] = frame
    steps = [1] if isinstance(times, list) else affordable_steps((96, 128), 1 + len(times))
    method = TemporalFilter("clean", len(frames), clip.size, steps=steps, intermediate=weight)
    method.keep(
        (number, clip.frame(starts.index(number)) if number in starts else None) for number in range(len(frames))
    )
    expected = torch.stack(list(method(range(len(frames)), iter(frames))))
    torch.testing.assert_close(torch.stack(list(restore(network, clip, times=times))), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("frames", "times"),
    [(2, (0.5,)), (9, (0.25, 0.5)), (5, [[0.5], [], [0.3, 0.6], []]), (5, [[], [], [], [0.5]]), (3, [[], []])],
)
def test_the_space_time_network_queries_only_intermediate_frames(tmp_path: Path, frames: int, times: Any) -> None:
    """9 frames: the second chunk has the last key frame only."""
    network, clip, queried = opened(tmp_path), moving_clip(frames=frames, height=24, width=32), []
    network.query.register_forward_pre_hook(lambda _, arguments: queried.append(len(arguments[0])))
    count = sum(map(len, times)) if isinstance(times, list) else (frames - 1) * len(times)
    clock = Clock()
    assert len(list(restore(network, clip, times=times, clock=clock))) == frames + count
    assert sum(queried) == count and clock.reading()[1] == frames + count
    queried.clear()
    network.key_networks = []
    list(restore(network, clip, times=times))
    assert sum(queried) == frames + count


def test_key_frames_follow_the_device_of_the_space_time_network() -> None:
    """On a GPU the frames of the space-time network are still there, those of the key network are on the CPU."""
    parts = [torch.empty(1, 3, 4, 4, device="meta"), torch.empty(0, 3, 4, 4, device="meta")]
    keys = iter(torch.zeros(3, 3, 4, 4))
    found = list(_in_order(iter(parts), [range(2), range(2, 3)], [0, 2, 3, 4], range(4), keys))
    assert [frame.device.type for frame in found] == ["meta"] * 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("tile", [None, 64])
def test_restoring_on_a_gpu_follows_the_cpu(tmp_path: Path, tile: int | None) -> None:
    clip, options = moving_clip(12, 48, 96), Options(tile=tile, overlap=16)
    expected = torch.stack(list(restore(opened(tmp_path), clip, device="cpu", options=options)))
    found = torch.stack(list(restore(opened(tmp_path), clip, device="cuda", options=options)))
    assert float((found - expected).abs().max()) < 5e-3  # TF32 in convolutions


def test_without_new_frames_the_window_network_does_all(tmp_path: Path) -> None:
    network, clip = opened(tmp_path), moving_clip(frames=3, height=24, width=32)
    expected = torch.stack(list(restore(network.key_networks[0], clip, temporal_filter="clean")))
    assert torch.equal(torch.stack(list(restore(network, clip, times=()))), expected)


def test_the_two_networks_read_a_video_separately(tmp_path: Path) -> None:
    """Both read ahead in threads of their own, at different places of the video."""
    network, clip = opened(tmp_path), moving_clip(frames=30, height=32, width=48)
    with av.open(str(tmp_path / "clip.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=25, width=48, height=32, pix_fmt="bgr0")
        for index in range(len(clip)):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(clip.array(index), format="rgb24")))
        out.mux(stream.encode())
    clock = Clock()
    frames = torch.stack(list(restore(network, VideoClip(tmp_path / "clip.mkv"), clock=clock)))
    torch.testing.assert_close(frames, torch.stack(list(restore(network, clip))), atol=1e-5, rtol=0)
    assert clock.reading()[1] == len(frames)


def test_reach_is_that_of_the_network_in_use(tmp_path: Path) -> None:
    network = opened(tmp_path)
    used = [key_network(network, (24, 32), out, "clean") or network for out in ((96, 128), (48, 64))]
    assert [reach(each, "clean", 4) for each in used] == [1 + REACH, 4 + REACH]


def test_turned_off(tmp_path: Path) -> None:
    network = opened(tmp_path)
    network.set_restore_settings({"key_weights": []})
    assert not network.key_networks


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
    with pytest.raises(InputError, match="which is not in its folder: copy it there, or use none"):
        load_network(saved(tmp_path, ["other.safetensors"]))
    with pytest.raises(InputError, match="holds STNO weights: key frames need a window network"):
        load_network(saved(tmp_path, ["space_time.safetensors"]))
    long = "a" * 300 + ".safetensors"
    wrong = [
        "../a.safetensors",
        "a.pth",
        "a\\b.safetensors",
        "a\nb.safetensors",
        "C:a.safetensors",
        ".safetensors",
        long,
    ]
    for names in (*([name] for name in wrong), ["a.safetensors"] * 2, [f"{n}.safetensors" for n in range(9)]):
        with pytest.raises(InputError, match="files in the folder of the weights"):
            saved(tmp_path, names)
    with pytest.raises(InputError, match="key_weights' has no effect: it is for space-time networks"):
        config_from_mapping({"network": {"name": "mtdo"}}, ["data.key_weights=[a.safetensors]"])
