"""The linear end of the network: upsampler and last convolution, folded into one convolution at inference.

There is no activation between them, so together they are one linear map: a 5x5 convolution from C to 3 * scale^2 channels
at low resolution, then one pixel shuffle. At x4 this takes 1,200 C multiplications for each LR pixel instead of
180 C^2 + 432 C (a tenth for 64 channels, a third for 16), and except for strips at the border no map of C channels is made
at high resolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from formulas import exact_type
from models.layers import Upsampler, in_full_precision, weight_and_bias

RADIUS = 2  # of the folded kernel in LR pixels: one for the first convolution, one for all that follow
AT_ONCE = 8  # impulses
STRIP = 4  # LR pixels from the border that the outermost one depends on, rounded up


class FoldedUpsampler(nn.Module):
    """`last(upsample(x))`, folded when no gradients are needed. It has no weights of its own."""

    def __init__(self, upsample: Upsampler, last: nn.Conv2d, scale: int) -> None:
        super().__init__()
        self.layers, self.scale = (upsample, last), scale  # a tuple: they are submodules of the caller
        self.fold = True  # False: step by step at inference too, as published
        self._known: tuple[object, Tensor, Tensor] | None = None

    @property
    def upsample(self) -> Upsampler:
        return self.layers[0]

    @property
    def last(self) -> nn.Conv2d:
        return self.layers[1]

    def train(self, mode: bool = True) -> FoldedUpsampler:
        """Forget the folded kernel at the start of training: fused optimizers do not count their changes of a weight."""
        if mode:
            self._known = None
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, scale*h, scale*w), in the precision of the last convolution."""
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self._known = None  # a step of training may follow
        if not self.fold or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.stepwise(x)
        height, width = x.shape[-2:]
        strips_are_small = 2 * STRIP * (height + width) <= height * width / 2
        return self.folded(x) if strips_are_small else self.stepwise(x)

    def stepwise(self, x: Tensor) -> Tensor:
        """The layers one after the other, as in the paper."""
        return in_full_precision(self.last, self.upsample(x))

    def folded(self, x: Tensor) -> Tensor:
        """One convolution, and the layers one after the other at the border, where the zero padding of the intermediate
        maps changes the result.
        """
        weight, bias = self.kernel()
        scale, strip = self.scale, self.scale * STRIP
        with torch.autocast(x.device.type, enabled=False):
            frame = F.pixel_shuffle(F.conv2d(x.to(weight.dtype), weight, bias, padding=RADIUS), scale)
        rows = self.stepwise(torch.cat([x[..., :STRIP, :], x[..., -STRIP:, :]]))
        columns = self.stepwise(torch.cat([x[..., :STRIP], x[..., -STRIP:]]))
        batch = len(x)
        frame[..., :scale, :], frame[..., -scale:, :] = rows[:batch, :, :scale], rows[batch:, :, strip - scale :]
        frame[..., :scale], frame[..., -scale:] = columns[:batch, ..., :scale], columns[batch:, ..., strip - scale :]
        return frame

    def kernel(self) -> tuple[Tensor, Tensor]:
        """Weight (3 * scale^2, C, 5, 5) and bias of the folded convolution; recomputed after training and other changes of a weight."""
        parameters = [*self.upsample.parameters(), *self.last.parameters()]
        state = [(each.data_ptr(), each.dtype, 0 if each.is_inference() else each._version) for each in parameters]
        if self._known is None or self._known[0] != state:
            self._known = (state, *self._fold())
        return self._known[1:]

    def _fold(self) -> tuple[Tensor, Tensor]:
        """The response to an impulse in each input channel, in float64."""
        convolutions = [weight_and_bias(layer) for layer in (*self.upsample, self.last) if isinstance(layer, nn.Conv2d)]
        like, side = self.last.weight, 4 * RADIUS + 1
        channels = like.shape[1]
        device = like.device if exact_type(like.device) == torch.float64 else torch.device("cpu")
        impulses = torch.zeros(channels + 1, channels, side, side, dtype=torch.float64, device=device)  # the last: none
        torch.diagonal(impulses[..., side // 2, side // 2]).fill_(1)

        def respond(some: Tensor) -> Tensor:
            for number, (weight, bias) in enumerate(convolutions):
                step = self.upsample[2 * number + 1] if number < len(convolutions) - 1 else nn.Identity()
                some = step(F.conv2d(some, weight.to(some), bias.to(some), padding=1))
            return F.pixel_unshuffle(some, self.scale)

        with torch.autocast(device.type, enabled=False):  # a few impulses at a time: their maps are large
            low = torch.cat([respond(some) for some in impulses.split(AT_ONCE)])  # (C + 1, 3 * scale^2, 9, 9)
        inner = slice(RADIUS, side - RADIUS)
        weight = (low[:-1] - low[-1:])[..., inner, inner].flip(-2, -1).transpose(0, 1)
        weight = weight.to(like).contiguous(memory_format=torch.channels_last)
        return weight, low[-1, :, side // 2, side // 2].to(like)
