"""Multiplication counts: equal to a count by hand, and independent of the operators in use."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dcn
import models
from engine.report.cost import gmac, gmac_per_frame
from models.mtdo.attention import MultiHead

SMALL = {
    "name": "mtdo",
    "frames": 3,
    "channels": 8,
    "deformable_groups": 2,
    "feature_blocks": 1,
    "correction_blocks": 1,
    "hat": {"embed": 16, "depths": [2], "heads": 2, "window": 8, "squeeze": 4},
}
SMALL_STNO = {
    "name": "stno",
    "channels": 8,
    "blocks": 1,
    "embedding": 16,
    "heads": 2,
    "hidden": 16,
    "query_width": 16,
}


def test_a_convolution_by_hand() -> None:
    layer, image = nn.Conv2d(3, 5, 3, padding=1), torch.zeros(2, 3, 10, 12)
    assert gmac(lambda: layer(image)) == pytest.approx(2 * 10 * 12 * 5 * 3 * 9 / 1e9)


def test_attention_without_learned_bias_by_hand() -> None:
    query, key, value = (torch.rand(2, 3, 10, 8, requires_grad=True) for _ in range(3))
    forward = 2 * 2 * 3 * 10 * 10 * 8 / 1e9
    assert gmac(lambda: F.scaled_dot_product_attention(query, key, value)) == pytest.approx(forward)
    both = gmac(lambda: F.scaled_dot_product_attention(query, key, value).sum().backward())
    assert both == pytest.approx(3 * forward)


@pytest.mark.parametrize("embed", [16, 28])  # heads of 8, and of 14, which plain attention pads to 16
@pytest.mark.skipif("compiled" not in dcn.backends(), reason="no compiled operator")
def test_counts_of_compiled_and_plain_operators_are_equal(embed: int) -> None:
    network = models.build({**SMALL, "hat": {**SMALL["hat"], "embed": embed}}).eval()
    paddings = {layer.head_padding for layer in network.modules() if isinstance(layer, MultiHead)}
    assert paddings == {2 if embed == 28 else 0}
    compiled = gmac_per_frame(network)
    assert paddings == {layer.head_padding for layer in network.modules() if isinstance(layer, MultiHead)}
    try:
        dcn.set_backend("plain")
        assert gmac_per_frame(network) == pytest.approx(compiled, rel=1e-12)
    finally:
        dcn.set_backend(None)


@pytest.mark.skipif("compiled" not in dcn.backends(), reason="no compiled operator")
def test_compiled_query_by_hand_and_against_plain() -> None:
    network = models.build(SMALL_STNO).eval()
    with torch.no_grad():
        counted = gmac(lambda: network.query(torch.zeros(2, 8, 5, 6), (20, 30)))
    shortcut = 2 * 5 * 6 * (8 * 8 + 8 * 3)
    folding = 16 * 16 * (4 * 8 + 10)  # its two layers as one
    shifts = 2 * 2 * 16 * ((5 + 1) + (6 + 1))
    cells, pixels = 2 * 5 * 6 * 8 * 4 * 16, 2 * 20 * 30 * 16 * 3
    assert counted == pytest.approx((shortcut + folding + shifts + cells + pixels) / 1e9, rel=1e-9)
    compiled = gmac_per_frame(network)
    try:
        dcn.set_backend("plain")
        # the two forms of the query differ slightly, and the query is a large part of this small network
        assert gmac_per_frame(network) == pytest.approx(compiled, rel=5e-3)
    finally:
        dcn.set_backend(None)


@pytest.mark.skipif("compiled" not in dcn.backends(), reason="no compiled operator")
def test_training_step_costs_three_forward_passes() -> None:
    network, frames = models.build(SMALL).train(), torch.rand(1, 3, 3, 32, 32)
    forward = gmac(lambda: network(frames))
    both = gmac(lambda: network(frames).sum().backward())
    assert 2.8 * forward < both <= 3 * forward  # the input frames need no gradient
