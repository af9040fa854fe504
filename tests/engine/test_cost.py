"""Counted multiplications: by hand, and the same whichever operators run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import dcn
import models
from engine.cost import gmac, gmac_per_frame

SMALL = {
    "name": "mtdo",
    "frames": 3,
    "channels": 8,
    "deformable_groups": 2,
    "feature_blocks": 1,
    "correction_blocks": 1,
    "hat": {"embed": 16, "depths": [2], "heads": 2, "window": 8, "squeeze": 4},
}


def test_a_convolution_by_hand() -> None:
    layer, image = nn.Conv2d(3, 5, 3, padding=1), torch.zeros(2, 3, 10, 12)
    assert gmac(lambda: layer(image)) == pytest.approx(2 * 10 * 12 * 5 * 3 * 9 / 1e9)


@pytest.mark.skipif("compiled" not in dcn.backends(), reason="no compiled operator")
def test_compiled_and_plain_operators_count_alike() -> None:
    network = models.build(SMALL).eval()
    compiled = gmac_per_frame(network)
    try:
        dcn.set_backend("plain")
        assert gmac_per_frame(network) == pytest.approx(compiled, rel=1e-12)
    finally:
        dcn.set_backend(None)


@pytest.mark.skipif("compiled" not in dcn.backends(), reason="no compiled operator")
def test_a_training_step_costs_three_times_the_forward_pass() -> None:
    network, frames = models.build(SMALL).train(), torch.rand(1, 3, 3, 32, 32)
    forward = gmac(lambda: network(frames))
    both = gmac(lambda: network(frames).sum().backward())
    assert 2.8 * forward < both <= 3 * forward  # frames themselves need no gradient
