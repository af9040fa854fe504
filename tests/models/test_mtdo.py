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
from models.mtdo.attention import WindowAttention, overlap_position_index, window_plan
from models.mtdo.config import HATConfig, MTDOConfig
from models.mtdo.hat import DropPath
from models.mtdo.network import MTDO

HAT = {"embed": 24, "depths": [2], "heads": 2, "window": 4, "squeeze": 4}
SMALL = {"name": "mtdo", "channels": 8, "deformable_groups": 2, "feature_blocks": 1, "correction_blocks": 1, "hat": HAT}
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


def small(seed: int = 0, **changes) -> MTDO:
    """A small network whose zero-initialised layers (offsets; the last layer with `residual: bicubic`) are random.

    With zeros, the layers before them would get no gradient in the first step.
    """
    torch.manual_seed(seed)
    network = models.build({**SMALL, **changes})
    nn.init.normal_(network.msd.dcn.conv_offset_mask.weight, std=0.05)
    nn.init.kaiming_normal_(network.reconstruction.conv_last.weight)
    if network.config.wide:
        nn.init.kaiming_normal_(network.reconstruction.wide_enter.weight)
        nn.init.kaiming_normal_(network.reconstruction.wide_leave.weight)
    return network.eval()


def clip(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal within 1e-5 of the largest value: with the paper's initialisation outputs reach 10 and more."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * max(1, expected.abs().max().item()))


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


@settings(max_examples=12, deadline=None, derandomize=True)
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
    with pytest.raises(InputError, match=r"network\.frames"):
        small()(clip(1, 3, 3, 8, 8))


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


def test_exact_gelu_and_norm_epsilon():
    hat = small().reconstruction
    mlp, x = hat.layers[0].residual_group.blocks[0].mlp, clip(1, 4, 4, 24) * 6 - 3
    exact = mlp.fc2(F.gelu(mlp.fc1(x), approximate="none"))
    torch.testing.assert_close(mlp(x), exact, rtol=0, atol=1e-6)
    assert {module.eps for module in hat.modules() if isinstance(module, nn.LayerNorm)} == {1e-5}


def test_drop_path():
    drop = DropPath(0.25).train()
    torch.manual_seed(0)
    kept = drop(torch.ones(4000, 2, 2, 1))
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert torch.equal(kept.amin((1, 2, 3)), kept.amax((1, 2, 3)))  # complete samples are dropped
    assert (kept > 0).float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert torch.equal(drop.eval()(kept), kept)
    config = HATConfig(**{**HAT, "depths": [2, 3]})
    blocks = [b for x in MTDO(MTDOConfig(hat=config)).reconstruction.layers for b in x.residual_group.blocks]
    assert [block.drop_path.rate for block in blocks] == pytest.approx([0, 0.025, 0.05, 0.075, 0.1])


def slow_window_attention(layer: WindowAttention, x: torch.Tensor, shift: int) -> torch.Tensor:
    """Window attention computed pixel by pixel from its definition: (H, W, C) -> (H, W, C)."""
    height, width, channels = x.shape
    window, head = layer.window, channels // layer.heads
    rolled, out = x.roll((-shift, -shift), (0, 1)), torch.empty_like(x)

    def region(y: int, x: int) -> tuple[int, int]:
        return tuple(sum(at >= size - cut for cut in (window, shift)) if shift else 0
                     for at, size in ((y, height), (x, width)))  # fmt: skip

    query, key, value = layer.qkv(rolled).view(height, width, 3, layer.heads, head).unbind(2)
    for y, x_ in np.ndindex(height, width):
        top, left = y // window * window, x_ // window * window
        scores, values = [], []
        for ky, kx in np.ndindex(window, window):
            row = (y - top - ky + window - 1) * (2 * window - 1) + x_ - left - kx + window - 1
            apart = region(y, x_) != region(top + ky, left + kx)
            score = (query[y, x_] * key[top + ky, left + kx]).sum(-1) * head**-0.5
            scores.append(score + layer.relative_position_bias_table[row] - 100 * apart)
            values.append(value[top + ky, left + kx])
        weights = torch.stack(scores).softmax(0)  # (keys, heads)
        out[y, x_] = (weights[..., None] * torch.stack(values)).sum(0).flatten()
    return layer.proj(out).roll((shift, shift), (0, 1))


@pytest.mark.parametrize("height, width", [(4, 4), (4, 12), (8, 8)])
@pytest.mark.parametrize("embed", [6, 28])  # heads of 3 stay as they are, heads of 14 are padded to 16
def test_window_attention_equals_the_definition(height, width, embed):
    torch.manual_seed(0)
    layer = WindowAttention(embed, 2, 4)
    nn.init.normal_(layer.relative_position_bias_table)
    x = clip(2, height, width, embed) * 2 - 1
    with torch.no_grad():
        for shift, plan in ((0, None), (2, window_plan(height, width, 4, x))):
            slow = torch.stack([slow_window_attention(layer, each, shift) for each in x])
            assert_same(layer(x, plan), slow)


def test_overlap_index_is_one_to_one_per_distance():
    index = overlap_position_index(16, 4)
    assert index.shape == (256, 576)
    assert index.unique().numel() == 39 * 39
    assert index[0, 0] == (-7 * 39 - 7) % 1521
    assert index[255, 0] == -880 + 1521


# Streaming


@pytest.mark.parametrize(
    "changes", [{}, {"ctdm": "as_shipped", "frames": 7}, {"atdm": False, "residual": "bicubic"}, {"wide": True}]
)
def test_streaming_equals_forward(changes):
    network = small(**changes)
    frames, reach, length = clip(9, 1, 3, 9, 13), network.config.frames // 2, 9
    stream, loaded = network.stream(), []

    def load(index: int) -> torch.Tensor:
        loaded.append(index)
        return frames[index]

    for centre in range(length):
        indices = [abs(i) if i < length else 2 * (length - 1) - i for i in range(centre - reach, centre + reach + 1)]
        with torch.no_grad():
            full = network(torch.stack([frames[index] for index in indices], 1))
        assert_same(stream.restore(indices, load), full)
        assert set(stream._frames) == set(indices)
    assert sorted(loaded) == list(range(length))  # every frame once


def test_streaming_takes_any_window():
    network, frames = small(frames=3), clip(6, 2, 3, 8, 8)
    stream = network.stream()
    for indices in ([5, 0, 1], [0, 0, 0], [4, 2, 1], [2, 3, 4]):
        with torch.no_grad():
            full = network(torch.stack([frames[index] for index in indices], 1))
        assert_same(stream.restore(indices, lambda i: frames[i]), full)
    with pytest.raises(InputError, match="3 frames, got 5"):
        stream.restore([0, 1, 2, 3, 4], lambda i: frames[i])


def test_an_edit_of_the_temporal_differences_changes_streaming_too(monkeypatch):
    """MTDM has one definition: here the first frame of a window is compared with each of the others, in other units."""
    network, frames = small(frames=5), clip(5, 1, 3, 8, 12)
    window, encode = torch.stack(list(frames), 1), network.atdm.encode
    with torch.no_grad():
        unedited = network(window)
        monkeypatch.setattr(network.atdm, "pairs", [(0, 1), (0, 2), (0, 3), (0, 4)])
        monkeypatch.setattr(network.atdm, "encode", lambda first, second: 2 * encode(first, second))
        edited = network(window)
    assert (edited - unedited).abs().max() > 1e-5
    assert_same(network.stream().restore(range(5), lambda i: frames[i]), edited)


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
    assert models.build({"network": config}).config is config
    with pytest.raises(InputError, match=r"network\.name is missing"):
        models.build({"frames": 5})
