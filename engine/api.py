"""Super-resolution of arrays, for use from Python: load weights, array of frames in, array of frames out.

    from engine.api import upscale_array

    large = upscale_array(frames)                                    # (T, H, W, 3) uint8 -> (T, 4H, 4W, 3) uint8
    large = upscale_array(frames, "stno_s", scale=2.5, times=[0.5])  # any scale, and one new frame in each gap
    large = upscale_array(tensor.numpy(), channel_axis=1)            # a tensor (T, 3, H, W) of floats in [0, 1]

`engine.upscale` (upscale.py) processes files, long videos, sound and georeferences.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

import dcn
from data.clips import ArrayClip, Clip
from data.files import REPOSITORY, released_weights
from engine import checkpoint
from engine.distributed import choose_device
from engine.restore import DEFAULT, Options, restore
from engine.restore.memory import automatic_tile
from engine.restore.precision import check as check_precision
from engine.restore.tiles import SMALLEST
from engine.restore.work import key_network
from errors import InputError
from models.base import Network

__all__ = ["load_network", "released", "upscale_array"]

TYPES = (np.uint8, np.uint16, np.float32, np.float64)


def released() -> list[str]:
    """Names of the released weights in the repository."""
    return list(released_weights())


def load_network(weights: str | Path = "mtdo_s") -> Network:
    """The network in a weights file, in eval mode on the CPU.

    Args:
        weights: a released name (`released()` lists them), or the path of a .safetensors file or of a published .pth file.

    Raises InputError if the file does not exist or does not contain the weights of a network.
    """
    files = released_weights()
    if str(weights) in files:
        return checkpoint.load_network(files[str(weights)])
    if not Path(weights).is_file():
        names = ", ".join(files)
        if not names:
            raise InputError(
                f"weights '{weights}': no such file, and '{REPOSITORY}' has no released weights: "
                "install the clone with `pip install -e .`, which keeps them in reach, or name a file"
            )
        raise InputError(
            f"weights '{weights}': expected a file or one of the released names {names}: check the spelling"
        )
    return checkpoint.load_network(weights)


def upscale_array(
    frames: np.ndarray,
    network: Network | str | Path = "mtdo_s",
    *,
    scale: float | None = None,
    times: Sequence[float] = (),
    channel_axis: int | None = -1,
    padding: str | None = None,
    tile: int | Literal["auto"] | None = "auto",
    precision: str = "fp32",
    device: torch.device | str | None = None,
) -> np.ndarray:
    """Super-resolve the frames of a video.

    Args:
        frames: (T, H, W, 3) RGB, or (T, H, W) grey with `channel_axis=None`: uint8, uint16 (full range), or float32 or
            float64 in [0, 1]. STNO needs at least two frames for new ones.
        network: a network (`load_network`), a released name or a weights file. Pass a network to load it only once.
        scale: output size relative to the input. None: the network's own (STNO: 4). MTDO has one (mtdo_s 4, mtdo_s_x2 2, mtdo_s_x3 3),
            STNO takes any.
        times: STNO only: ascending times in (0, 1) of new frames in each gap between two frames; 0.5 doubles the frame rate.
        channel_axis: axis of the colours; None: grey frames.
        padding: frames beyond the ends of the clip for MTDO: "reflect", "replicate", "circular" or "distinct"; None: the weights' own.
        tile: process tiles of this many input pixels a side, from 64; "auto": only if memory requires it; None: full frames.
        precision: "fp32", "bf16" or (on GPUs) "fp16".
        device: None: the network's device; "cuda" moves it to the GPU.

    Returns: (T + (T - 1) * len(times), scale*H, scale*W, 3) in time order, without the channel axis for grey frames, in the
        type of `frames`, clipped to its range.

    Raises InputError for frames, scales or times that the network cannot take, for a device that is not available, and for output
    that is not finite.
    """
    stack = _checked(frames, channel_axis)
    if isinstance(network, str | Path):
        network = load_network(network)
    _check_types(network)
    _check_times(network, times)
    clip = ArrayClip("frames", stack)
    size = _wanted_size(network, clip.size, scale)
    place = choose_device(str(device)) if device is not None else next(network.parameters()).device
    _check_options(precision, tile, place)
    dcn.ensure_built(log=lambda line: print(line, file=sys.stderr))
    options = Options(precision, _automatic_tile(network, clip, times, size, place) if tile == "auto" else tile)
    training = network.training
    restored = restore(network, clip, device=place, padding=padding, times=times, size=size, options=options)
    try:
        result = np.stack([clip.stored(frame.clamp(0, 1)) for frame in _finite(restored)])
    finally:
        network.train(training)
    result = result[..., 0] if channel_axis is None else np.moveaxis(result, -1, channel_axis)
    return result.astype(frames.dtype, copy=False)


def _finite(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    for number, frame in enumerate(frames):
        if not torch.isfinite(frame).all():
            raise InputError(f"output frame {number} is not finite: check the weights, or try precision='fp32'")
        yield frame


def _checked(frames: np.ndarray, channel_axis: int | None) -> np.ndarray:
    """The frames as (T, H, W, C) of uint8, uint16 or float32."""
    if not isinstance(frames, np.ndarray):
        raise InputError(f"frames: expected a NumPy array, got {type(frames).__name__}: convert it with numpy.asarray")
    if frames.dtype not in TYPES:
        raise InputError(f"frames: expected uint8, uint16, or floats in [0, 1], got {frames.dtype}: convert them")
    if frames.ndim != (3 if channel_axis is None else 4):
        expected = "(T, H, W)" if channel_axis is None else "four axes with the colours at channel_axis"
        raise InputError(
            f"frames: expected {expected}, got shape {frames.shape}: a single image needs a first axis (image[None]), "
            "grey frames channel_axis=None"
        )
    if channel_axis is not None and not -4 <= channel_axis < 4:
        raise InputError(f"channel_axis: expected the axis of the colours, -4 to 3, got {channel_axis}")
    stack = frames[..., None] if channel_axis is None else np.moveaxis(frames, channel_axis, -1)
    if channel_axis is not None and stack.shape[-1] != 3:
        raise InputError(f"frames: expected 3 colours along axis {channel_axis}, got {stack.shape[-1]}: pass RGB only")
    if 0 in stack.shape:
        raise InputError(f"frames: shape {frames.shape} is empty: expected at least one frame of one pixel")
    if stack.dtype.kind == "f":
        stack = stack.astype(np.float32)
        if not (stack.min() >= 0 and stack.max() <= 1):  # NaN fails both comparisons
            raise InputError("frames: floats must be finite and in [0, 1]: scale them, for example by their maximum")
    return stack


def _check_types(network: Network) -> None:
    other = [str(each.dtype).removeprefix("torch.") for each in network.parameters() if each.dtype != torch.float32]
    if other:
        raise InputError(
            f"network: expected float32 weights, got {other[0]}: convert it by network.float(); see precision"
        )


def _check_options(precision: str, tile: int | str | None, device: torch.device) -> None:
    if precision == "auto":
        raise InputError("precision: auto is for upscale.py: use fp32, bf16 or (on GPUs) fp16")
    check_precision(precision, device)
    if tile not in ("auto", None) and not (type(tile) is int and tile >= SMALLEST):
        raise InputError(f"tile: expected an integer from {SMALLEST}, auto or None, got {tile!r}")


def _check_times(network: Network, times: Sequence[float]) -> None:
    if not isinstance(times, Sequence | np.ndarray) or not all(isinstance(time, Real) for time in times):
        raise InputError(f"times: expected a list of numbers, such as [0.5], got {times!r}")
    if len(times) and not network.space_time:
        raise InputError(
            f"times: {network.config.name.upper()} makes no intermediate frames: leave times out, or use STNO weights "
            "such as stno_s"
        )
    if list(times) != sorted(set(times)) or not all(0 < time < 1 for time in times):
        raise InputError(
            f"times: expected ascending numbers between 0 and 1, such as [0.25, 0.5, 0.75], got {list(times)}"
        )


def _automatic_tile(
    network: Network, clip: Clip, times: Sequence[float], size: tuple[int, int] | None, device: torch.device
) -> int | None:
    """Side of the tiles that fit into memory; None if full frames fit."""
    key_frames = min(DEFAULT.chunk + 2 * DEFAULT.context, len(clip))
    keys = key_network(network, clip.size, network.output_size(clip.size, size), network.temporal_filter)
    return automatic_tile(network, clip.size, device, key_frames, len(times), keys)


def _wanted_size(network: Network, size: tuple[int, int], scale: float | None) -> tuple[int, int]:
    """(H, W) of the output frames."""
    if scale is None:
        return network.output_size(size)
    if not isinstance(scale, Real):
        raise InputError(f"scale: expected a number, got {scale!r}")
    wanted = (round(scale * size[0]), round(scale * size[1])) if 0 < scale < float("inf") else (0, 0)
    if min(wanted) < 1:
        raise InputError(f"scale: {scale:g} is too small for frames of {size[1]}x{size[0]} pixels: use a larger one")
    own = network.output_size(size, wanted)
    if own != wanted:
        raise InputError(
            f"scale: these weights support scale {own[0] / size[0]:g} only, got {scale:g}: "
            "leave it out, or use mtdo_s_x2 for scale 2, mtdo_s_x3 for scale 3 or stno_s for any scale"
        )
    return wanted
