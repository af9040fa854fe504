"""Export of a network to ONNX: python -m engine.export --weight FILE --out model.onnx [--size H W | --free].

The exported graph holds standard operators alone: deformable convolution takes the plain path of `dcn` (GridSample).
Before the file gets its name, onnxruntime runs it beside PyTorch. Needs the optional packages onnx, onnxscript and
onnxruntime.

MTDO: `frames` (1, N, 3, h, w) -> `restored` (1, 3, s*h, s*w), of one size or, with --free, of any that are multiples of
the attention window. STNO: `frames` (1, T, 3, h, w) -> `restored` (1, T + (T-1)*K, 3, H, W). Of one size, times and scale;
with --free h and w are any multiples of 8, and `times` (K,) and `size` (2,), which is (H, W), are inputs as well. T and K
are fixed at export. Larger frames go in tiles.
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dcn
from data.files import replacing
from engine.checkpoint import load_network
from engine.export.spacetime import FreeSpaceTime, whole_maps
from engine.restore import multiple
from errors import InputError
from models import layers
from models.mtdo import hat
from models.mtdo.attention import BETWEEN_REGIONS, WindowPlan

OPSET = 20
TOLERANCE = 1e-4  # largest difference to PyTorch, of values in [0, 1]
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class SpaceTimeGraph(nn.Module):
    """STNO with its times and scale fixed, as a graph of one input."""

    def __init__(self, network: Any, times: list[float], size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.times, self.size = network, times, size

    def forward(self, frames: Tensor) -> Tensor:
        return self.network(frames, times=self.times, size=self.size)


class Traced(NamedTuple):
    """What is written, and what it has to agree with."""

    graph: nn.Module
    reference: Callable[..., Tensor]  # takes the same inputs
    samples: list[dict[str, Tensor]]  # inputs by name; the first ones are traced, all are compared
    planned: Callable[[], AbstractContextManager[None]]  # how plans of sizes are made while the graph is traced


def export(
    network: Any,
    out: Path,
    size: tuple[int, int],
    *,
    keys: int = 2,
    times: tuple[float, ...] = (0.5,),
    scale: float = 4.0,
    free: bool = False,
) -> float:
    """Write `network` as ONNX and return its largest difference to PyTorch in onnxruntime.

    size: (h, w) of the LR frames. keys, times, scale: of STNO. free: h and w stay open, and STNO's times and output size
    (compared at two other sizes as well). Raises InputError where packages are missing, the size does not fit or the
    difference exceeds 1e-4.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"export needs the package(s) {', '.join(missing)}: pip install {' '.join(PACKAGES)}")
    step = multiple(network)
    if any(side % step or side <= 0 for side in size):
        raise InputError(f"--size {size[0]} {size[1]}: this network needs multiples of {step}: pad the frames to them")
    if free and min(size) < 2 * step:
        raise InputError(f"--size {size[0]} {size[1]}: with --free, trace at {2 * step} {2 * step} or more")
    network = network.eval()
    if network.config.name == "stno":
        traced = space_time(network, size, keys, list(times), scale, free)
    else:
        planned = symbolic_plans if free else lambda: constant_plans(lambda: network(samples[0]["frames"]))
        samples = [{"frames": each} for each in noise(network.config.frames, size, step if free else None)]
        traced = Traced(network, network, samples, planned)
    with plain_operators(), replacing(out) as temporary:
        with traced.planned():
            write(traced, temporary, step if free else None)
        difference = max(compare(traced.reference, temporary, each) for each in traced.samples)
        if not difference <= TOLERANCE:
            raise InputError(f"'{out}': onnxruntime differs by {difference:.1e} from PyTorch, more than {TOLERANCE:g}")
    return difference


def noise(count: int, size: tuple[int, int], step: int | None) -> list[Tensor]:
    """Frames (1, count, 3, h, w) of `size`; with `step`, of two other sizes as well.

    Noise as coarse as a picture: STNO's warps multiply rounding errors by the slope of what they move, and white noise is all slope
    (`test_space_time_in_whole_maps_is_the_network_on_white_noise` compares on it, where rounding is out of the way).
    """
    sizes = [size, *([(3 * step, 2 * step), (2 * step, 5 * step)] if step else [])]
    random = torch.Generator().manual_seed(0)
    coarse = [torch.rand(count, 3, -(-height // 4), -(-width // 4), generator=random) for height, width in sizes]
    return [F.interpolate(x, size=each, mode="bilinear")[None] for x, each in zip(coarse, sizes, strict=True)]


def space_time(network: Any, size: tuple[int, int], keys: int, times: list[float], scale: float, free: bool) -> Traced:
    """STNO's graph and what to try it on; a free one at other times and scales, too."""
    clips = noise(keys, size, multiple(network) if free else None)
    if not free:
        graph = SpaceTimeGraph(network, times, (round(scale * size[0]), round(scale * size[1])))
        return Traced(graph, graph, [{"frames": clips[0]}], nullcontext)
    samples = []
    for frames, change in zip(clips, (1, 0.6, 1.3), strict=True):
        height, width = (round(scale * change * side) for side in frames.shape[-2:])
        moved = torch.tensor(times) ** change  # still ascending, between 0 and 1
        samples.append({"frames": frames, "times": moved, "size": torch.tensor([height, width])})

    def reference(frames: Tensor, times: Tensor, size: Tensor) -> Tensor:
        return network(frames, times=times.tolist(), size=tuple(size.tolist()))

    return Traced(FreeSpaceTime(network).eval(), reference, samples, whole_maps)


@contextmanager
def plain_operators() -> Iterator[None]:
    """Deformable convolution in standard operators, attention without a fused kernel's decisions."""
    dcn.set_backend("plain")
    try:
        with torch.no_grad():
            yield
    finally:
        dcn.set_backend(None)


@contextmanager
def constant_plans(run: Callable[[], Any]) -> Iterator[None]:
    """The plans of attention windows depend on the size alone: they are made by `run` and become constants of the
    graph.
    """
    made, plan = {}, hat.window_plan

    def recorded(height: int, width: int, window: int, like: Tensor) -> Any:
        size = int(height), int(width), window
        if size not in made:
            made[size] = plan(*size, like)
        return made[size]

    hat.window_plan = recorded
    try:
        run()
        yield
    finally:
        hat.window_plan = plan


@contextmanager
def symbolic_plans() -> Iterator[None]:
    """Window plans and borders in terms of sizes that are not known yet. The same numbers, with one mask per window."""
    plan, extended = hat.window_plan, layers._extended
    hat.window_plan, layers._extended = plan_of_any_size, extended_once
    try:
        yield
    finally:
        hat.window_plan, layers._extended = plan, extended


def plan_of_any_size(height: int, width: int, window: int, like: Tensor) -> WindowPlan:
    """As `window_plan`, without sorting the windows: all are of one kind, whose mask is (windows, 1, L, L)."""
    rows, columns = height // window, width // window
    last_row = torch.arange(rows, device=like.device) == rows - 1
    last_column = torch.arange(columns, device=like.device) == columns - 1
    late = torch.arange(window, device=like.device) >= window - window // 2  # beyond the cut of the roll
    apart_y = (late[:, None] != late[None]).repeat_interleave(window, 0).repeat_interleave(window, 1)
    apart_x = (late[:, None] != late[None]).repeat(window, window)
    cut = (last_row[:, None, None, None] & apart_y) | (last_column[None, :, None, None] & apart_x)
    mask = cut.flatten(0, 1)[:, None].to(like) * BETWEEN_REGIONS
    order = torch.arange(rows * columns, device=like.device)
    return WindowPlan(order, order, [(rows * columns, mask)])


def extended_once(size: int, before: int, after: int, device: torch.device) -> Tensor:
    """As `layers._extended` where a side is longer than what it is extended by: without a remainder by the size."""
    index = torch.arange(-before, size + after, device=device)
    index = torch.where(index < 0, -1 - index, index)
    return torch.minimum(index, (2 * size - 1) - index)


def write(traced: Traced, path: Path, step: int | None = None) -> None:
    """The ONNX file; with `step`, sides may be any multiples of it, from two on. All go through torch.export but an STNO
    of one size, which is traced, because its query decides on slabs by numbers in tensors.
    """
    shapes, inputs = None, traced.samples[0]
    if step:
        rows, columns = (torch.export.Dim(name, min=2, max=4096 // step) for name in ("rows", "columns"))
        shapes = {**dict.fromkeys(inputs), "frames": {3: step * rows, 4: step * columns}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' remarks on what becomes a constant
        torch.onnx.export(
            traced.graph, tuple(inputs.values()), str(path), input_names=list(inputs), output_names=["restored"],
            opset_version=OPSET, dynamo=not isinstance(traced.graph, SpaceTimeGraph), external_data=False, verbose=False,
            dynamic_shapes=shapes,
        )  # fmt: skip


def compare(reference: Callable[..., Tensor], path: Path, inputs: dict[str, Tensor]) -> float:
    """Largest difference between PyTorch and onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (restored,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    return (torch.from_numpy(restored) - reference(**inputs)).abs().max().item()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.export", description="Export a network to ONNX.")
    parser.add_argument("--weight", type=Path, required=True, help="weights of MTDO or STNO")
    parser.add_argument("--out", type=Path, required=True, help="the .onnx file")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), default=(64, 64), help="LR size (default 64 64)"
    )
    parser.add_argument("--free", action="store_true", help="any size; STNO: any times and output size, too")
    parser.add_argument("--keys", type=int, default=2, help="STNO: key frames (default 2)")
    parser.add_argument("--times", type=float, nargs="+", default=[0.5], help="STNO: times of new frames (default 0.5)")
    parser.add_argument("--scale", type=float, default=4.0, help="STNO: scale (default 4)")
    options = parser.parse_args()
    difference = export(
        load_network(options.weight), options.out, tuple(options.size), keys=options.keys, times=tuple(options.times), scale=options.scale,
        free=options.free,
    )  # fmt: skip
    print(f"{options.out}: onnxruntime differs from PyTorch by at most {difference:.1e}")
