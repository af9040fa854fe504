"""Deformable layer of video restoration networks, which predicts offsets and masks from a second feature."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor, nn

from dcn.choice import deform_conv2d

log = logging.getLogger("dcn")
LARGE_OFFSET = 50.0  # mean |offset| in pixels beyond which alignment has diverged (EDVR's authors warn there too)
CHECK_EVERY = 100  # calls


class Reading:
    """A number that is copied asynchronously from a CUDA device."""

    def __init__(self, value: Tensor) -> None:
        self.value = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
        self.value.copy_(value, non_blocking=True)
        self.arrived = torch.cuda.Event()
        self.arrived.record(torch.cuda.current_stream(value.device))

    def wait(self) -> Tensor:
        """Wait for the number, or numbers, and return it."""
        self.arrived.synchronize()
        return self.value

    def take(self) -> float | None:
        """The number; None until it has arrived."""
        return self.value.item() if self.arrived.query() else None


class DCNv2Pack(nn.Module):
    """DCNv2 with offsets and masks that a convolution predicts from another feature (EDVR, CVPRW 2019, section 3.2).

    `conv_offset_mask` gives G*3*kh*kw channels: offsets (group, kernel point, (dy, dx)) first, then mask logits (group, kernel point).
    It is initialised to zero: no offset, and masks of one half. `max_offset` (pixels) limits the offsets; None: no limit.
    A mean |offset| above 50 px is logged as a warning: training has diverged or the learning rate of the offsets is too high. Every
    hundredth call checks it; on a GPU a later call reads the number, once it has arrived.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int = 1,
        dilation: int = 1,
        deformable_groups: int = 8,
        max_offset: float | None = None,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.max_offset = max_offset
        points = deformable_groups * kernel_size**2
        self.offset_channels = 2 * points
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.conv_offset_mask = nn.Conv2d(in_channels, 3 * points, kernel_size, stride, padding, dilation)
        self._calls = 0
        self._reading: Reading | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the weight uniformly in +-1/sqrt(fan_in) and everything else with zero."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.weight, -bound, bound)
        for parameter in (self.bias, *self.conv_offset_mask.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, feature: Tensor) -> Tensor:
        """x, feature (B, in_channels, H, W) -> (B, out_channels, Ho, Wo); offsets and masks come from `feature`."""
        predicted = self.conv_offset_mask(feature)
        offset, mask = predicted[:, : self.offset_channels], predicted[:, self.offset_channels :].sigmoid()
        if not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
            self._watch(offset.detach())
        if self.max_offset is not None:
            offset = offset.clamp(-self.max_offset, self.max_offset)
        return deform_conv2d(x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask)

    def _watch(self, offset: Tensor) -> None:
        """Check the mean |offset| in regular intervals, without waiting for a GPU."""
        self._calls += 1
        if offset.device.type == "meta" or offset.numel() == 0:
            return
        # A graph would replay the copy, but its result is never read
        if offset.is_cuda and torch.cuda.is_current_stream_capturing():
            return
        if self._calls % CHECK_EVERY == 1:
            mean = offset.abs().mean(dtype=torch.float32)
            if offset.is_cuda:
                self._reading = Reading(mean)
            else:
                _warn_of(mean.item())
        elif self._reading is not None and (number := self._reading.take()) is not None:
            self._reading = None
            _warn_of(number)

    def __getstate__(self) -> dict[str, object]:
        """State for copies and pickles, without CUDA events, which can be neither copied nor stored."""
        return self.__dict__ | {"_reading": None}


def _warn_of(mean: float) -> None:
    if not mean <= LARGE_OFFSET:  # also for NaN
        log.warning(
            "DCNv2Pack: mean |offset| is %.1f px (above %.0f): alignment has diverged; lower the learning rate of the offset "
            "convolutions or set max_offset",
            mean,
            LARGE_OFFSET,
        )
