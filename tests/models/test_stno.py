"""STNO on a small variant: shapes, times, padding, initialisation, precision, gradients, errors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import losses
import models
from errors import InputError
from models.stno import STNO, STNOConfig
from tests.parity import max_difference

SMALL = {
    "channels": 8,
    "blocks": 2,
    "embedding": 8,
    "heads": 2,
    "hidden": 16,
    "pyramid": [6, 8, 10],
    "head_widths": [12, 12, 12],
    "side_channels": 4,
    "frame_features": 5,
    "query_width": 16,
}


def make(**changes) -> STNO:
    """A small network with non-zero flows, as after some training."""
    torch.manual_seed(0)
    network = STNO(STNOConfig(**SMALL | changes)).eval()
    for decoder in (network.operator.from_eighth, network.operator.from_quarter, network.operator.from_half):
        torch.nn.init.normal_(decoder.head[-1].weight, std=0.05)
    return network


def clip(frames: int = 3, height: int = 16, width: int = 24, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def no_grad(request):
    with torch.set_grad_enabled("gradient" in request.node.name):
        yield


def test_shapes_and_the_default_size():
    network = make()
    assert network(clip(2)).shape == (1, 3, 3, 64, 96)
    assert network(clip(4), [0.25, 0.5, 0.75], (20, 31)).shape == (1, 13, 3, 20, 31)


def test_batch_equals_one_by_one():
    network, frames = make(), clip(3, batch=3)
    full = network(frames, [0.3], (33, 40))
    single = torch.cat([network(one[None], [0.3], (33, 40)) for one in frames])
    assert max_difference(full, single) < 2e-5


def test_times_per_sample_equal_single_runs():
    network, frames = make(), clip(2, batch=2)
    both = network(frames, torch.tensor([[0.2], [0.7]]), (16, 24))
    assert max_difference(both[0], network(frames[:1], [0.2], (16, 24))[0]) < 2e-5
    assert max_difference(both[1], network(frames[1:], [0.7], (16, 24))[0]) < 2e-5
    for rows in ([[0.2], [0.7]], np.array([[0.2], [0.7]])):
        assert torch.equal(network(frames, rows, (16, 24)), both)


def test_exact_times_equal_single_runs():
    network, frames, times = make(), clip(3), [0.2, 0.6, 0.9]
    output = network(frames, times, (30, 40), times_mode="exact")
    for k, time in enumerate(times):
        single = network(frames, [time], (30, 40))
        assert max_difference(output[:, [1 + k, 5 + k]], single[:, 1::2]) < 2e-5
        if time == 0.6:  # key frames are taken from the time nearest to one half
            assert max_difference(output[:, ::4], single[:, ::2]) < 2e-5
    last = network(frames, times, (30, 40), key_time=2)
    assert max_difference(last[:, ::4], network(frames, [0.9], (30, 40))[:, ::2]) < 2e-5


def test_shared_times_use_the_recurrence_of_the_first():
    network, frames = make(times_mode="shared"), clip(3)
    output = network(frames, [0.2, 0.6], (30, 40))
    first = network(frames, [0.2], (30, 40))
    assert max_difference(output[:, [0, 1, 3, 4, 6]], first) < 2e-5
    one = network(frames, [0.6], (30, 40))
    assert max_difference(output[:, [2, 5]], one[:, 1::2]) > 1e-6  # with its own recurrence the frames would differ


@pytest.mark.parametrize("height,width", [(13, 21), (8, 9), (3, 17), (1, 1)])
def test_padding_equals_manual_padding(height, width):
    network, frames = make(), clip(2, height, width)
    padded = frames.flatten(0, 1)
    for axis, side in ((1, height), (0, width)):
        missing = -side % 8
        amount = [0, 0, 0, 0]
        amount[2 * axis + 1] = missing
        padded = F.pad(padded, amount, mode="reflect" if missing < side else "replicate")
    wide = network.features(padded[None], torch.tensor([[0.5]]), "exact", None, clamp=True)
    cropped = network.features(frames, torch.tensor([[0.5]]), "exact", None, clamp=True)
    assert max_difference(cropped.keys, wide.keys[..., :height, :width]) < 1e-6
    assert max_difference(cropped.inserted, wide.inserted[..., :height, :width]) < 1e-6
    expected = network.query(cropped.inserted[0, 0], (2 * height, 3 * width))
    assert max_difference(network(frames, [0.5], (2 * height, 3 * width))[:, 1], expected) < 1e-6


@settings(max_examples=12)
@given(st.integers(2, 3), st.tuples(*[st.integers(1, 20)] * 2), st.tuples(*[st.integers(1, 40)] * 2), st.integers(1, 2))
def test_any_size(frames, shape, size, times):
    size = tuple(min(out, 64 * side) for out, side in zip(size, shape, strict=True))
    with torch.no_grad():
        output = make()(clip(frames, *shape), [0.25, 0.5][:times], size)
    assert output.shape == (1, frames + (frames - 1) * times, 3, *size)
    assert output.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5])
def test_constant_clips_are_finite(value):
    output = make()(torch.full((1, 3, 3, 8, 8), value), [0.5], (8, 8))
    assert output.isfinite().all()


def test_frozen_clip_is_finite():
    output = make()(clip(1).expand(-1, 4, -1, -1, -1), [0.5], (16, 24))
    assert output.isfinite().all()


def test_interpolate_equals_forward_training():
    network, frames = make(), clip(height=13, width=21, batch=2)
    times = torch.tensor([[0.25, 0.5], [0.4, 0.7]])
    between, flows = network.interpolate(frames, times)
    full = network.forward_training(frames, times=times)
    assert max_difference(between, full.intermediate) == 0
    assert all(max_difference(a, b) == 0 for a, b in zip(flows, full.flows, strict=True))


def test_intermediate_frame_is_clamped_at_inference_only():
    network, frames = make(), clip(2)
    network.operator.merge[0].bias.fill_(2.0)
    assert network.features(frames, torch.tensor([[0.5]]), "exact", None, clamp=True).intermediate.max() <= 1
    assert network.forward_training(frames, [0.5], (16, 24)).intermediate.max() > 1


def test_untrained_network_blends_its_neighbours():
    torch.manual_seed(0)
    network, frames = STNO(STNOConfig(**SMALL, residual="bicubic")), clip(3)
    output = network.forward_training(frames, [0.4], (16, 24))
    assert all(flow.abs().max() == 0 for flow in output.flows)
    blend = (frames[:, :-1] + frames[:, 1:]) / 2
    assert (output.intermediate - blend).abs().mean() < 0.1
    expected = torch.stack([frames[:, 0], blend[:, 0], frames[:, 1], blend[:, 1], frames[:, 2]], dim=1)
    assert (output.frames - expected).abs().mean() < 0.3


def test_bicubic_residual_is_added():
    with_residual, frames = make(residual="bicubic"), clip(2)
    plain = make()
    plain.load_state_dict(with_residual.state_dict())
    output = plain.forward_training(frames, [0.5], (40, 50))
    images = torch.stack([frames[:, 0], output.intermediate[:, 0], frames[:, 1]], dim=1)
    upscaled = F.interpolate(images[0], size=(40, 50), mode="bicubic", align_corners=False)[None]
    actual = with_residual.forward_training(frames, [0.5], (40, 50)).frames
    assert max_difference(actual, output.frames + upscaled) < 1e-6


@pytest.mark.parametrize("times", [[0.5], [0.2, 0.6]])
@pytest.mark.parametrize("wanted", ["all", "one gap", "keys", "first", "last", "intermediate", "between others"])
def test_selected_outputs_equal_those_of_the_full_clip(times, wanted):
    network, frames, count = make(residual="bicubic"), clip(5, batch=2), len(times) + 1
    full = network(frames, times, (20, 20))
    every = list(range(full.shape[1]))
    numbers = {
        "all": every,
        "one gap": every[count : 2 * count + 1],
        "keys": every[::count],
        "first": every[:1],
        "last": every[-1:],
        "intermediate": [number for number in every if number % count],
        "between others": [count + 1, 3 * count],
    }[wanted]
    found = network(frames, times, (20, 20), outputs=numbers)
    assert found.shape[1] == len(numbers)
    assert max_difference(found, full[:, numbers]) < 1e-6


def test_only_selected_outputs_are_computed(monkeypatch):
    """Forward pass up to the last output; intermediate frames only of the gaps between the first and the last output."""
    network, frames, images = make(), clip(6), {"queried": 0, "backward": 0, "forward": 0}

    def counted(module, name):
        def count(_, arguments):
            images[name] += len(arguments[0])

        monkeypatch.setattr(module, "_forward_pre_hooks", {0: count})

    counted(network.query, "queried")
    counted(network.propagation.backward_branch, "backward")
    counted(network.propagation.forward_branch, "forward")
    network(frames, [0.5], (20, 20), outputs=[3, 5])  # intermediate frames of the gaps 1 and 2
    assert images == {"queried": 2, "backward": 6 + 2, "forward": 4 + 2}


def test_result_does_not_depend_on_slab_size(monkeypatch):
    monkeypatch.setenv("DCN_BACKEND", "plain")  # the compiled query has no slabs
    network, frames = make(), clip(2)
    full = network(frames, [0.5], (50, 60))
    network.config = dataclasses.replace(network.config, slab_pixels=70)
    assert max_difference(network(frames, [0.5], (50, 60)), full) < 1e-6


def test_bf16_is_close_to_fp32_with_flows_in_full_precision():
    network, frames = make(), clip(3)
    exact = network(frames, [0.5], (64, 96))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fast = network(frames, [0.5], (64, 96))
        output = network.forward_training(frames, [0.5], (64, 96))
    assert fast.dtype == torch.float32
    assert (fast - exact).square().mean() < 1e-5 * max(1.0, exact.square().mean().item())
    reference = network.forward_training(frames, [0.5], (64, 96))
    assert max_difference(output.flows.t_0, reference.flows.t_0) == 0


def test_gradient_reaches_every_parameter():
    """The PReLU slope of the merge gets a gradient from negative values only; the clip's black areas produce some."""
    torch.manual_seed(0)
    network = STNO(STNOConfig(**SMALL, residual="bicubic"))
    frames = clip(3) * (clip(3) > 0.5)
    output = network.forward_training(frames, [0.5], (40, 60))
    middle = (frames[:, :-1] + frames[:, 1:]) / 2 * 0.9
    loss = losses.charbonnier(output.frames, torch.rand(output.frames.shape))
    loss = loss + losses.charbonnier(output.intermediate, middle)
    loss.backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == []
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_gradients_of_a_black_clip_are_finite():
    network = make()
    network.forward_training(torch.zeros(1, 2, 3, 8, 8), [0.5], (16, 16)).frames.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_training_after_inference_mode_has_gradient():
    """A first call under inference_mode must not leave inference tensors in a cache."""
    network = make()
    with torch.inference_mode():
        network(clip(2), [0.5], (16, 24))
    network.forward_training(clip(2), [0.5], (16, 24)).frames.sum().backward()
    assert network.query.mix.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"frames": torch.zeros(1, 1, 3, 8, 8)},
        {"frames": torch.zeros(2, 3, 8, 8)},
        {"frames": torch.zeros(0, 2, 3, 8, 8)},
        {"frames": torch.zeros(1, 2, 3, 8, 8, dtype=torch.uint8)},
        {"times": []},
        {"times": [0.0]},
        {"times": [1.0]},
        {"times": [0.5, float("nan")]},
        {"times": [0.5, 0.25]},
        {"times": torch.tensor([[0.5]] * 3)},
        {"size": (0, 8)},
        {"size": (8, 8000)},
        {"times_mode": "other"},
        {"times": [0.2, 0.8], "key_time": 2},
        {"outputs": []},
        {"outputs": [1, 3]},
        {"outputs": [1, 0]},
        {"outputs": [-1]},
    ],
)
def test_bad_input_is_refused_in_one_line(arguments):
    given_all = {"frames": clip(2, 8, 8), "times": [0.5], "size": (16, 16)} | arguments
    with pytest.raises(InputError) as error:
        make()(given_all.pop("frames"), **given_all)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes", [{"heads": 3}, {"pyramid": [4, 4]}, {"side_channels": 12}, {"residual": "linear"}, {"blocks": -1}]
)
def test_bad_config_is_refused(changes):
    with pytest.raises(InputError, match="network"):
        STNOConfig(**SMALL | changes)


def test_small_variants_come_from_a_mapping():
    network = models.build({"name": "stno", **SMALL})
    assert isinstance(network, STNO)
    assert network.config == STNOConfig(**SMALL)
