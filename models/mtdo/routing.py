"""T-DROM: three routes that weight the temporal differences. MTDO paper, section on T-DROM."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import ConvPReLU, add_, upsample2


class MFEU(nn.Module):
    """Multi-scale feature enhancement: x + Q(x) + up2(P(pool2(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fine = ConvPReLU(channels, channels)  # Q
        self.coarse = ConvPReLU(channels, channels)  # P

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w); h and w even."""
        return add_(add_(self.fine(x), x), upsample2(self.coarse(F.avg_pool2d(x, 2))))


class DifferenceRoutes(nn.Module):
    """Routes 1 and 2: adjacent and skipped differences, each with the centre frame; the last convolution is shared."""

    def __init__(self, channels: int, route1: bool, route2: bool) -> None:
        super().__init__()
        self.route1, self.route2 = route1, route2
        self.centre = ConvPReLU(3, 2 * channels)
        self.merge = ConvPReLU(3 * channels, channels)
        if route2:
            self.enhance = MFEU(3 * channels)

    def forward(self, adjacent: Tensor | None, skipped: Tensor | None, centre: Tensor) -> Tensor:
        """D_A, D_S (B, C, h, w) (None counts as zero) and the centre frame (B, 3, h, w) -> R12 (B, C, h, w)."""
        source = self.centre(centre)
        routes = []
        if self.route1:
            routes.append(self.merge(_with_source(adjacent, source)))
        if self.route2:
            routes.append(self.merge(self.enhance(_with_source(skipped, source))))
        return routes[0] if len(routes) == 1 else 0.5 * routes[0] + 0.5 * routes[1]


def _with_source(difference: Tensor | None, source: Tensor) -> Tensor:
    if difference is None:
        difference = torch.zeros_like(source[:, : source.shape[1] // 2])
    return torch.cat([difference, source], 1)


class AlignedRoute(nn.Module):
    """Route 3: all aligned frames, amplified by a gate of the cross differences.

    ctdm: "paper": the gate depends on D_F and D_B. "as_shipped": both are zero, so the gate depends on the biases only, and
    the frames are in reversed order (docs/mtdo.md). "off": no gate.
    """

    def __init__(self, channels: int, frames: int, ctdm: str) -> None:
        super().__init__()
        self.ctdm = ctdm
        if ctdm != "off":
            self.enhance = MFEU(channels)
            self.gate = ConvPReLU(channels, channels * frames)
        self.fuse = nn.Conv2d(channels * frames, channels, 3, padding=1)

    def forward(self, aligned: Tensor, differences: tuple[Tensor, Tensor] | None) -> Tensor:
        """Aligned features (B, N, C, h, w) and (D_F, D_B) each (B, C, h, w) -> R3 (B, C, h, w)."""
        return self.fuse(self.amplify(aligned, differences))

    def amplify(self, aligned: Tensor, differences: tuple[Tensor, Tensor] | None) -> Tensor:
        """As `forward`, before the fusion: (B, N*C, h, w)."""
        if self.ctdm == "off":
            return aligned.flatten(1, 2)
        if self.ctdm == "as_shipped":
            everything = aligned.flip(1).flatten(1, 2)
            return everything * (1 + self.constant_attention(*aligned.shape[-2:]))
        assert differences is not None  # of ctdm: paper
        everything = aligned.flatten(1, 2)
        gates = torch.sigmoid(self.gate(self.enhance(torch.cat(differences))))  # of D_F, then of D_B: (2B, N*C, h, w)
        forward, backward = gates.chunk(2)
        return everything * (1 + forward + backward)

    def constant_attention(self, height: int, width: int) -> Tensor:
        """The attention of a zero difference, (1, N*C, height, width).

        The gate of a constant map differs at the border only (zero padding), so 3x3 points determine all of it.
        """
        zero = self.gate.conv.weight.new_zeros(1, self.gate.conv.in_channels, 2, 2)
        enhanced = self.enhance(zero)[..., :1, :1].expand(-1, -1, 3, 3)
        points = 2 * torch.sigmoid(self.gate(enhanced))
        for axis, size in ((-2, height), (-1, width)):
            index = torch.ones(size, dtype=torch.long, device=points.device)
            index[0], index[-1] = 0, 2
            points = points.index_select(axis, index)
        return points
