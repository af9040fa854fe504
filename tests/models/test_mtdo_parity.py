"""MTDO against outputs of the published implementation, with weights loaded by their published names."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

import models
from models.mtdo.attention import window_plan
from models.mtdo.network import MTDO
from tests.parity import fixture, max_difference, seeded_state, tolerance

pytestmark = pytest.mark.filterwarnings("ignore")


@cache
def published() -> MTDO:
    return models.load_official("mtdo", seeded_state("mtdo"))


@cache
def with_live_ctdm() -> MTDO:
    """The same weights in a network with `ctdm: paper`."""
    config = models.config_from_mapping({"name": "mtdo", "ctdm": "paper"})
    network = MTDO(config)
    network.load_state_dict(published().state_dict())
    return network.eval()


def close(actual: Tensor, name: str, output: str) -> None:
    assert max_difference(actual, fixture(name)[f"out_{output}"]) <= tolerance(name, output)


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.no_grad():
        yield


def test_parameter_count_and_config_from_shapes():
    network = published()
    assert sum(parameter.numel() for parameter in network.parameters()) == 25_995_674
    assert (network.config.frames, network.config.scale, network.config.ctdm) == (5, 4, "as_shipped")
    assert not network.training


@pytest.mark.parametrize("name", ["mtdo_dcn", "mtdo_dcn_bigoffset"])
def test_deformable_convolution(name):
    close(published().msd.dcn(fixture(name)["in_x"], fixture(name)["in_fea"]), name, "y")


def test_alignment():
    arrays, msd = fixture("mtdo_msd"), published().msd
    neighbour = arrays["in_neighbor"]
    aligned = msd(neighbour[:, None], msd.neighbour_half(neighbour)[:, None], arrays["in_ref"])
    close(aligned[:, 0], "mtdo_msd", "y")


def test_temporal_differences():
    network = published()
    frames = fixture("mtdo_atdm")["in_frames"]
    close(network.atdm(network.atdm.encode_window(frames), frames[:, 2]), "mtdo_atdm", "y")
    frames = fixture("mtdo_stdm")["in_frames"]
    close(network.stdm(network.stdm.encode_window(frames), frames[:, 2]), "mtdo_stdm", "y")


def test_cross_difference():
    forward, backward = published().ctdm(fixture("mtdo_ctdm")["in_fea"])
    close(forward, "mtdo_ctdm", "f_fixed")
    close(backward, "mtdo_ctdm", "b_fixed")


def test_routes():
    arrays, network = fixture("mtdo_tdrom"), with_live_ctdm()
    close(network.routes12(arrays["in_A"], arrays["in_S"], arrays["in_lr"]), "mtdo_tdrom", "F_Rout1_2")
    close(network.route3.amplify(arrays["in_fea"], (arrays["in_Cf"], arrays["in_Cb"])), "mtdo_tdrom", "F_Rout3")


def test_as_shipped_gate_equals_gate_of_zero_difference():
    aligned = fixture("mtdo_tdrom")["in_fea"]
    nothing = torch.zeros_like(aligned[:, 0])
    slow = with_live_ctdm().route3.amplify(aligned.flip(1), (nothing, nothing))
    assert max_difference(published().route3.amplify(aligned, None), slow) < 1e-5


def test_features_and_fusion():
    close(published().features(fixture("mtdo_features")["in_x"]), "mtdo_features", "y")
    close(published().tsa(fixture("mtdo_tsa")["in_aligned"]), "mtdo_tsa", "y")


@pytest.mark.parametrize("name", ["mtdo_hat_16x32", "mtdo_hat_32x32"])
def test_hat(name):
    close(published().reconstruction(fixture(name)["in_x"]), name, "y")


def test_hat_blocks():
    name = "mtdo_hab_ocab_tokens32x32"
    tokens = fixture(name)["in_x"].view(1, 32, 32, 180)
    group, plan = published().reconstruction.layers[0].residual_group, window_plan(32, 32, 16, tokens)
    # the fixtures store every fourth token
    close(group.blocks[0](tokens, plan).view(1, 1024, 180)[:, ::4], name, "hab0_noshift")
    close(group.blocks[1](tokens, plan).view(1, 1024, 180)[:, ::4], name, "hab1_shift")
    close(group.overlap_attn(tokens).view(1, 1024, 180)[:, ::4], name, "ocab")


@pytest.mark.parametrize("name", ["mtdo_full_as_shipped", "mtdo_full_ctdm_fixed"])
def test_complete_network(name):
    network = published() if name.endswith("shipped") else with_live_ctdm()
    arrays, seen = fixture(name), {}
    hooks = [
        network.reconstruction.register_forward_pre_hook(lambda _, inputs: seen.update(hat_in=inputs[0])),
        network.tsa.register_forward_hook(lambda _, inputs, output: seen.update(tsa=output)),
    ]
    restored = network(arrays["in_x"])
    for hook in hooks:
        hook.remove()
    assert max_difference(restored, arrays["out_y"]) <= 1e-4
    for output in {"hat_in", "tsa"} & {key.removeprefix("out_") for key in arrays}:
        close(seen[output], name, output)


def test_bfloat16_error():
    network = models.load_official("mtdo", seeded_state("mtdo")).set_inference_dtype(torch.bfloat16)
    arrays = fixture("mtdo_full_as_shipped")
    error = (network(arrays["in_x"]) - arrays["out_y"]).square().mean() / arrays["out_y"].square().mean()
    assert 10 * torch.log10(error) < -35  # dB; bfloat16 keeps 8 bits
