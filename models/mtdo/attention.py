"""Window attention of HAT: what depends on the size alone (plans), and the two kinds of attention.

Tokens stay a map (B, H, W, C) in row-major order, which is also a channels-last picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BETWEEN_REGIONS = -100.0  # added to scores between pixels that only the roll made neighbours


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """`layer(x)` for x (..., L, inputs). On CPUs as a 1x1 convolution: oneDNN is 1.5 times as fast as BLAS."""
    if x.device.type != "cpu" or x.dim() < 3:
        return layer(x)
    picture = x.reshape(1, -1, *x.shape[-2:]).permute(0, 3, 1, 2)  # (1, inputs, ..., L), channels last
    result = F.conv2d(picture, layer.weight[:, :, None, None], layer.bias)
    return result.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


def partition(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) -> (windows, B, window**2, C), windows in row-major order."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window, window, width // window, window, channels)
    return x.permute(1, 3, 0, 2, 4, 5).reshape(-1, batch, window * window, channels)


def join(windows: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `partition`: (windows, B, window**2, C) -> (B, height, width, C)."""
    batch, tokens, channels = windows.shape[1:]
    window = round(tokens**0.5)
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


def _coordinates(side: int) -> Tensor:
    """(side**2, 2): row and column of each pixel of a square, row-major."""
    line = torch.arange(side)
    return torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).flatten(0, 1)


def position_bias(table: Tensor, index: Tensor) -> Tensor:
    """Position table (rows, heads) and index (queries, keys) -> (1, heads, queries, keys)."""
    return F.embedding(index, table).permute(2, 0, 1)[None].contiguous()


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
    """The plan of a map of height x width tokens, on the device and in the type of `like`."""
    rows, columns = height // window, width // window
    last_row = torch.arange(rows) == rows - 1
    last_column = torch.arange(columns) == columns - 1
    kind_of = (2 * last_row[:, None].long() + last_column[None].long()).flatten()
    order = torch.argsort(kind_of, stable=True)
    late = _coordinates(window) >= window - window // 2  # beyond the cut of the roll, by row and by column
    apart = late[:, None] != late[None]  # (queries, keys, 2)
    kinds: list[tuple[int, Tensor | None]] = []
    for kind, axes in enumerate(([], [1], [0], [0, 1])):
        count = int((kind_of == kind).sum())
        if count:
            mask = apart[..., axes].any(-1).to(like) * BETWEEN_REGIONS if axes else None
            kinds.append((count, mask))
    return WindowPlan(order.to(like.device), torch.argsort(order).to(like.device), kinds)


class WindowAttention(nn.Module):
    """Multi-head attention inside windows of `window` x `window` tokens, with relative position bias."""

    def __init__(self, embed: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        self.qkv = nn.Linear(embed, 3 * embed)
        self.project = nn.Linear(embed, embed)
        self.register_buffer("index", position_index(window), persistent=False)

    def forward(self, x: Tensor, plan: WindowPlan | None) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C). With a plan: over windows shifted by half a window."""
        height, width = x.shape[1:3]
        bias = position_bias(self.table, self.index)
        if plan is None:
            windows = self.attend(partition(x, self.window), [(None, bias)])
            return join(windows, height, width)
        shift = self.window // 2
        windows = partition(x.roll((-shift, -shift), (1, 2)), self.window)[plan.order]
        masked = [(count, bias if mask is None else bias + mask) for count, mask in plan.kinds]
        windows = self.attend(windows, masked)[plan.inverse]
        return join(windows, height, width).roll((shift, shift), (1, 2))

    def attend(self, windows: Tensor, kinds: list[tuple[int | None, Tensor]]) -> Tensor:
        """(windows, B, L, C) -> the same; `kinds`: how many windows (None: all) share which bias (1, heads, L, L)."""
        qkv = linear(self.qkv, windows).unflatten(-1, (3, self.heads, -1))  # (windows, B, L, 3, heads, d)
        results, start = [], 0
        for count, bias in kinds:
            stop = None if count is None else start + count
            query, key, value = qkv[start:stop].flatten(0, 1).permute(2, 0, 3, 1, 4)  # each (windows*B, heads, L, d)
            results.append(attention(query, key, value, bias))
            start = stop or 0
        joined = results[0] if len(results) == 1 else torch.cat(results)
        return linear(self.project, joined.view_as(windows))


class OverlapAttention(nn.Module):
    """Attention of the tokens of a window to the keys of a larger window around it (overlapping cross-attention).

    Keys beyond the map are zero AFTER the linear layer and take part in the softmax, as published.
    """

    def __init__(self, embed: int, heads: int, window: int, margin: int) -> None:
        super().__init__()
        self.heads, self.window, self.margin = heads, window, margin
        self.table = nn.Parameter(torch.empty((2 * window + 2 * margin - 1) ** 2, heads))
        self.qkv = nn.Linear(embed, 3 * embed)
        self.project = nn.Linear(embed, embed)
        self.register_buffer("index", overlap_position_index(window, margin), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        batch, height, width, channels = x.shape
        qkv = linear(self.qkv, x)
        query = partition(qkv[..., :channels], self.window).flatten(0, 1)  # (windows*B, L, C)
        query = query.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.neighbourhoods(qkv[..., channels:])
        result = attention(query, key, value, position_bias(self.table, self.index))
        result = linear(self.project, result.view(-1, batch, self.window**2, channels))
        return join(result, height, width)

    def neighbourhoods(self, key_value: Tensor) -> Tensor:
        """Keys and values (B, H, W, 2C) -> (2, windows*B, heads, reach**2, d), reach = window + 2 * margin."""
        reach = self.window + 2 * self.margin
        padded = F.pad(key_value, (0, 0, *[self.margin] * 4))
        views = padded.unfold(1, reach, self.window).unfold(2, reach, self.window)  # (B, n, m, 2C, reach, reach)
        views = views.unflatten(3, (2, self.heads, -1)).permute(3, 1, 2, 0, 4, 6, 7, 5)
        return views.reshape(2, -1, self.heads, reach * reach, views.shape[-1])


def attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k / sqrt(d) + bias) v for (M, heads, L, d) and bias (1, heads, L, keys) -> (M, L, heads * d)."""
    bias = bias.to(query.dtype).expand(query.shape[0], -1, -1, -1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(1, 2).flatten(2)
