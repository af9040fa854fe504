"""HAT's attention and layers, compared with their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.mtdo.attention import WindowAttention, overlap_position_index, window_plan
from models.mtdo.config import HATConfig, MTDOConfig
from models.mtdo.hat import DropPath
from models.mtdo.network import MTDO
from tests.models.small_mtdo import HAT, assert_same, clip, small


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
