"""Inter-frame Galerkin attention: the kernel integral of STNO's interpolation operator (arXiv 2404.06036, section on
the operator).

Softmax-free attention between the tokens of two frames. `k^T v / n` is a 16 x 16 matrix for each head: a sum over the n
tokens, which is the quadrature of an integral over the image. So the cost grows linearly with n, and there is no n x n
matrix.

Modules with a switch `symbolic` process their map at once when it is set: the number of chunks depends on the size of
the map, which is a symbol in an exported graph.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Tokens processed at a time: intermediate results stay in the CPU's cache, so time is linear in the size of the map.
CHUNK = 4096
SMALLEST_VARIANCE = 1e-30  # keeps the gradient of the square root finite for constant channels; no effect on the result


def coordinate_grid(height: int, width: int, like: Tensor, symbolic: bool = False) -> Tensor:
    """Token coordinates (height * width, 2) as (x, y), each running linearly from -1 to 1 over the map.

    symbolic: without `linspace`, which the ONNX exporter writes for one size only; equal to rounding. A side that is a symbol
    has at least two tokens.
    """
    if symbolic:
        steps = [max(side - 1, 1) if isinstance(side, int) else side - 1 for side in (height, width)]
        sides = zip((height, width), steps, strict=True)
        ys, xs = (2 * torch.arange(side, device=like.device).to(like) / step - 1 for side, step in sides)
    else:
        ys = torch.linspace(-1, 1, height, dtype=like.dtype, device=like.device)
        xs = torch.linspace(-1, 1, width, dtype=like.dtype, device=like.device)
    grid_y, grid_x = torch.meshgrid(ys, xs, indexing="ij")
    return torch.stack([grid_x, grid_y], dim=-1).flatten(0, 1)


def swap_frames(tokens: Tensor) -> Tensor:
    """Exchange the halves of the batch: the other frame of every pair."""
    return torch.cat(tokens.chunk(2)[::-1])


class HeadNorm(nn.Module):
    """Layer norm over the channels of each head: unbiased standard deviation, eps added to it, not to the variance; scale
    and shift for each head and channel.
    """

    def __init__(self, heads: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, 1, channels))
        self.bias = nn.Parameter(torch.zeros(heads, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., heads, n, channels) -> same shape."""
        centred = x - x.mean(dim=-1, keepdim=True)
        variance = centred.square().sum(dim=-1, keepdim=True) / (x.shape[-1] - 1)  # twice as fast as torch.var
        return centred / (variance.clamp_min(SMALLEST_VARIANCE).sqrt() + 1e-5) * self.weight + self.bias


class GalerkinAttention(nn.Module):
    """Appearance and motion of a frame with respect to the other frame of its pair."""

    def __init__(self, embedding: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.symbolic = False
        self.query = nn.Linear(embedding, embedding)
        self.key_value = nn.Linear(embedding, 2 * embedding)
        self.coordinate = nn.Linear(2, embedding)
        self.key_norm = HeadNorm(heads, embedding // heads)
        self.value_norm = HeadNorm(heads, embedding // heads)
        self.coordinate_norm = HeadNorm(heads, embedding // heads)
        self.appearance = nn.Sequential(nn.Linear(embedding, embedding), nn.GELU(), nn.Linear(embedding, embedding))
        self.motion = nn.Sequential(nn.Linear(embedding, embedding), nn.GELU(), nn.Linear(embedding, embedding))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)  # (..., n, c) -> (..., heads, n, c / heads)

    def forward(self, tokens: Tensor, other: Tensor, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """tokens, other (2B, n, c), both normalised; coordinates (n, 2) -> appearance, motion (2B, n, c)."""
        value_sum, coordinate_sum = self._moments(other, coordinates)
        chunks = self._chunks(tokens, coordinates)
        results = [self._attend(chunk, grid, value_sum, coordinate_sum) for chunk, grid in chunks]
        appearance, motion = zip(*results, strict=True)
        return torch.cat(appearance, dim=1), torch.cat(motion, dim=1)

    def _chunks(self, tokens: Tensor, coordinates: Tensor) -> list[tuple[Tensor, Tensor]]:
        if self.symbolic:
            return [(tokens, coordinates)]
        return list(zip(tokens.split(CHUNK, dim=1), coordinates.split(CHUNK), strict=True))

    def _moments(self, other: Tensor, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """k^T v / n and k^T c / n: sums over all tokens, each (2B, heads, c / heads, c / heads)."""
        values, positions, count = [], [], other.shape[1]
        for chunk, grid in self._chunks(other, coordinates):
            key, value = (self._split(x) for x in self.key_value(chunk).chunk(2, dim=-1))
            key = self.key_norm(key).transpose(-1, -2) / count
            values.append(key @ self.value_norm(value))
            positions.append(key @ self.coordinate_norm(self._split(self.coordinate(grid))))
        return torch.stack(values).sum(0), torch.stack(positions).sum(0)

    def _attend(
        self, tokens: Tensor, coordinates: Tensor, value_sum: Tensor, coordinate_sum: Tensor
    ) -> tuple[Tensor, Tensor]:
        query = self._split(self.query(tokens))
        appearance = (query @ value_sum).transpose(1, 2).flatten(2) + tokens
        motion = (query @ coordinate_sum).transpose(1, 2).flatten(2) - self.coordinate(coordinates)
        return self.appearance(appearance) + tokens, self.motion(motion)


class FeedForward(nn.Module):
    """Linear, depthwise 3x3 over the map, GELU, Linear."""

    def __init__(self, embedding: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(embedding, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.reduce = nn.Linear(hidden, embedding)
        self.symbolic = False

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Tokens (N, height * width, embedding) -> same shape. In slabs of rows, each with its neighbouring rows."""
        if self.symbolic:
            maps = self.depthwise(self.expand(tokens).transpose(1, 2).unflatten(2, (height, width)))
            return self.reduce(F.gelu(maps.flatten(2).transpose(1, 2)))
        rows = max(1, CHUNK // width)
        slabs = []
        for start in range(0, height, rows):
            stop, first, last = min(start + rows, height), max(start - 1, 0), min(start + rows + 1, height)
            maps = self.expand(tokens[:, first * width : last * width]).transpose(1, 2).unflatten(2, (-1, width))
            inside = self.depthwise(maps)[:, :, start - first : stop - first]
            slabs.append(self.reduce(F.gelu(inside.flatten(2).transpose(1, 2))))
        return torch.cat(slabs, dim=1)


class TokenEmbedding(nn.Module):
    """Maps (N, c, h, w) -> normalised tokens (N, h * w, embedding)."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, embedding, 3, padding=1)
        self.norm = nn.LayerNorm(embedding)

    def forward(self, maps: Tensor) -> Tensor:
        return self.norm(self.project(maps).flatten(2).transpose(1, 2))


class GalerkinBlock(nn.Module):
    """One transformer block with Galerkin attention across the two frames of each pair."""

    def __init__(self, embedding: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embedding)
        self.attention = GalerkinAttention(embedding, heads)
        self.norm2 = nn.LayerNorm(embedding)
        self.feed_forward = FeedForward(embedding, hidden)

    def forward(self, tokens: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """tokens (2B, height * width, c), the first frames of all pairs before the second ones -> appearance, motion of the
        same shape.
        """
        normed = self.norm1(tokens)
        coordinates = coordinate_grid(height, width, tokens, symbolic=self.attention.symbolic)
        attended, motion = self.attention(normed, swap_frames(normed), coordinates)
        update = self.feed_forward(self.norm2(normed + attended), height, width)
        return tokens + update, motion


class InterFrame(nn.Module):
    """Embedding and Galerkin block on the feature maps of both frames of a pair."""

    def __init__(self, channels: int, embedding: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.embed = TokenEmbedding(channels, embedding)
        self.block = GalerkinBlock(embedding, heads, hidden)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Two maps (B, c, h, w) -> appearance of the first and the second, motion of the first and the second, each
        (B, embedding, h, w).
        """
        height, width = first.shape[-2:]
        tokens = self.embed(torch.cat([first, second]))
        appearance, motion = (
            x.transpose(1, 2).unflatten(2, (height, width)).chunk(2) for x in self.block(tokens, height, width)
        )
        return *appearance, *motion
