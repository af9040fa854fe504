"""HAT, the Hybrid Attention Transformer that reconstructs the frame (Chen et al., CVPR 2023).

Modules and parameters have the names of the published code. Tokens are a map (B, H, W, embed) throughout; a permuted view
of it is the channels-last image that convolutions take.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import Upsampler, add_, gelu_, in_full_precision, leaky_relu_
from models.mtdo.attention import OverlapAttention, WindowAttention, WindowPlan, eager_window_plan, linear
from models.mtdo.config import HATConfig
from models.mtdo.upsampler import FoldedUpsampler

SLOPE = 0.01  # of the leaky ReLU before the upsampler


def _convolve(conv: nn.Module, tokens: Tensor) -> Tensor:
    """A convolution on a token map (B, H, W, C)."""
    return conv(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()


class DropPath(nn.Module):
    """Stochastic depth: in training, drop the residual branch of a sample with probability `rate` and rescale the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        return x * (x.new_empty(len(x), *[1] * (x.dim() - 1)).bernoulli_(keep) / keep)


class MLP(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, embed: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed, hidden)
        self.fc2 = nn.Linear(hidden, embed)

    def forward(self, x: Tensor) -> Tensor:
        """(..., embed) -> (..., embed)."""
        hidden = gelu_(linear(x, self.fc1.weight, self.fc1.bias))
        return linear(hidden, self.fc2.weight, self.fc2.bias)


class ChannelAttention(nn.Module):
    """Squeeze and excitation: a weight for each channel from the mean of the map."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, channels, 1),
            nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H, W, C) -> weights (B, 1, 1, C)."""
        _, squeeze, relu, excite, sigmoid = self.attention
        mean = tokens.mean((1, 2), keepdim=True)
        return sigmoid(_convolve(excite, relu(_convolve(squeeze, mean))))


class CAB(nn.Module):
    """Channel attention block: two convolutions and channel attention, parallel to the window attention."""

    def __init__(self, config: HATConfig) -> None:
        super().__init__()
        narrow, squeezed = config.embed // config.compress, config.embed // config.squeeze
        self.weight = config.conv_weight
        self.cab = nn.Sequential(
            nn.Conv2d(config.embed, narrow, 3, padding=1), nn.GELU(), nn.Conv2d(narrow, config.embed, 3, padding=1),
            ChannelAttention(config.embed, squeezed),
        )  # fmt: skip

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, W, C) -> the branch (B, H, W, C) and its channel weights (B, 1, 1, C).

        The caller multiplies them: `addcmul` adds their product to the tokens in one pass.
        """
        compress, _, expand, attention = self.cab
        branch = _convolve(expand, gelu_(_convolve(compress, tokens)))
        return branch, self.weight * attention(branch)


class HAB(nn.Module):
    """Hybrid attention block: window attention and CAB on the same normalised tokens, then an MLP."""

    def __init__(self, config: HATConfig, shifted: bool, drop_path: float) -> None:
        super().__init__()
        self.shifted = shifted
        self.norm1 = nn.LayerNorm(config.embed)
        self.attn = WindowAttention(config.embed, config.heads, config.window)
        self.conv_block = CAB(config)
        self.norm2 = nn.LayerNorm(config.embed)
        self.mlp = MLP(config.embed, int(config.embed * config.mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, plan: WindowPlan) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        normed = self.norm1(x)
        branch, gate = self.conv_block(normed)
        attended = self.drop_path(self.attn(normed, plan if self.shifted else None))
        x = torch.addcmul(add_(attended, x), branch, gate)
        return add_(self.drop_path(self.mlp(self.norm2(x))), x)


class OCAB(nn.Module):
    """Overlapping cross-attention block: overlapping attention, then an MLP."""

    def __init__(self, config: HATConfig) -> None:
        super().__init__()
        margin = round(config.overlap * config.window / 2)
        self.norm1 = nn.LayerNorm(config.embed)
        self.attn = OverlapAttention(config.embed, config.heads, config.window, margin)
        self.norm2 = nn.LayerNorm(config.embed)
        self.mlp = MLP(config.embed, int(config.embed * config.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        x = add_(self.attn(self.norm1(x)), x)
        return add_(self.mlp(self.norm2(x)), x)


class AttentionBlocks(nn.Module):
    """HABs, every second one with shifted windows, then one OCAB."""

    def __init__(self, config: HATConfig, drop_paths: list[float]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(HAB(config, i % 2 == 1, rate) for i, rate in enumerate(drop_paths))
        self.overlap_attn = OCAB(config)

    def forward(self, x: Tensor, plan: WindowPlan) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        for block in self.blocks:
            x = block(x, plan)
        return self.overlap_attn(x)


class RHAG(nn.Module):
    """Residual hybrid attention group: attention blocks, a convolution, plus the group's input."""

    def __init__(self, config: HATConfig, drop_paths: list[float]) -> None:
        super().__init__()
        self.residual_group = AttentionBlocks(config, drop_paths)
        self.conv = nn.Conv2d(config.embed, config.embed, 3, padding=1)

    def forward(self, tokens: Tensor, plan: WindowPlan) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        return add_(_convolve(self.conv, self.residual_group(tokens, plan)), tokens)


class HAT(nn.Module):
    """Features (B, channels, h, w), h and w multiples of the window -> frame (B, 3, scale*h, scale*w).

    extra: channels of a second input, for `wide: true` of `MTDOConfig`; not in the paper. `embed` is wider than `channels` in
    the small networks: the second input and a second output convolution, at `embed` channels, avoid the narrow layers.
    """

    def __init__(self, config: HATConfig, channels: int, scale: int, extra: int = 0) -> None:
        super().__init__()
        self.window, self.scale = config.window, scale
        self.make_plan = eager_window_plan  # export replaces it: the sizes of a graph may be symbols
        self.conv_first = nn.Conv2d(channels, config.embed, 3, padding=1)
        self.patch_embed = nn.Sequential(OrderedDict(norm=nn.LayerNorm(config.embed)))
        blocks = sum(config.depths)
        rates = iter([config.drop_path * block / max(blocks - 1, 1) for block in range(blocks)])
        self.layers = nn.ModuleList(RHAG(config, list(islice(rates, depth))) for depth in config.depths)
        self.norm = nn.LayerNorm(config.embed)
        self.conv_after_body = nn.Conv2d(config.embed, config.embed, 3, padding=1)
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(config.embed, channels, 3, padding=1), nn.LeakyReLU(SLOPE))
        self.upsample = Upsampler(channels, scale)
        self.conv_last = nn.Conv2d(channels, 3, 3, padding=1)
        self.folded_upsampler = FoldedUpsampler(self.upsample, self.conv_last, scale)
        self.wide_enter = nn.Conv2d(extra, config.embed, 3, padding=1) if extra else None
        self.wide_leave = nn.Conv2d(config.embed, 3 * scale**2, 3, padding=1) if extra else None

    def forward(self, features: Tensor, extra: Tensor | None = None) -> Tensor:
        """(B, channels, h, w), and (B, extra, h, w) if the network was built with `extra` -> (B, 3, scale*h, scale*w)."""
        entered = self.conv_first(features)
        if self.wide_enter is not None:
            assert extra is not None
            entered = add_(self.wide_enter(extra), entered)
        shallow = entered.permute(0, 2, 3, 1).contiguous()  # (B, h, w, embed)
        plan = self.make_plan(*shallow.shape[1:3], self.window, shallow)
        tokens = self.patch_embed(shallow)
        for layer in self.layers:
            tokens = layer(tokens, plan)
        deep = add_(_convolve(self.conv_after_body, self.norm(tokens)), shallow)
        deep = deep.permute(0, 3, 1, 2)
        restored = self.folded_upsampler(leaky_relu_(self.conv_before_upsample[0](deep), SLOPE))
        if self.wide_leave is None:
            return restored
        return restored + F.pixel_shuffle(in_full_precision(self.wide_leave, deep), self.scale)
