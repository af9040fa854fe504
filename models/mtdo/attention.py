"""Window attention of HAT: what depends on the size alone (plans), and the two kinds of attention.

Tokens stay a map (B, H, W, C) in row-major order, which is also a channels-last picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dcn

BETWEEN_REGIONS = -100.0  # added to scores between pixels that only the roll made neighbours


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """F.linear for x (..., L, inputs). On CPUs as a 1x1 convolution: oneDNN is 1.5 times as fast as BLAS there.

    A dilation means nothing to a 1x1 kernel, but without one PyTorch does not take oneDNN where there is one thread.
    """
    if x.device.type != "cpu" or x.dim() < 3:
        return F.linear(x, weight, bias)
    picture = x.reshape(1, -1, *x.shape[-2:]).permute(0, 3, 1, 2)  # (1, inputs, ..., L), channels last
    result = F.conv2d(picture, weight[:, :, None, None], bias, dilation=2)
    return result.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


def partition(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) -> (windows, B, window**2, C), windows in row-major order."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window, window, width // window, window, channels)
    return x.permute(1, 3, 0, 2, 4, 5).reshape(-1, batch, window * window, channels)


def join(windows: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `partition`: (windows, B, window**2, C) -> (B, height, width, C)."""
    batch, tokens, channels = windows.shape[1:]
    window = round(int(tokens) ** 0.5)  # int: a tensor while tracing
    windows = windows.view(height // window, width // window, batch, window, window, channels)
    return windows.permute(2, 0, 3, 1, 4, 5).reshape(batch, height, width, channels)


def position_index(window: int) -> Tensor:
    """Rows of the (2*window-1)**2 position table for (query, key) inside one window: (window**2, window**2)."""
    distance = _coordinates(window)[:, None] - _coordinates(window)[None] + window - 1
    return distance[..., 0] * (2 * window - 1) + distance[..., 1]


def overlap_position_index(window: int, margin: int) -> Tensor:
    """Rows of the (2*window+2*margin-1)**2 table for queries of a window and keys that reach `margin` beyond it.

    The published index counts from a wrong origin: it becomes negative and wraps around in the table. It is one to one
    all the same, so only weights trained with another index would notice; the wrap is kept for the published ones.
    """
    reach = window + 2 * margin
    side = window + reach - 1
    distance = _coordinates(reach)[None] - _coordinates(window)[:, None] + window - reach + 1
    return (distance[..., 0] * side + distance[..., 1]) % side**2


def _coordinates(side: int, device: torch.device | None = None) -> Tensor:
    """(side**2, 2): row and column of each pixel of a square, row-major."""
    line = torch.arange(side, device=device)
    return torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).flatten(0, 1)


@dataclass
class WindowPlan:
    """What the shifted windows of one map size need, made once per forward and handed to every block.

    A shifted window's mask depends on one thing: whether it lies in the last row or the last column of windows.
    So the windows are sorted into (at most) four kinds and each kind shares one mask.
    """

    order: Tensor  # (windows,): the windows sorted by kind
    inverse: Tensor  # (windows,): puts them back
    kinds: list[tuple[int, Tensor | None]]  # (number of windows, mask (window**2, window**2) or None)


def window_plan(height: int, width: int, window: int, like: Tensor) -> WindowPlan:
    """The plan of a map of height x width tokens, on the device and in the type of `like`.

    It is made on the device, because copies from the CPU would wait for it.
    """
    rows, columns, device = height // window, width // window, like.device
    numbers = torch.arange(rows * columns, device=device).view(rows, columns)
    inner, last = slice(None, -1), slice(-1, None)
    late = _coordinates(window, device) >= window - window // 2  # beyond the cut of the roll, by row and by column
    apart = late[:, None] != late[None]  # (queries, keys, 2)
    kinds: list[tuple[int, Tensor | None]] = []
    order = []
    for y, x, mask in (
        (inner, inner, None),
        (inner, last, apart[..., 1]),
        (last, inner, apart[..., 0]),
        (last, last, apart.any(-1)),
    ):
        group = numbers[y, x].flatten()
        if len(group):
            order.append(group)
            kinds.append((len(group), None if mask is None else mask.to(like) * BETWEEN_REGIONS))
    joined = torch.cat(order)
    return WindowPlan(joined, torch.argsort(joined), kinds)


class MultiHead(nn.Module):
    """What both kinds of attention share: the linear layers into and out of the heads, and the table of positions.

    Heads of an odd width (30 in the paper) are computed as the next multiple of 16, filled with zeros: matrix products
    are up to twice as fast so, and zeros change nothing.
    """

    def __init__(self, embed: int, heads: int, positions: int, index: Tensor) -> None:
        super().__init__()
        self.heads, self.head_width = heads, embed // heads
        fuller = -(-self.head_width // 16) * 16
        self.filling = fuller - self.head_width if fuller <= 1.15 * self.head_width else 0
        self.table = nn.Parameter(torch.empty(positions, heads))
        self.qkv = nn.Linear(embed, 3 * embed)
        self.project = nn.Linear(embed, embed)
        self.register_buffer("index", index, persistent=False)

    def fused(self, x: Tensor, window: int, margin: int = 0, shift: int = 0) -> Tensor:
        """The whole attention of a map (B, H, W, embed) through the compiled operator of CPUs (dcn.attention)."""
        qkv = linear(x, self.qkv.weight, self.qkv.bias)
        bias, scale = self.position_bias()[0], self.head_width**-0.5
        attended = dcn.attention.window_attention(qkv, bias, self.heads, window, scale, margin=margin, shift=shift)
        return linear(attended, self.project.weight, self.project.bias)

    def query_key_value(self, x: Tensor) -> Tensor:
        """(..., embed) -> (..., 3, heads, filled width)."""
        weight = self.qkv.weight.unflatten(0, (3 * self.heads, -1))
        bias = self.qkv.bias.unflatten(0, (3 * self.heads, -1))
        weight, bias = F.pad(weight, (0, 0, 0, self.filling)), F.pad(bias, (0, self.filling))
        return linear(x, weight.flatten(0, 1), bias.flatten()).unflatten(-1, (3, self.heads, -1))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """softmax(q k / sqrt(width) + bias) v: (M, heads, L, filled width), bias (1, heads, L, keys) -> (M, L, ...)."""
        bias = bias.to(query.dtype).expand(query.shape[0], -1, -1, -1)
        result = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=self.head_width**-0.5)
        return result.transpose(1, 2).flatten(2)

    def merge(self, x: Tensor) -> Tensor:
        """(..., heads * filled width) -> (..., embed)."""
        weight = F.pad(self.project.weight.unflatten(1, (self.heads, -1)), (0, self.filling))
        return linear(x, weight.flatten(1), self.project.bias)

    def position_bias(self) -> Tensor:
        """(1, heads, queries, keys)."""
        return F.embedding(self.index, self.table).permute(2, 0, 1)[None].contiguous()


class WindowAttention(MultiHead):
    """Multi-head attention inside windows of `window` x `window` tokens, with relative position bias."""

    def __init__(self, embed: int, heads: int, window: int) -> None:
        super().__init__(embed, heads, (2 * window - 1) ** 2, position_index(window))
        self.window = window

    def forward(self, x: Tensor, plan: WindowPlan | None) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C). With a plan: over windows shifted by half a window."""
        if dcn.attention.usable(x):
            return self.fused(x, self.window, shift=0 if plan is None else self.window // 2)
        height, width = x.shape[1:3]
        bias = self.position_bias()
        if plan is None:
            windows = partition(x, self.window)
            return join(self.within(windows, [(windows.shape[0], bias)]), height, width)
        shift = self.window // 2
        windows = partition(x.roll((-shift, -shift), (1, 2)), self.window).index_select(0, plan.order)
        masked = [(count, bias if mask is None else bias + mask) for count, mask in plan.kinds]
        windows = self.within(windows, masked).index_select(0, plan.inverse)
        return join(windows, height, width).roll((shift, shift), (1, 2))

    def within(self, windows: Tensor, kinds: list[tuple[int, Tensor]]) -> Tensor:
        """(windows, B, L, C) -> the same; `kinds`: how many windows in turn share which bias (1, heads, L, L)."""
        parts = self.query_key_value(windows).split([count for count, _ in kinds])  # (count, B, L, 3, heads, width)
        results = [
            self.attend(*part.flatten(0, 1).permute(2, 0, 3, 1, 4), bias)
            for part, (_, bias) in zip(parts, kinds, strict=True)
        ]
        joined = results[0] if len(results) == 1 else torch.cat(results)  # (windows * B, L, heads * width)
        return self.merge(joined.unflatten(0, windows.shape[:2]))


class OverlapAttention(MultiHead):
    """Attention of the tokens of a window to the keys of a larger window around it (overlapping cross-attention).

    Keys beyond the map are zero AFTER the linear layer and take part in the softmax, as published.
    """

    def __init__(self, embed: int, heads: int, window: int, margin: int) -> None:
        positions = (2 * window + 2 * margin - 1) ** 2
        super().__init__(embed, heads, positions, overlap_position_index(window, margin))
        self.window, self.margin = window, margin

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        if dcn.attention.usable(x):
            return self.fused(x, self.window, margin=self.margin)
        batch, height, width, _ = x.shape
        qkv = self.query_key_value(x)  # (B, H, W, 3, heads, width)
        query = partition(qkv[..., 0, :, :].flatten(3), self.window).flatten(0, 1)
        query = query.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (windows * B, heads, L, width)
        key, value = self.neighbourhoods(qkv[..., 1:, :, :])
        result = self.merge(self.attend(query, key, value, self.position_bias()))
        return join(result.unflatten(0, (-1, batch)), height, width)

    def neighbourhoods(self, key_value: Tensor) -> Tensor:
        """Keys and values (B, H, W, 2, heads, d) -> (2, windows*B, heads, reach**2, d), reach = window + 2 * margin."""
        reach = self.window + 2 * self.margin
        padded = F.pad(key_value, (0, 0, 0, 0, 0, 0, *[self.margin] * 4))
        views = padded.unfold(1, reach, self.window).unfold(2, reach, self.window)  # (B, n, m, 2, heads, d, ...)
        views = views.permute(3, 1, 2, 0, 4, 6, 7, 5)  # (2, n, m, B, heads, reach, reach, d)
        return views.reshape(2, -1, self.heads, reach * reach, views.shape[-1])
