"""The interface between the engine and a network.

There are two kinds. A window network takes a window of LR frames and restores its centre frame; a space-time network takes
LR key frames and returns key and intermediate frames at any size. The engine distinguishes only these two kinds and
gets all other information from the methods below. docs/architecture.md shows how to add a network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from errors import InputError
from models.flow import Flows
from settings import PADDINGS, TEMPORAL_FILTERS

Spacing = int | Literal["auto"]
DEFAULT_SCALE = 4  # of space-time networks without a requested output size
LARGEST_SCALE = 64  # of them, along each axis
LARGEST_SPACING = 1000  # frames
MOST_KEY_WEIGHTS = 8
# How to restore a clip: attributes of networks, keys of a config's `data`, stored in the weights' header next to the config
WINDOW_SETTINGS = ("spacing", "padding")  # of window networks only
SPACE_TIME_SETTINGS = ("key_weights",)  # of space-time networks only
RESTORE_SETTINGS = (*WINDOW_SETTINGS, *SPACE_TIME_SETTINGS, "temporal_filter")


def check_setting(key: str, value: Any) -> None:
    """Raises `InputError` if `value` is not valid for `key`, one of `RESTORE_SETTINGS`."""
    if key == "spacing" and value != "auto" and not (type(value) is int and 1 <= value <= LARGEST_SPACING):
        raise InputError(f"'spacing' is {value!r}, expected an integer from 1 to {LARGEST_SPACING}, or auto")
    if key == "padding" and value not in PADDINGS:
        raise InputError(f"'padding' is {value!r}, expected one of {', '.join(PADDINGS)}")
    if key == "key_weights":
        names = value if isinstance(value, list | tuple) and all(map(_is_file_name, value)) else None
        if names is None or len(names) > MOST_KEY_WEIGHTS or len(set(names)) < len(names):
            raise InputError(
                f"'key_weights' is {str(value)[:80]!r}, expected at most {MOST_KEY_WEIGHTS} different names of .safetensors files in "
                "the folder of the weights"
            )
    if key == "temporal_filter" and value not in TEMPORAL_FILTERS:
        raise InputError(f"'temporal_filter' is {value!r}, expected one of {', '.join(TEMPORAL_FILTERS)}")


def _is_file_name(name: object) -> bool:
    return isinstance(name, str) and bool(re.fullmatch(r"\w[\w .+-]{0,120}\.safetensors", name, re.ASCII))


class NetworkConfig:
    """Base class of the config of a network, which is a dataclass with at least this field."""

    space_time: ClassVar[bool]
    name: str

    def idle_keys(self) -> dict[str, str]:
        """Keys that have no effect because another key disables them, with the reason."""
        return {}


class WindowConfig(NetworkConfig):
    """Base class of a window network's config, which is a dataclass with at least these fields too."""

    space_time: ClassVar[bool] = False
    frames: int  # length of a window, odd
    scale: int


class SpaceTimeConfig(NetworkConfig):
    """Base class of a space-time network's config."""

    space_time: ClassVar[bool] = True


class Network(nn.Module):
    """Base class of every network. Subclass `WindowNetwork` or `SpaceTimeNetwork`."""

    config: Any
    # Tiles start at multiples of this many LR pixels, so that windows and pyramids match those of the full frame.
    multiple: int = 1
    uses_autocast: bool = True  # half precision by autocast; False: `for_inference` returns a converted copy
    pool_work: float = float("inf")  # channels squared; finite: small frames may be restored by several workers at once
    spacing: Spacing | None = None  # see `WindowNetwork`
    padding: str | None = None
    key_weights: Sequence[str] | None = None  # see `SpaceTimeNetwork`
    temporal_filter: str = "none"  # mean over restored frames (`engine.restore.temporal_filter`)

    @property
    def space_time(self) -> bool:
        return self.config.space_time

    @property
    def restore_settings(self) -> dict[str, Any]:
        """The values of the `RESTORE_SETTINGS` of this network, without those of the other kind of network."""
        values = {key: getattr(self, key) for key in RESTORE_SETTINGS if getattr(self, key) is not None}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def set_restore_settings(self, values: Mapping[str, Any]) -> None:
        """Set the `restore_settings` that `values` names. Other keys are ignored."""
        for key in self.restore_settings.keys() & values.keys():
            check_setting(key, values[key])
            setattr(self, key, values[key])

    def output_size(self, size: tuple[int, int], wanted: tuple[int, int] | None = None) -> tuple[int, int]:
        """(H, W) of the output for LR frames of `size` = (h, w). `wanted` is used if the network supports any size."""
        raise NotImplementedError

    def bytes_per_pixel(self, span: int, times: int = 0) -> float:
        """Peak memory of one job in bytes for each LR pixel, in float32.

        span: frames from the first to the last that a job sees.   times: intermediate frames in each gap (space-time).
        Count the feature maps that exist at once, or measure: `benchmarks/restore.py`.
        """
        raise NotImplementedError

    def example_frames(self, height: int, width: int) -> Tensor:
        """The smallest input, zeros: (1, frames, 3, height, width)."""
        raise NotImplementedError

    def for_inference(self, dtype: torch.dtype) -> Network:
        """The network for inference in `dtype`: itself, or a converted copy if autocast is not used."""
        return self

    def parts_to_compile(self) -> Sequence[nn.Module]:
        """The modules that take most of the time, for `torch.compile`."""
        return [self]

    @contextmanager
    def published_form(self) -> Iterator[None]:
        """Within the block every operation runs as published, so that multiplications can be counted."""
        yield

    def exportable(self, free: bool, size: tuple[int, int]) -> Network:
        """A copy that `torch.export` can trace at LR frames of `size` = (h, w). free: the graph must accept other sizes too."""
        return deepcopy(self)


class WindowNetwork(Network):
    """(B, N, 3, h, w) in [0, 1] -> the centre frame (B, 3, scale*h, scale*w), not clamped.

    The weights' header stores how to restore a clip. spacing: frames from one frame of a window to the next, "auto": chosen
    from the motion (`engine.restore.spacing`). padding: neighbours beyond the ends (`data.clips.neighbours`).
    """

    config: WindowConfig
    spacing: Spacing = 1
    padding: str = "reflect"

    def output_size(self, size: tuple[int, int], wanted: tuple[int, int] | None = None) -> tuple[int, int]:
        return self.config.scale * size[0], self.config.scale * size[1]

    def example_frames(self, height: int, width: int) -> Tensor:
        return torch.zeros(1, self.config.frames, 3, height, width)

    def stream(self) -> WindowStream:
        """A new runner for the windows of one clip."""
        return WindowStream(self)


class WindowStream:
    """Restores one window after the other; the caller names frames by their index in the clip.

    One stream serves one clip (or one tile of it). Frames are kept from the first to the last of the latest window, so
    memory does not grow with the clip. Networks that can keep more than the frames themselves return a subclass from
    `WindowNetwork.stream`.
    """

    def __init__(self, network: Any) -> None:
        self.network = network
        self.run: Callable[..., Tensor] = self.main_part  # callers may wrap it, for example in a CUDA graph
        self.clear()

    def clear(self) -> None:
        """Forget every frame."""
        self._frames: dict[int, Any] = {}

    def main_part(self, frames: Tensor) -> Tensor:
        """The expensive part of the work, as a function of tensors only."""
        return self.network(frames)

    @torch.no_grad()
    def restore(self, indices: Sequence[int], load: Callable[[int], Tensor]) -> Tensor:
        """Frame indices of a window, repeated at the ends of a clip -> its centre frame (B, 3, scale*h, scale*w).

        load(index) -> (B, 3, h, w); called once for a frame while it is kept. Raises `InputError` for a window of another length.
        """
        return self.restore_batch([indices], load)

    @torch.no_grad()
    def restore_batch(self, windows: Sequence[Sequence[int]], load: Callable[[int], Tensor]) -> Tensor:
        """Several windows as one batch, for devices that one window does not fill -> their centre frames (windows * B, 3, ...)."""
        for indices in windows:
            if len(indices) != self.network.config.frames:
                raise InputError(
                    f"a window of this network has {self.network.config.frames} frames, got {len(indices)}"
                )
        seen = [index for indices in windows for index in indices]
        self.forget_outside(min(seen), max(seen))
        for index in seen:
            if index not in self._frames:
                self._frames[index] = self.prepare(load(index))
        return self.restore_known([list(indices) for indices in windows])

    def forget_outside(self, first: int, last: int) -> None:
        """Drop everything about frames before `first` or after `last`."""
        self._frames = {index: frame for index, frame in self._frames.items() if first <= index <= last}

    def prepare(self, frame: Tensor) -> Any:
        """The data to keep for a frame (B, 3, h, w), such as its features."""
        return frame

    def restore_known(self, windows: list[list[int]]) -> Tensor:
        """The centre frames of windows whose frames are all kept."""
        return self.run(joined([torch.stack([self._frames[index] for index in indices], 1) for indices in windows]))


def joined(batches: Sequence[Tensor]) -> Tensor:
    """Batches as one; a single one without a copy."""
    return batches[0] if len(batches) == 1 else torch.cat(list(batches))


class SpaceTimeOutput(NamedTuple):
    """Input of the training losses. T_out = T + (T-1) * K frames for K times."""

    frames: Tensor  # (B, T_out, 3, H, W), time order, not clamped
    # (B, (T-1) * K, 3, h, w): intermediate LR frames, not clamped; None: there are none
    intermediate: Tensor | None = None
    flows: Flows | None = None  # each (B, (T-1) * K, 2, h, w), LR pixels; None: there are none


class SpaceTimeNetwork(Network):
    """Key frames (B, T, 3, h, w) in [0, 1], T >= 2 -> (B, T + (T-1) * K, 3, H, W) in time order, not clamped.

    The weights' header stores how to restore a clip. key_weights: files of window networks, in the folder of the weights,
    which restore the key frames where the temporal filter is used and one of them has the scale of the output.
    """

    config: SpaceTimeConfig
    key_weights: Sequence[str] = ()
    key_networks: Sequence[WindowNetwork] = ()  # those of `key_weights`, after `engine.checkpoint.load_key_networks_`
    has_operator: ClassVar[bool] = False  # it makes intermediate LR frames and flows, which further loss terms use

    def set_restore_settings(self, values: Mapping[str, Any]) -> None:
        before = list(self.key_weights)
        super().set_restore_settings(values)
        if list(self.key_weights) != before:
            self.key_networks = ()

    def key_network(self, size: tuple[int, int], out: tuple[int, int]) -> WindowNetwork | None:
        """The network that restores key frames of `size` = (h, w) for outputs of `out` = (H, W), if there is one."""
        return next((each for each in self.key_networks if each.output_size(size) == tuple(out)), None)

    def forward(
        self,
        frames: Tensor,
        times: Sequence[float] | Tensor = (0.5,),
        size: tuple[int, int] | None = None,
        *,
        outputs: Sequence[int] | None = None,
    ) -> Tensor:
        """times: K ascending numbers in (0, 1).   size: (H, W), None: four times (h, w).   outputs: only these of the T + (T-1) * K
        frames, ascending numbers from 0.
        """
        raise NotImplementedError

    def forward_training(
        self, frames: Tensor, times: Sequence[float] | Tensor = (0.5,), size: tuple[int, int] | None = None
    ) -> SpaceTimeOutput:
        """As `forward`, with the inputs of further loss terms."""
        return SpaceTimeOutput(self(frames, times, size))

    def interpolate(self, frames: Tensor, times: Sequence[float] | Tensor = (0.5,)) -> tuple[Tensor, Flows]:
        """With `has_operator`: intermediate LR frames and flows of `forward_training`, without the rest of its cost."""
        raise NotImplementedError

    def forward_traced(self, frames: Tensor, times: Tensor, size: tuple[int, int]) -> Tensor:
        """As `forward` without checks, for export: times (B, K), size of numbers that may be symbols of the graph."""
        return self(frames, times, size)

    def output_size(self, size: tuple[int, int], wanted: tuple[int, int] | None = None) -> tuple[int, int]:
        return wanted or (DEFAULT_SCALE * size[0], DEFAULT_SCALE * size[1])

    def example_frames(self, height: int, width: int) -> Tensor:
        return torch.zeros(1, 2, 3, height, width)
