"""Window attention of HAT: shifted-window plans, which depend on the map size only, and the two kinds of attention.

Tokens are a map (B, H, W, C) throughout. A permuted view of it is a channels-last image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dcn

MASKED = -100.0  # added to the scores of pixels that are neighbours only because of the cyclic shift
PADDED_HEAD = 16  # heads are padded to a multiple of this width ...
LARGEST_PADDING = 1.15  # ... unless that makes them wider than this factor, when padding costs more than it gains


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """F.linear for x (..., L, inputs). On CPUs as a 1x1 convolution: oneDNN is 1.5 times as fast as BLAS there.

    dilation=2 has no effect on a 1x1 kernel, but without it PyTorch does not choose oneDNN when it runs on one thread.
    """
    if x.device.type != "cpu" or x.dim() < 3:
        return F.linear(x, weight, bias)
    image = x.reshape(1, -1, *x.shape[-2:]).permute(0, 3, 1, 2)  # (1, inputs, ..., L), channels last
    result = F.conv2d(image, weight[:, :, None, None], bias, dilation=2)
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
    """Rows of the (2*window-1)**2 relative position bias table for each (query, key) of a window: (window**2, window**2)."""
    distance = _coordinates(window)[:, None] - _coordinates(window)[None] + window - 1
    return distance[..., 0] * (2 * window - 1) + distance[..., 1]


def overlap_position_index(window: int, margin: int) -> Tensor:
    """Rows of the (2*window+2*margin-1)**2 table for queries of a window and keys up to `margin` beyond it.

    The published index counts from a wrong origin, so it becomes negative and wraps around in the table. It is still one
    to one; the wrap is kept because the published weights were trained with it.
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
    """Order and masks of the shifted windows of one map size; made once per forward pass and shared by all blocks.

    The mask of a shifted window depends only on whether it is in the last row or the last column of windows. So the
    windows are sorted into at most four kinds, and each kind shares one mask.
    """

    order: Tensor  # (windows,): the windows sorted by kind
    inverse: Tensor  # (windows,): puts them back
    kinds: list[tuple[int, Tensor | None]]  # (number of windows, mask (window**2, window**2) or None)


def window_plan(height: int, width: int, window: int, like: Tensor) -> WindowPlan:
    """The plan of a map of height x width tokens, on the device and with the dtype of `like`.

    It is made on the device: a copy from the CPU would wait for it.
    """
    rows, columns, device = height // window, width // window, like.device
    numbers = torch.arange(rows * columns, device=device).view(rows, columns)
    inner, last = slice(None, -1), slice(-1, None)
    late = _coordinates(window, device) >= window - window // 2  # beyond the cut of the shift, by row and by column
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
            kinds.append((len(group), None if mask is None else mask.to(like) * MASKED))
    joined = torch.cat(order)
    return WindowPlan(joined, torch.argsort(joined), kinds)


@torch.compiler.disable  # plans depend on Python numbers: compiled code would be specialised to every size
def eager_window_plan(height: int, width: int, window: int, like: Tensor) -> WindowPlan:
    """`window_plan`, outside compiled graphs."""
    return window_plan(height, width, window, like)


def symbolic_window_plan(height: int, width: int, window: int, like: Tensor) -> WindowPlan:
    """`window_plan` for sizes that are symbols of a graph: unsorted windows of one kind, with a mask (windows, 1, L, L)."""
    rows, columns = height // window, width // window
    last_row = torch.arange(rows, device=like.device) == rows - 1
    last_column = torch.arange(columns, device=like.device) == columns - 1
    late = torch.arange(window, device=like.device) >= window - window // 2  # beyond the cut of the cyclic shift
    apart_y = (late[:, None] != late[None]).repeat_interleave(window, 0).repeat_interleave(window, 1)
    apart_x = (late[:, None] != late[None]).repeat(window, window)
    cut = (last_row[:, None, None, None] & apart_y) | (last_column[None, :, None, None] & apart_x)
    mask = cut.flatten(0, 1)[:, None].to(like) * MASKED
    order = torch.arange(rows * columns, device=like.device)
    return WindowPlan(order, order, [(rows * columns, mask)])


class MultiHead(nn.Module):
    """Common part of both kinds of attention: the linear layers and the relative position bias.

    Head widths that are no multiple of 16 (30 in the paper) are padded to the next one with zeros: this does not change
    the result, and matrix products are up to twice as fast.
    """

    relative_position_index: Tensor

    def __init__(self, embed: int, heads: int, positions: int, index: Tensor) -> None:
        super().__init__()
        self.heads, self.head_width = heads, embed // heads
        padded = -(-self.head_width // PADDED_HEAD) * PADDED_HEAD
        self.head_padding = padded - self.head_width if padded <= LARGEST_PADDING * self.head_width else 0
        self.relative_position_bias_table = nn.Parameter(torch.empty(positions, heads))
        self.qkv = nn.Linear(embed, 3 * embed)
        self.proj = nn.Linear(embed, embed)
        self.register_buffer("relative_position_index", index, persistent=False)

    def fused(self, x: Tensor, window: int, margin: int = 0, shift: int = 0) -> Tensor:
        """Attention of a map (B, H, W, embed) by the compiled operator for CPUs (dcn.attention)."""
        qkv = linear(x, self.qkv.weight, self.qkv.bias)
        bias, scale = self.position_bias()[0], self.head_width**-0.5
        attended = dcn.attention.window_attention(qkv, bias, self.heads, window, scale, margin=margin, shift=shift)
        return linear(attended, self.proj.weight, self.proj.bias)

    def query_key_value(self, x: Tensor) -> Tensor:
        """(..., embed) -> (..., 3, heads, padded width)."""
        weight = self.qkv.weight.unflatten(0, (3 * self.heads, -1))
        bias = self.qkv.bias.unflatten(0, (3 * self.heads, -1))
        weight, bias = F.pad(weight, (0, 0, 0, self.head_padding)), F.pad(bias, (0, self.head_padding))
        return linear(x, weight.flatten(0, 1), bias.flatten()).unflatten(-1, (3, self.heads, -1))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """softmax(q k / sqrt(width) + bias) v: (M, heads, L, padded width), bias (1, heads, L, keys) -> (M, L, ...)."""
        bias = bias.to(query.dtype).expand(query.shape[0], -1, -1, -1)
        result = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=self.head_width**-0.5)
        return result.transpose(1, 2).flatten(2)

    def merge(self, x: Tensor) -> Tensor:
        """(..., heads * padded width) -> (..., embed)."""
        weight = F.pad(self.proj.weight.unflatten(1, (self.heads, -1)), (0, self.head_padding))
        return linear(x, weight.flatten(1), self.proj.bias)

    def position_bias(self) -> Tensor:
        """(1, heads, queries, keys)."""
        bias = F.embedding(self.relative_position_index, self.relative_position_bias_table)
        return bias.permute(2, 0, 1)[None].contiguous()


class WindowAttention(MultiHead):
    """Multi-head attention inside windows of `window` x `window` tokens, with relative position bias."""

    def __init__(self, embed: int, heads: int, window: int) -> None:
        super().__init__(embed, heads, (2 * window - 1) ** 2, position_index(window))
        self.window = window

    def forward(self, x: Tensor, plan: WindowPlan | None) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C). With a plan: in windows shifted by half a window."""
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
        """(windows, B, L, C) -> same shape. `kinds`: numbers of consecutive windows and their bias (1, heads, L, L)."""
        parts = self.query_key_value(windows).split([count for count, _ in kinds])  # (count, B, L, 3, heads, width)
        results = []
        for part, (_, bias) in zip(parts, kinds, strict=True):
            query, key, value = part.flatten(0, 1).permute(2, 0, 3, 1, 4)
            results.append(self.attend(query, key, value, bias))
        joined = results[0] if len(results) == 1 else torch.cat(results)  # (windows * B, L, heads * width)
        return self.merge(joined.unflatten(0, windows.shape[:2]))


class OverlapAttention(MultiHead):
    """Overlapping cross-attention: from the tokens of a window to the keys of a larger window around it.

    Keys outside the map are zero after the linear layer and take part in the softmax, as published.
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
