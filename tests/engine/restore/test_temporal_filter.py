"""The temporal filter of restored frames: less noise, no ghosts, results independent of the first frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import dcn
from engine.config import config_from_mapping
from engine.restore import Options, restore
from engine.restore.filter_frames import REACH, affordable_steps, ascending_runs, key_positions, reach
from engine.restore.temporal_filter import TemporalFilter, _likeness
from errors import InputError
from tests.engine.small import moving_clip, small_mtdo, small_stno


def texture(height: int, width: int, seed: int = 0) -> Tensor:
    """A smooth random image (3, height, width) in [0, 1]."""
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    smooth = F.avg_pool2d(F.pad(noise, (4, 4, 4, 4), mode="circular"), 9, 1)[0]
    return (smooth - smooth.min()) / (smooth.max() - smooth.min())


def filtered(
    lows: Sequence[Tensor], restored: Sequence[Tensor], form: str = "clean", wanted: Sequence[int] = ()
) -> list[Tensor]:
    wanted = wanted or range(len(lows))
    height, width = lows[0].shape[-2:]
    method = TemporalFilter(form, len(lows), (height, width))
    numbers = method.needed(wanted)
    method.keep((number, lows[number]) for number in numbers)
    return list(method(wanted, iter([restored[number] for number in numbers])))


def reduced(frame: Tensor) -> Tensor:
    """(3, H, W) -> (3, H / 2, W / 2)."""
    height, width = frame.shape[-2:]
    return F.interpolate(frame[None], (height // 2, width // 2), mode="bicubic", antialias=True)[0]


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


@pytest.mark.parametrize("form", ["clean", "compressed"])
@pytest.mark.parametrize("step", [0, 3])
def test_independent_errors_are_averaged_along_the_motion(form: str, step: int) -> None:
    """The scene moves by `step` HR pixels a frame, which is not an integer number of LR pixels."""
    scene = texture(128, 128)
    truth = [scene.roll(step * k, -1) for k in range(5)]
    lows = [F.avg_pool2d(frame, 2) for frame in truth]
    generator = torch.Generator().manual_seed(1)
    errors = [0.05 * torch.randn(frame.shape, generator=generator) for frame in truth]
    restored = [frame + error for frame, error in zip(truth, errors, strict=True)]
    inner = (slice(None), slice(16, -16), slice(16, -16))
    ratio = rms((filtered(lows, restored, form)[2] - truth[2])[inner]) / rms(errors[2][inner])
    assert ratio < (0.5 if step == 0 else 0.6)  # five independent errors: 0.447


def test_moving_object_and_cut_leave_no_ghost() -> None:
    scene, other = texture(96, 96), texture(96, 96, seed=5)
    truth = [scene.clone() for _ in range(5)]
    for k, frame in enumerate(truth):
        frame[:, 40:52, 10 + 12 * k : 22 + 12 * k] = 1 - frame[:, 40:52, 10 + 12 * k : 22 + 12 * k]  # 12 pixels a frame
    truth[4] = other
    lows = [reduced(frame) for frame in truth]
    result = filtered(lows, truth)
    assert (result[4] - other).abs().max() < 0.02
    changed = (result[2] - truth[2]).abs()
    assert changed.mean() < 0.005
    assert changed[:, 40:52, 34:46].mean() < 0.03


def test_neighbours_that_match_worse_than_two_others_count_less() -> None:
    """Differences of 2, 3 and 6 levels: squares of 4, 9 and 36. The third has 2 * 9 / 36 of the weight that its difference gives."""
    low = torch.full((3, 8, 8), 0.5)
    weights = _likeness([low + levels / 255 for levels in (2, 3, 6)], low, 7 / 255)
    expected = [math.exp(-4 / 49), math.exp(-9 / 49), math.exp(-36 / 49) / 2]
    torch.testing.assert_close(torch.stack([each.mean() for each in weights]), torch.tensor(expected))


def test_repeated_frames_do_not_weaken_the_other_neighbours() -> None:
    low = torch.full((3, 8, 8), 0.5)
    weights = _likeness([low, low, low + 3 / 255, low - 4 / 255], low, 7 / 255)
    expected = [1, 1, math.exp(-9 / 49), math.exp(-16 / 49)]
    torch.testing.assert_close(torch.stack([each.mean() for each in weights]), torch.tensor(expected))


def test_low_contrast_makes_the_filter_stricter() -> None:
    """Data with a tenth of the contrast are filtered in the same way: a moving object is not averaged away."""
    results = []
    for gain in (1.0, 0.1):
        frames = [texture(64, 64) * gain for _ in range(3)]
        frames[1] = frames[1].clone()
        frames[1][:, 20:40, 20:40] = gain - frames[1][:, 20:40, 20:40]
        lows = [F.avg_pool2d(frame, 2) for frame in frames]
        results.append(((filtered(lows, frames)[1] - frames[1]) / gain)[:, 24:36, 24:36].abs().max())
    assert max(results) < 0.02


def scene(positions: Sequence[float]) -> list[Tensor]:
    """LR frames (3, 24, 32) of a texture that is displaced by these numbers of pixels."""
    large = F.interpolate(texture(48, 64)[None], scale_factor=4.0, mode="bicubic")[0]
    return [F.avg_pool2d(large.roll(round(8 * position), -1), 8) for position in positions]


@pytest.mark.parametrize(
    ("speed", "index", "neighbours"),
    [
        (0.0, 15, [3, 6, 9, 12, 18, 21, 24, 27]),
        (0.0, 16, [6, 9, 12, 15, 18, 21, 24, 27]),
        (0.0, 1, [0, 3, 6, 9, 12, 15, 18, 21]),  # an end: most are from the other side
        (0.0625, 14, [3, 6, 9, 12, 15, 18, 21, 24]),
        (0.125, 15, [8, 10, 12, 14, 16, 18, 20, 22]),
        (0.25, 29, [21, 22, 23, 24, 25, 26, 27, 28]),
        (0.75, 29, [25, 26, 27, 28]),
        (0.75, 15, [11, 12, 13, 14, 16, 17, 18, 19]),
    ],
)
def test_neighbours_in_slow_scenes_are_further_apart(speed: float, index: int, neighbours: list[int]) -> None:
    lows = scene([speed * number for number in range(30)])
    in_advance = TemporalFilter("clean", 30, (24, 32))
    assert in_advance.needed([index], lambda number: lows[number]) == sorted([index, *neighbours])
    restored = [F.interpolate(low[None], scale_factor=2.0)[0] + 1e-3 * 2.0**-k for k, low in enumerate(lows)]
    in_advance.keep((number, lows[number]) for number in sorted([index, *neighbours]))
    few = next(in_advance([index], iter([restored[number] for number in sorted([index, *neighbours])])))
    assert torch.equal(few, filtered(lows, restored, wanted=[index])[0])


@pytest.mark.parametrize("length", [2, 9, 12, 25])
@pytest.mark.parametrize("steps", [(1,), (3, 2, 1), (6, 4, 2, 1), (8, 1)])
def test_any_length_and_steps(length: int, steps: Sequence[int]) -> None:
    """A still scene does not change, all at once or frame by frame."""
    frame = texture(16, 16)
    low = reduced(frame)

    def restored(wanted: Sequence[int]) -> list[Tensor]:
        method = TemporalFilter("clean", length, (8, 8), steps=steps)
        numbers = method.needed(wanted)
        method.keep((number, low) for number in numbers)
        return list(method(wanted, iter([frame] * len(numbers))))

    for wanted in (range(length), *([index] for index in range(length))):
        assert all(torch.allclose(result, frame, atol=1e-5) for result in restored(wanted))


def test_needed_frames() -> None:
    method = TemporalFilter("clean", 30, (16, 16))
    assert method.needed([0]) == sorted({*range(9), *range(0, 17, 2), *range(0, 25, 3)})
    assert method.needed([15]) == sorted({*range(11, 20), *range(8, 23, 2), *range(3, 28, 3)})
    adjacent = TemporalFilter("clean", 30, (16, 16), steps=[1])
    assert adjacent.needed([0]) == list(range(9))
    assert adjacent.needed([10, 11]) == list(range(6, 16))
    assert adjacent.needed([0, 29]) == [*range(9), *range(21, 30)]
    assert adjacent.needed([29, 0]) == [*range(21, 30), *range(9)]
    assert ascending_runs([3, 5, 5, 2]) == [[3, 5], [5], [2]]


def test_steps_of_large_frames() -> None:
    """More frames are held for wider steps: 25 frames of 12 bytes a pixel for three."""
    assert affordable_steps((1440, 2560)) == [3, 2, 1]
    assert affordable_steps((2160, 3840)) == [2, 1]
    assert affordable_steps((4320, 7680)) == [1]
    assert affordable_steps((480, 640), period=2) == [6, 4, 2, 1]  # key frames are every second frame
    assert affordable_steps((480, 640), period=5) == [10, 5, 1]
    assert affordable_steps((480, 640), period=20) == [1]


def test_result_does_not_depend_on_the_first_frame() -> None:
    network, clip = small_mtdo(), moving_clip(9, 20, 24)
    network.set_restore_settings({"temporal_filter": "clean"})
    complete = list(restore(network, clip, options=Options(workers=1)))
    assert len(complete) == 9
    for wanted in ([6], [3, 4], [0, 8], [7, 2]):
        part = list(restore(network, clip, frames=wanted, options=Options(workers=1)))
        assert all(torch.equal(mine, complete[index]) for mine, index in zip(part, wanted, strict=True))
    pool = list(restore(network, clip, options=Options(workers=2)))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(pool, complete, strict=True))


def test_restore_filters_the_output_of_the_network() -> None:
    network, clip = small_mtdo(), moving_clip(5, 20, 24)
    plain = list(restore(network, clip))
    network.set_restore_settings({"temporal_filter": "compressed"})
    method = TemporalFilter("compressed", 5, clip.size)
    method.keep((number, clip.frame(number)) for number in range(5))
    expected = list(method(range(5), iter(plain)))
    assert all(torch.equal(a, b) for a, b in zip(restore(network, clip), expected, strict=True))
    assert reach(network, "clean", 4) == reach(network, "none", 4) + REACH == network.config.frames // 2 + REACH
    assert reach(small_stno(), "clean", 4) == 4 + REACH


@pytest.mark.parametrize("times", [(), (0.5,), (0.25, 0.5, 0.75), ([0.5], [], [0.2, 0.6], [0.4], [0.5], [0.5], [0.3])])
def test_space_time_outputs_are_filtered_in_time_order(times: Any) -> None:
    """Key frames keep half of their LR detail; intermediate frames are compared in place of LR frames, reduced to LR size."""
    network, clip, size = small_stno(), moving_clip(8, 20, 24), (50, 60)
    how: dict[str, Any] = {"times": times, "size": size, "options": Options(chunk=3, context=2)}
    plain = list(restore(network, clip, **how))
    network.set_restore_settings({"temporal_filter": "clean"})
    complete = list(restore(network, clip, **how))
    starts = key_positions(
        [len(gap) for gap in times]
        if isinstance(times, tuple) and times and isinstance(times[0], list)
        else [len(times)] * 7
    )
    assert starts[-1] == len(plain) == len(complete)
    irregular = isinstance(times, tuple) and times and isinstance(times[0], list)
    steps = [1] if irregular else affordable_steps(size, len(times) + 1)
    method = TemporalFilter("clean", len(plain), clip.size, steps=steps)
    lows = {start: clip.frame(key) for key, start in enumerate(starts[:-1])}
    method.keep((number, lows.get(number)) for number in range(len(plain)))
    expected = list(method(range(len(plain)), iter(plain)))
    assert all(torch.equal(a, b) for a, b in zip(complete, expected, strict=True))
    assert not torch.equal(complete[2], plain[2])
    for first, last in ((0, 2), (2, 5), (4, 7), (7, 7)):
        part = list(restore(network, clip, frames=range(first, last + 1), **how))
        mine = complete[starts[first] : starts[last + 1]]
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(part, mine, strict=True))


def test_intermediate_frames_gain_from_key_frames() -> None:
    """A still scene: the error of an intermediate frame falls to that of a weighted mean of five."""
    scene, generator = texture(128, 128), torch.Generator().manual_seed(1)
    low = F.avg_pool2d(scene, 2)
    restored = [scene + 0.02 * torch.randn(scene.shape, generator=generator) for _ in range(5)]
    method = TemporalFilter("clean", 5, (64, 64))
    method.keep((number, None if number % 2 else low) for number in range(5))
    result = list(method(range(5), iter(restored)))
    assert rms(result[1] - scene) < 0.6 * rms(restored[1] - scene)


def test_one_frame_is_not_changed() -> None:
    network, clip = small_mtdo(), moving_clip(1, 20, 24)
    plain = next(iter(restore(network, clip)))
    network.set_restore_settings({"temporal_filter": "clean"})
    assert torch.equal(next(iter(restore(network, clip))), plain)
    frame = texture(32, 32)
    assert torch.allclose(filtered([reduced(frame)], [frame])[0], frame, atol=1e-6)


def test_detail_of_the_lr_frames_is_returned() -> None:
    """Restored frames that have lost contrast get three quarters of it back where the LR frames have it."""
    frame = texture(64, 64)
    lows, dull = [reduced(frame)] * 3, [frame.mean() + 0.8 * (frame - frame.mean())] * 3
    before = rms(reduced(dull[1]) - lows[1])
    assert rms(reduced(filtered(lows, dull)[1]) - lows[1]) == pytest.approx(0.25 * before, rel=0.1)
    assert torch.allclose(filtered(lows, dull, "compressed")[1], dull[1], atol=1e-6)


def test_compiled_and_plain_form_agree() -> None:
    if not dcn.ensure_built(lambda line: None):
        pytest.skip("no compiled operator here")
    scene, generator = texture(90, 126), torch.Generator().manual_seed(1)
    truth = [scene.roll((k, 2 * k), (-2, -1)) for k in range(5)]
    lows = [F.avg_pool2d(frame, 3) for frame in truth]
    restored = [frame + 0.05 * torch.randn(frame.shape, generator=generator) for frame in truth]
    fast = filtered(lows, restored)
    dcn.set_backend("plain")
    try:
        plain = filtered(lows, restored)
    finally:
        dcn.set_backend(None)
    assert all(torch.allclose(a, b, atol=2e-5) for a, b in zip(fast, plain, strict=True))


def test_wrong_values_are_refused() -> None:
    mapping = {"network": {"name": "mtdo"}}
    assert config_from_mapping(mapping, ["data.temporal_filter=none"]).data.temporal_filter == "none"
    with pytest.raises(InputError, match="temporal_filter"):
        config_from_mapping({"network": {"name": "mtdo"}}, ["data.temporal_filter=strong"])
    with pytest.raises(InputError, match="'temporal_filter' is 'strong', expected one of none, clean, compressed"):
        small_mtdo().set_restore_settings({"temporal_filter": "strong"})
