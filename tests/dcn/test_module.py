"""DCNv2Pack: initialisation, parameter names, warnings about large offsets."""

from __future__ import annotations

import logging
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

import dcn
from dcn import module
from tests.parity import max_difference


def layer_and_inputs():
    torch.manual_seed(0)
    return dcn.DCNv2Pack(16, 8, deformable_groups=2), torch.randn(2, 16, 9, 7), torch.randn(2, 16, 9, 7)


def test_initial_offsets_are_zero_and_masks_one_half(backend):
    layer, x, feature = layer_and_inputs()
    assert max_difference(layer(x, feature), F.conv2d(x, layer.weight / 2, layer.bias, padding=1)) < 1e-5
    bound = 1 / (16 * 9) ** 0.5
    assert 0.9 * bound < layer.weight.abs().max() <= bound


def test_every_parameter_gets_a_gradient(backend):
    layer, x, feature = layer_and_inputs()
    layer(x, feature).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


def test_names_and_sizes_of_the_published_layer():
    shapes = {name: tuple(tensor.shape) for name, tensor in dcn.DCNv2Pack(64, 64).state_dict().items()}
    assert shapes == {
        "weight": (64, 64, 3, 3),
        "bias": (64,),
        "conv_offset_mask.weight": (216, 64, 3, 3),
        "conv_offset_mask.bias": (216,),
    }


def test_stride_and_dilation():
    layer = dcn.DCNv2Pack(4, 6, kernel_size=3, stride=2, padding=2, dilation=2, deformable_groups=1)
    assert layer(torch.randn(1, 4, 11, 8), torch.randn(1, 4, 11, 8)).shape == (1, 6, 6, 4)


@pytest.mark.parametrize("value", [200.0, float("nan")])
def test_large_offsets_are_logged_at_intervals(caplog, value):
    layer, x, feature = layer_and_inputs()
    with torch.no_grad():
        layer.conv_offset_mask.bias[:36] = value
    with caplog.at_level(logging.WARNING, logger="dcn"):
        for _ in range(3):
            layer(x, feature)
    warnings = [record for record in caplog.records if "mean |offset|" in record.getMessage()]
    assert len(warnings) == 1 and "lower the learning rate" in warnings[0].getMessage()


class Late:
    """Stand-in for `Reading`: the number arrives from the GPU at the second call."""

    def __init__(self, value):
        self.calls = 0

    def take(self):
        self.calls += 1
        return 200.0 if self.calls == 2 else None


def test_warning_on_a_gpu_does_not_synchronise(caplog, monkeypatch):
    monkeypatch.setattr(module, "Reading", Late)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    layer = dcn.DCNv2Pack(16, 8)

    class OnGPU:
        """A tensor that must not be read."""

        is_cuda, device = True, torch.device("cuda", 0)
        numel = staticmethod(lambda: 1)

        def abs(self):
            return self

        def mean(self, dtype):
            return self

    with caplog.at_level(logging.WARNING, logger="dcn"):
        for calls in (0, 0, 1, 1):
            layer._watch(OnGPU())
            assert len(caplog.records) == calls


def test_layer_can_be_copied_with_a_pending_reading():
    layer, x, feature = layer_and_inputs()
    layer._reading = open(__file__)  # noqa: SIM115, PTH123  can be neither copied nor pickled, as an event of a GPU
    copy = deepcopy(layer)
    layer._reading.close()
    assert copy._reading is None and torch.equal(copy(x, feature), layer(x, feature))


def test_small_offsets_are_not_logged(caplog):
    layer, x, feature = layer_and_inputs()
    layer(x, feature)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_max_offset_limits():
    layer, x, feature = layer_and_inputs()
    with torch.no_grad():
        layer.conv_offset_mask.bias[:36] = 5.0
        layer.max_offset = 2.0
        limited = layer(x, feature)
        layer.max_offset = None
        layer.conv_offset_mask.bias[:36] = 2.0
        assert max_difference(limited, layer(x, feature)) < 1e-6
