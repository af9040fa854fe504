"""Bidirectional recurrent propagation (arXiv 2404.06036, section on the propagation; the branches are those of
BasicVSR).

The recurrence runs over the key frames; an intermediate frame reads the state of its neighbour but does not change it. So
the key frame and the intermediate frames of a step depend on the same state, and pass the branch as one batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.flow import Flows, warp
from models.layers import add_


def prelu_(x: Tensor, act: nn.PReLU) -> Tensor:
    """PReLU with one slope for all channels. Without gradients on a CPU it is computed in place, which saves a pass over
    memory; x must be a temporary of the caller.
    """
    # reading the slope as a number would wait for a GPU, and a graph cannot do it
    if torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling():
        return act(x)
    return F.leaky_relu_(x, act.weight.item())


def warp_for_all(state: Tensor, flows: Tensor) -> Tensor:
    """Warp the state (B, C, h, w) of a key frame with the flow of each image of a step ((1 + K) * B, 2, h, w)."""
    return warp(state.repeat(len(flows) // len(state), 1, 1, 1), flows)


class Needed(NamedTuple):
    """The part of a clip for which features are needed.

    gaps: between key frames; features of the intermediate frames of these gaps.   last: of the key frames from 0 to this one, at
    least `gaps.stop`.
    """

    gaps: range
    last: int


class ResidualBlock(nn.Module):
    """Convolution, PReLU with one slope, convolution, plus the input; unlike `models.layers.ResidualBlock` no PReLU follows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.PReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return add_(self.conv2(prelu_(self.conv1(x), self.act)), x)


class Branch(nn.Module):
    """A convolution, PReLU and a chain of residual blocks: (N, inputs, h, w) -> (N, channels, h, w)."""

    def __init__(self, inputs: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(inputs, channels, 3, padding=1)
        self.act = nn.PReLU()
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        return self.blocks(prelu_(self.enter(x), self.act))


class Propagation(nn.Module):
    """Both passes over a clip: LR images and flows -> features of the key frames and of the intermediate frames."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.channels = channels
        self.backward_branch = Branch(3 + channels, channels, blocks)
        self.forward_branch = Branch(3 + 2 * channels, channels, blocks)

    def forward(
        self, frames: Tensor, intermediate: Tensor, flows: Flows, needed: Needed | None = None
    ) -> tuple[Tensor, Tensor]:
        """Time is the first dimension, so that one step is one slice.

        frames (T, B, 3, h, w); intermediate (T-1, K, B, 3, h, w); flows with the same leading dimensions, where the flows from
        key frame to key frame are those of the first time. needed: None: all. Returns features (T, B, C, h, w) and
        (T-1, K, B, C, h, w), or with `needed` (last + 1, ...) and (len(gaps), ...).
        """
        needed = needed or Needed(range(len(frames) - 1), len(frames) - 1)
        backward = self._backward_pass(frames, intermediate, flows, needed)
        return self._forward_pass(frames, intermediate, flows, backward, needed)

    def _backward_pass(self, frames: Tensor, intermediate: Tensor, flows: Flows, needed: Needed) -> list[Tensor]:
        """States of each key frame i: (B, C, h, w), or for the gaps needed ((1 + K) * B, C, h, w): its own first, then those of the
        intermediate frames after it.
        """
        last, batch = frames[-1], frames.shape[1]
        zeros = last.new_zeros(batch, self.channels, *last.shape[-2:])
        states = [self.backward_branch(torch.cat([last, zeros], dim=1))]
        for i in reversed(range(len(frames) - 1)):
            images, flow = frames[i], flows.zero_1[i, 0]
            if i in needed.gaps:
                images = torch.cat([images, intermediate[i].flatten(0, 1)])
                flow = torch.cat([flow, flows.t_1[i].flatten(0, 1)])
            states.append(self.backward_branch(torch.cat([images, warp_for_all(states[-1][:batch], flow)], dim=1)))
        return states[::-1]

    def _forward_pass(
        self, frames: Tensor, intermediate: Tensor, flows: Flows, backward: list[Tensor], needed: Needed
    ) -> tuple[Tensor, Tensor]:
        batch = frames.shape[1]
        zeros = torch.zeros_like(backward[0][:batch])
        state = self.forward_branch(torch.cat([frames[0], backward[0][:batch], zeros], dim=1))
        keys, inserted = [state], []
        for i in range(1, needed.last + 1):
            images, flow, seen = frames[i], flows.one_0[i - 1, 0], backward[i][:batch]
            if i - 1 in needed.gaps:
                images = torch.cat([images, intermediate[i - 1].flatten(0, 1)])
                flow = torch.cat([flow, flows.t_0[i - 1].flatten(0, 1)])
                seen = torch.cat([seen, backward[i - 1][batch:]])
            state = self.forward_branch(torch.cat([images, seen, warp_for_all(state[:batch], flow)], dim=1))
            keys.append(state[:batch])
            if i - 1 in needed.gaps:
                inserted.append(state[batch:].unflatten(0, (-1, batch)))
        none = state.new_empty(0, *intermediate.shape[1:3], *state.shape[1:])
        return torch.stack(keys), torch.stack(inserted) if inserted else none
