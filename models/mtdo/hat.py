"""HAT, the Hybrid Attention Transformer that reconstructs the frame (Chen et al., CVPR 2023).

Tokens are a map (B, H, W, embed) throughout; a permuted view of it is the channels-last picture that convolutions take.
"""

from __future__ import annotations

from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import Upsampler, add, gelu, in_full, leaky_relu
from models.mtdo.attention import OverlapAttention, WindowAttention, WindowPlan, linear, window_plan
from models.mtdo.config import HATConfig
from models.mtdo.tail import FoldedTail


def _convolve(conv: nn.Conv2d, tokens: Tensor) -> Tensor:
    """A convolution on a token map (B, H, W, C)."""
    return conv(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()


class DropPath(nn.Module):
    """In training, drop the whole term for each sample with probability `rate`, and scale what remains."""

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
        self.expand = nn.Linear(embed, hidden)
        self.reduce = nn.Linear(hidden, embed)

    def forward(self, x: Tensor) -> Tensor:
        """(..., embed) -> (..., embed)."""
        hidden = gelu(linear(x, self.expand.weight, self.expand.bias))
        return linear(hidden, self.reduce.weight, self.reduce.bias)


class ConvBranch(nn.Module):
    """Convolutions and channel attention beside the window attention (CAB)."""

    def __init__(self, config: HATConfig) -> None:
        super().__init__()
        narrow, squeezed = config.embed // config.compress, config.embed // config.squeeze
        self.weight = config.conv_weight
        self.compress = nn.Conv2d(config.embed, narrow, 3, padding=1)
        self.expand = nn.Conv2d(narrow, config.embed, 3, padding=1)
        self.squeeze = nn.Conv2d(config.embed, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, config.embed, 1)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, W, C) -> the branch (B, H, W, C) and its channel weights (B, 1, 1, C), still to be multiplied."""
        branch = _convolve(self.expand, gelu(_convolve(self.compress, tokens)))
        mean = branch.mean((1, 2), keepdim=True)
        gate = torch.sigmoid(_convolve(self.excite, F.relu(_convolve(self.squeeze, mean))))
        return branch, self.weight * gate


class HybridBlock(nn.Module):
    """Window attention and convolution branch on the same normed tokens, then the MLP (HAB)."""

    def __init__(self, config: HATConfig, shifted: bool, drop_path: float) -> None:
        super().__init__()
        self.shifted = shifted
        self.norm_attention = nn.LayerNorm(config.embed)
        self.attention = WindowAttention(config.embed, config.heads, config.window)
        self.conv = ConvBranch(config)
        self.norm_mlp = nn.LayerNorm(config.embed)
        self.mlp = MLP(config.embed, int(config.embed * config.mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, plan: WindowPlan) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        normed = self.norm_attention(x)
        branch, gate = self.conv(normed)
        attended = self.drop_path(self.attention(normed, plan if self.shifted else None))
        x = torch.addcmul(add(attended, x), branch, gate)
        return add(self.drop_path(self.mlp(self.norm_mlp(x))), x)


class OverlapBlock(nn.Module):
    """Overlapping cross-attention, then an MLP (OCAB)."""

    def __init__(self, config: HATConfig) -> None:
        super().__init__()
        margin = round(config.overlap * config.window / 2)
        self.norm_attention = nn.LayerNorm(config.embed)
        self.attention = OverlapAttention(config.embed, config.heads, config.window, margin)
        self.norm_mlp = nn.LayerNorm(config.embed)
        self.mlp = MLP(config.embed, int(config.embed * config.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        x = add(self.attention(self.norm_attention(x)), x)
        return add(self.mlp(self.norm_mlp(x)), x)


class Group(nn.Module):
    """Hybrid blocks (every second one shifted), one overlapping block, a convolution, plus the group's input (RHAG)."""

    def __init__(self, config: HATConfig, drop_paths: list[float]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(HybridBlock(config, i % 2 == 1, rate) for i, rate in enumerate(drop_paths))
        self.overlap = OverlapBlock(config)
        self.conv = nn.Conv2d(config.embed, config.embed, 3, padding=1)

    def forward(self, tokens: Tensor, plan: WindowPlan) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        x = tokens
        for block in self.blocks:
            x = block(x, plan)
        return add(_convolve(self.conv, self.overlap(x)), tokens)


class HAT(nn.Module):
    """Features (B, channels, h, w), h and w multiples of the window -> frame (B, 3, scale*h, scale*w).

    extra: channels of a second input, for `wide: true` of `MTDOConfig`; not in the paper. `embed` is wider than `channels` in
    the small networks: the second input and a second output convolution, at `embed` channels, avoid the narrow layers.
    """

    def __init__(self, config: HATConfig, channels: int, scale: int, extra: int = 0) -> None:
        super().__init__()
        self.window, self.scale = config.window, scale
        self.enter = nn.Conv2d(channels, config.embed, 3, padding=1)
        self.norm_enter = nn.LayerNorm(config.embed)
        blocks = sum(config.depths)
        rates = iter([config.drop_path * block / max(blocks - 1, 1) for block in range(blocks)])
        self.groups = nn.ModuleList(Group(config, list(islice(rates, depth))) for depth in config.depths)
        self.norm_leave = nn.LayerNorm(config.embed)
        self.after_body = nn.Conv2d(config.embed, config.embed, 3, padding=1)
        self.leave = nn.Conv2d(config.embed, channels, 3, padding=1)
        self.upsample = Upsampler(channels, scale)
        self.last = nn.Conv2d(channels, 3, 3, padding=1)
        self.tail = FoldedTail(self.upsample, self.last, scale)
        self.wide_enter = nn.Conv2d(extra, config.embed, 3, padding=1) if extra else None
        self.wide_leave = nn.Conv2d(config.embed, 3 * scale**2, 3, padding=1) if extra else None

    def forward(self, features: Tensor, extra: Tensor | None = None) -> Tensor:
        """(B, channels, h, w), and (B, extra, h, w) where the network was built with `extra` -> (B, 3, scale*h, scale*w)."""
        entered = self.enter(features)
        if self.wide_enter is not None:
            assert extra is not None
            entered = add(self.wide_enter(extra), entered)
        shallow = entered.permute(0, 2, 3, 1).contiguous()  # (B, h, w, embed)
        plan = window_plan(*shallow.shape[1:3], self.window, shallow)
        tokens = self.norm_enter(shallow)
        for group in self.groups:
            tokens = group(tokens, plan)
        deep = add(_convolve(self.after_body, self.norm_leave(tokens)), shallow)
        deep = deep.permute(0, 3, 1, 2)
        restored = self.tail(leaky_relu(self.leave(deep), 0.01))
        if self.wide_leave is None:
            return restored
        return restored + F.pixel_shuffle(in_full(self.wide_leave, deep), self.scale)
