"""MTDO at small sizes: shapes, gradients, ablations, padding, streaming, configuration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import models
from errors import InputError
from models.layers import bicubic_upscale, pad_to_multiple
from models.mtdo.config import MTDOConfig
from models.mtdo.hat import DropPath
from models.mtdo.network import MTDO
from tests.models.small_mtdo import HAT, SMALL, assert_same, clip, small

ABLATIONS = [
    {"atdm": False},
    {"stdm": False},
    {"ctdm": "off"},
    {"ctdm": "as_shipped"},
    {"route1": False},
    {"route2": False},
    {"route3": False},
    {"route1": False, "route2": False, "route3": False},
    {"tsa": False},
    {"macu": False},
    {"macu": False, "route3": False},
    {"reconstruction": "residual", "reconstruction_blocks": 2},
    {"residual": "bicubic"},
    {"wide": True},
]


def without_gradient(network: MTDO) -> list[str]:
    frames = clip(2, network.config.frames, 3, 8, 12)
    target = clip(2, 3, 8 * network.config.scale, 12 * network.config.scale, seed=2)
    for module in network.modules():
        if isinstance(module, DropPath):
            module.rate = 0.0  # a dropped path gets no gradient
    (network.train()(frames) - target).square().mean().backward()
    return [name for name, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]


# Shapes and values


@pytest.mark.parametrize("frames", [3, 5, 7])
def test_any_odd_number_of_frames(frames):
    with torch.no_grad():
        assert small(frames=frames)(clip(1, frames, 3, 8, 9)).shape == (1, 3, 32, 36)


@pytest.mark.parametrize("frames, parameters", [(3, 25_536_794), (7, 26_454_554)])
def test_parameter_count_for_other_window_lengths(frames, parameters):
    with torch.device("meta"):
        network = MTDO(MTDOConfig(frames=frames))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("residual", ["none", "bicubic"])
def test_scales(scale, residual):
    with torch.no_grad():
        restored = small(scale=scale, residual=residual)(clip(1, 5, 3, 8, 10))
    assert restored.shape == (1, 3, 8 * scale, 10 * scale)
    assert restored.isfinite().all()


@settings(max_examples=12)
@given(height=st.integers(17, 70), width=st.integers(23, 50), batch=st.integers(1, 2))
def test_any_size_equals_padding_and_cropping_by_hand(height, width, batch):
    network, frames = small(), clip(batch, 5, 3, height, width)
    down, right = -height % 4, -width % 4
    padded = F.pad(frames.flatten(0, 1), (0, right, 0, down), mode="reflect").unflatten(0, (batch, 5))
    with torch.no_grad():
        restored, by_hand = network(frames), network(padded)[..., : 4 * height, : 4 * width]
    assert_same(restored, by_hand)


def test_short_sides_are_padded_symmetrically():
    frames = clip(2, 3, 5)
    expected = np.pad(frames.numpy(), ((0, 0), (0, 13), (0, 11)), mode="symmetric")
    assert np.array_equal(pad_to_multiple(frames, 16).numpy(), expected)
    reflected = np.pad(clip(2, 9, 16).numpy(), ((0, 0), (0, 7), (0, 0)), mode="reflect")
    assert np.array_equal(pad_to_multiple(clip(2, 9, 16), 16).numpy(), reflected)


def test_batch_equals_single_runs_and_input_is_unchanged():
    network, frames = small(), clip(3, 5, 3, 9, 14)
    before = frames.clone()
    with torch.no_grad():
        together, single = network(frames), torch.cat([network(each[None]) for each in frames])
    assert torch.equal(frames, before)
    assert_same(together, single)


def test_with_and_without_gradients_agree():
    network, frames = small(), clip(1, 5, 3, 9, 14)
    with torch.no_grad():
        inference = network(frames)
    assert_same(network(frames).detach(), inference)


def test_wrong_frames_are_refused():
    with pytest.raises(InputError, match=r"this MTDO takes 5: pass 5 \(network\.config\.frames\)"):
        small()(clip(1, 3, 3, 8, 8))
    for frames in (clip(5, 3, 8, 8), torch.zeros(1, 5, 3, 8, 8, dtype=torch.uint8), torch.zeros(0, 5, 3, 8, 8)):
        with pytest.raises(InputError, match=r"expected a float tensor \(B, 5, 3, h, w\)"):
            small()(frames)


# Gradients, ablations, initialisation


def test_every_parameter_gets_a_gradient():
    assert without_gradient(small()) == []


@pytest.mark.parametrize("changes", ABLATIONS, ids=str)
def test_every_parameter_of_ablations_gets_a_gradient(changes):
    dead = without_gradient(small(**changes))
    if changes.get("ctdm") == "as_shipped":  # the gate's input is zero, as published, so only its biases can learn
        dead = [name for name in dead if not name.startswith(("route3.enhance", "route3.gate"))]
    assert dead == []


def test_as_shipped_ignores_ctdm():
    network, frames = small(ctdm="as_shipped"), clip(1, 5, 3, 8, 8)
    assert not any(parameter.requires_grad for parameter in network.ctdm.parameters())
    with torch.no_grad():
        before = network(frames)
        network.ctdm.compress.conv.weight.add_(1)
        assert torch.equal(network(frames), before)


def test_initialisation():
    network = models.build({**SMALL, "residual": "bicubic"})
    assert not network.msd.dcn.conv_offset_mask.weight.any()
    frames = clip(1, 5, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(network(frames), bicubic_upscale(frames[:, 2], 4))
    assert network.msd.merge.weight.std().item() == pytest.approx((2 / network.msd.merge.weight[0].numel()) ** 0.5, 0.1)
    assert not network.features[0].conv.bias.any()


def test_wide_initially_equals_the_narrow_network():
    torch.manual_seed(0)
    narrow, frames = models.build(SMALL).eval(), clip(1, 5, 3, 8, 12)
    wide = models.build({**SMALL, "wide": True}).eval()
    missing = wide.load_state_dict(narrow.state_dict(), strict=False).missing_keys
    assert len(missing) == 4 and all(name.startswith("reconstruction.wide_") for name in missing)
    with torch.no_grad():
        assert_same(wide(frames), narrow(frames))
        nn.init.kaiming_normal_(wide.reconstruction.wide_leave.weight)
        assert (wide(frames) - narrow(frames)).abs().max() > 1e-3


def test_bicubic_residual_is_the_only_difference():
    plain, residual, frames = small(), small(residual="bicubic"), clip(1, 5, 3, 7, 9)
    residual.load_state_dict(plain.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(residual(frames), plain(frames) + bicubic_upscale(frames[:, 2], 4))


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_bicubic_equals_matlab(scale):
    """Reference: symmetric padding, PyTorch's antialiased bicubic (the same kernel as MATLAB's), cropping."""
    picture = clip(2, 3, 7, 10).double()
    padded = torch.from_numpy(np.pad(picture.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)), mode="symmetric"))
    large = F.interpolate(padded, scale_factor=scale, mode="bicubic", antialias=True)
    expected = large[..., 4 * scale : -4 * scale, 4 * scale : -4 * scale]
    torch.testing.assert_close(bicubic_upscale(picture, scale), expected, rtol=0, atol=1e-12)


# Details of HAT that the reference outputs do not cover


# Streaming


# Precision


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("how", ["inference", "autocast"])
def test_bfloat16(how, wide):
    network, frames = small(residual="bicubic", wide=wide), clip(1, 5, 3, 8, 12)
    with torch.no_grad():
        full = network(frames)
        if how == "inference":
            half = network.set_inference_dtype(torch.bfloat16)(frames)
        else:
            with torch.autocast("cpu", torch.bfloat16):
                half = network(frames)
    assert half.dtype == torch.float32
    assert (half - full).abs().max() < 0.05 * (full - bicubic_upscale(frames[:, 2], 4)).abs().max() + 1e-3


def test_training_under_autocast():
    network = small().train()
    with torch.autocast("cpu", torch.bfloat16):
        network(clip(1, 5, 3, 8, 8)).mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


# Configuration


@pytest.mark.parametrize("changes, message", [
    ({"chanels": 64}, "unknown config key 'network.chanels': did you mean 'channels'"),
    ({"hat": {"windows": 8}}, "unknown config key 'network.hat.windows': did you mean 'window'"),
    ({"frames": "five"}, "'network.frames': expected an integer, got 'five'"),
    ({"frames": True}, "'network.frames': expected an integer, got True"),
    ({"hat": {"depths": [2, "x"]}}, r"'network.hat.depths\[1\]': expected an integer, got 'x'"),
    ({"hat": 3}, "'network.hat': expected a group of keys, got 3"),
    ({"frames": 4}, "network.frames is 4; expected an odd number"),
    ({"scale": 5}, "'network.scale': expected one of 2, 3, 4, 8, got 5"),
    ({"ctdm": "on"}, "'network.ctdm': expected one of paper, as_shipped, off, got 'on'"),
    ({"residual": "bilinear"}, "'network.residual': expected one of none, bicubic, got 'bilinear'"),
    ({"wide": True, "reconstruction": "residual"}, "network.wide is True; expected false without reconstruction: hat"),
    ({"deformable_groups": 3}, "network.channels is 8; expected a multiple of deformable_groups = 3"),
    ({"hat": {"embed": 25, "heads": 2}}, "network.hat.embed is 25; expected a multiple of hat.heads"),
    ({"hat": {"window": 34}}, "'network.hat.window': expected at most 32, got 34"),
    ({"hat": {"depths": [64] * 5}}, "network.hat.depths is .* with 1 to 256 blocks in total"),
    ({"hat": {"window": 5}}, "network.hat.window is 5; expected an even number"),
    ({"name": "mtd"}, "network.name is 'mtd'"),
])  # fmt: skip
def test_configuration_errors(changes, message):
    with pytest.raises(InputError, match=message) as error:
        models.build({**SMALL, **changes})
    assert "\n" not in str(error.value)


def test_config_from_numbers_and_yaml_booleans():
    config = models.config_from_mapping({**SMALL, "ctdm": False, "hat": {**HAT, "mlp_ratio": 2}})
    assert config.ctdm == "off" and config.hat.mlp_ratio == 2.0  # YAML reads `off` as false
    assert MTDOConfig(**{**SMALL, "ctdm": False, "tsa": "no"}) == models.config_from_mapping(
        {**SMALL, "ctdm": "off", "tsa": False}
    )
    assert models.build({"network": config}).config is config
    with pytest.raises(InputError, match=r"network\.name is missing"):
        models.build({"frames": 5})
