"""The spacing of the frames of a window: fixed and automatic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data.clips import ArrayClip, neighbours
from data.media import write_image
from engine.config import StageConfig, config_from_mapping
from engine.restore import restore
from engine.restore import spacing as spacing_module
from engine.restore.memory import bytes_per_pixel
from engine.restore.spacing import FrameLuma, WindowChooser
from engine.sources import build_dataset, training_pairs
from errors import InputError
from tests.engine.conftest import tiny_mapping
from tests.engine.small import small_mtdo

WIDEST, MOST_MOTION = 3, 0.35


@pytest.fixture(autouse=True)
def limits(monkeypatch):
    """Lower limits, so that the rules can be tested on short clips."""
    monkeypatch.setattr(spacing_module, "WIDEST", WIDEST)
    monkeypatch.setattr(spacing_module, "MOST_MOTION", MOST_MOTION)


def scene(shifts, seed=0, noise=0.0):
    """A clip of 24x40 pixels, a sum of waves along x; frame k is shifted by shifts[k] pixels, then noise is added and 8 bits kept."""
    random = np.random.default_rng(seed)
    waves = [(length, random.uniform(0, 6.28)) for length in (11, 14, 19, 24, 31)]
    x = np.arange(40)[None] + np.zeros((24, 1))
    frames = []
    for shift in shifts:
        view = 128 + sum(20 * np.sin(2 * np.pi * (x - shift) / length + phase) for length, phase in waves)
        view = view + noise * random.standard_normal(view.shape)
        frames.append(np.repeat(view[..., None], 3, axis=2).round().clip(0, 255).astype(np.uint8))
    return ArrayClip("scene", np.stack(frames))


def windows(clip, frames=3, padding="reflect"):
    chooser = WindowChooser(frames, "auto", len(clip), padding)
    return [chooser.window(index, clip.frame) for index in range(len(clip))]


@pytest.mark.parametrize("shift", [0.1, 0.2, 0.4])
def test_small_displacements_are_measured(shift):
    clip = scene([0, shift])
    assert FrameLuma(clip.frame(0)).displacement(FrameLuma(clip.frame(1))) == pytest.approx(shift, rel=0.15)


def test_displacement_ignores_brightness():
    clip = scene([0, 0])
    assert FrameLuma(clip.frame(0)).displacement(FrameLuma(clip.frame(1))) == 0
    assert FrameLuma(clip.frame(0)).displacement(FrameLuma(clip.frame(1) + 0.1)) < 1e-5


def test_displacement_of_unrelated_frames_is_large():
    assert FrameLuma(scene([0]).frame(0)).displacement(FrameLuma(scene([0], seed=9).frame(0))) > 2 * MOST_MOTION
    flat = FrameLuma(torch.full((3, 8, 8), 0.5))
    assert flat.displacement(flat) == 0 and flat.displacement(FrameLuma(torch.rand(3, 8, 8))) == float("inf")


@pytest.mark.parametrize(("speed", "spacing"), [(0.0, 3), (0.1, 3), (0.15, 2), (0.25, 1), (3.0, 1)])
def test_slower_motion_widens_the_window(speed, spacing):
    assert windows(scene(speed * np.arange(9)))[4] == [4 - spacing, 4, 4 + spacing]


def test_windows_at_the_ends_of_a_clip():
    """The spacing shrinks where mirroring would put a frame on the centre or closer to it than the spacing."""
    found = windows(scene(np.zeros(8)))
    assert found[:4] == [[3, 0, 3], [0, 1, 2], [0, 2, 4], [0, 3, 6]]
    assert found[-4:] == [[1, 4, 7], [3, 5, 7], [5, 6, 7], [4, 7, 4]]
    assert windows(scene(np.zeros(8)), padding="replicate")[:2] == [[0, 0, 1], [0, 1, 2]]
    for length in (1, 2):
        assert windows(scene(np.zeros(length))) == [neighbours(index, 3, length) for index in range(length)]


def test_windows_avoid_scene_cuts():
    other = scene(np.zeros(6), seed=9)
    both = ArrayClip("cut", np.concatenate([np.stack([scene([0]).array(0)] * 6), np.stack([other.array(0)] * 6)]))
    found = windows(both)
    assert found[3:5] == [[1, 3, 5], [3, 4, 5]] and found[5] == [4, 5, 6]
    assert found[2] == [0, 2, 4] and found[8] == [6, 8, 10]


def test_five_frames_stay_within_reach():
    clip = scene(0.05 * np.arange(15))
    assert windows(clip, frames=5)[7] == [1, 4, 7, 10, 13]
    assert windows(scene(0.15 * np.arange(15)), frames=5)[7] == [3, 5, 7, 9, 11]
    assert windows(scene(0.2 * np.arange(15)), frames=5)[7] == [5, 6, 7, 8, 9]


def test_distinct_padding_keeps_the_spacing_at_the_ends():
    found = windows(scene(np.zeros(16)), frames=5, padding="distinct")
    assert found[0] == [5, 2, 0, 3, 6] and found[2] == [7, 4, 2, 5, 8] and found[15] == [9, 12, 15, 13, 10]
    assert windows(scene(np.zeros(4)), frames=5, padding="distinct")[0] == neighbours(0, 5, 4, "distinct")


def test_noise_increases_the_displacement():
    assert windows(scene(np.zeros(9), noise=1.0))[4] == [1, 4, 7]
    assert windows(scene(np.zeros(9), noise=20.0))[4] == [3, 4, 5]


@pytest.mark.parametrize("spacing", [2, "auto"])
def test_restore_uses_these_windows(spacing):
    network, clip = small_mtdo(spacing=spacing), scene(0.15 * np.arange(9))
    restored = torch.stack(list(restore(network, clip)))
    chosen = WindowChooser(3, spacing, 9, "reflect")
    for index in range(9):
        numbers = chosen.window(index, clip.frame)
        assert spacing == "auto" or numbers == neighbours(index, 3, 9, spacing=2)
        with torch.no_grad():
            expected = network(torch.stack([clip.frame(number) for number in numbers])[None])[0]
        torch.testing.assert_close(restored[index], expected, atol=2e-5, rtol=0)


def test_result_does_not_depend_on_the_first_frame():
    network, clip = small_mtdo(spacing="auto"), scene(0.12 * np.arange(12) ** 1.4)
    assert len({tuple(np.diff(window)) for window in windows(clip)}) > 2
    full = list(restore(network, clip))
    for start, stop in ((3, 8), (7, 12)):
        assert all(
            torch.equal(a, b)
            for a, b in zip(full[start:stop], restore(network, clip, frames=range(start, stop)), strict=True)
        )


def test_frames_are_decoded_once():
    clip, asked = scene(np.zeros(12)), []
    frame = clip.frame
    clip.frame = lambda index: (asked.append(index), frame(index))[1]
    assert len(list(restore(small_mtdo(spacing="auto"), clip))) == 12
    assert sorted(asked) == list(range(12))


@pytest.mark.parametrize(("spacing", "numbers"), [(2, [1, 3, 5]), ("auto", [2, 3, 4])])
def test_training_windows(tmp_path, spacing, numbers):
    frames = [np.full((64, 64, 3), 20 * index, np.uint8) for index in range(7)]
    for index, frame in enumerate(frames):
        write_image(tmp_path / "clip" / f"{index:08d}.png", frame)
    mapping = tiny_mapping(tmp_path / "runs")
    mapping["data"] |= {"train": {"root": str(tmp_path)}, "spacing": spacing}
    config = config_from_mapping(mapping, ["data.reverse_time=false"])
    dataset = build_dataset(training_pairs(config)[0], config, StageConfig(1), None)
    key = next(key for step in range(50) if (key := dataset.draw(0, step, 0, step)).frame == 3)
    assert dataset[key]["lr"][:, 0, 0, 0].tolist() == [20 * number for number in numbers]


@pytest.mark.parametrize("value", [0, -1, "wide"])
def test_wrong_spacings_are_refused(tmp_path, value):
    mapping = tiny_mapping(tmp_path)
    with pytest.raises(InputError, match="spacing"):
        config_from_mapping(mapping, [f"data.spacing={value}"])


def test_spacing_in_the_network_group_of_earlier_configs(tmp_path):
    mapping = tiny_mapping(tmp_path)
    mapping["network"] = {**mapping["network"], "spacing": 2}
    assert config_from_mapping(mapping).data.spacing == 2
    assert config_from_mapping(mapping, ["network.spacing=auto"]).data.spacing == "auto"


def test_memory_is_planned_for_the_widest_window():
    assert WindowChooser(5, "auto", 99, "reflect").reach == 2 * WIDEST and WindowChooser(3, 4, 99, "reflect").reach == 4
    near, apart, auto = (bytes_per_pixel(small_mtdo(spacing=spacing)) for spacing in (1, WIDEST, "auto"))
    assert apart == auto == near + 4 * 8 * 3 * 2 * (WIDEST - 1)  # float32, channels, maps, frames skipped on both sides


def test_padding_comes_from_the_weights():
    network, clip = small_mtdo(padding="distinct"), scene(np.arange(5))
    first, mirrored = (next(restore(network, clip, padding=padding)) for padding in (None, "reflect"))
    expected = [network(torch.stack([clip.frame(k) for k in window])[None])[0] for window in ([2, 0, 1], [1, 0, 1])]
    torch.testing.assert_close(first, expected[0], atol=2e-5, rtol=0)
    torch.testing.assert_close(mirrored, expected[1], atol=2e-5, rtol=0)
