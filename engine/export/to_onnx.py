"""Export of a network to ONNX: python -m engine.export --weight FILE --out model.onnx [--size H W | --free].

The graph has standard operators only: deformable convolution uses the plain path of `dcn` (GridSample). Before the file gets
its final name, the result of onnxruntime is compared with PyTorch's. Needs the optional packages onnx, onnxscript and
onnxruntime.

Window networks (MTDO): `frames` (1, N, 3, h, w) -> `restored` (1, 3, s*h, s*w), at one size or, with --free, at any multiples
of `Network.multiple` (the attention window). Space-time networks (STNO): `frames` (1, T, 3, h, w) -> `restored`
(1, T + (T-1)*K, 3, H, W) at one size, fixed times and scale; with --free, h and w are any multiples of 8, and `times` (K,) and
`size` (2,), (H, W), are inputs too. T and K are fixed at export. Larger frames need tiles.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cli
import dcn
from data.files import replacing
from data.frame_writer import check_free
from engine.checkpoint import load_network
from errors import InputError
from models.base import LARGEST_SCALE, Network, SpaceTimeNetwork

OPSET = 20
TOLERANCE = 1e-4  # largest difference to PyTorch, of values in [0, 1]
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class FixedGraph(nn.Module):
    """A space-time network at one output size and fixed times: frames (1, T, 3, h, w) -> (1, T + (T-1) * K, 3, H, W)."""

    def __init__(self, network: SpaceTimeNetwork, times: list[float], size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.size = network, size
        self.times = torch.tensor([times])

    def forward(self, frames: Tensor) -> Tensor:
        return self.network.forward_traced(frames, self.times, self.size)


class FreeGraph(nn.Module):
    """A space-time network whose times (K,) and output size (2,) int64, (H, W), are inputs of the graph."""

    def __init__(self, network: SpaceTimeNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor, times: Tensor, size: Tensor) -> Tensor:
        height, width = size.tolist()
        for side in (height, width):
            torch._check(side >= 1)
        return self.network.forward_traced(frames, times.unsqueeze(0), (height, width))


class Traced(NamedTuple):
    """A graph to write, and the reference function."""

    graph: nn.Module
    reference: Callable[..., Tensor]  # reference, with the same inputs
    samples: list[dict[str, Tensor]]  # inputs by name; the first ones are traced, all are compared


def export(
    network: Network,
    out: Path,
    size: tuple[int, int],
    *,
    keys: int = 2,
    times: Sequence[float] = (0.5,),
    scale: float = 4.0,
    free: bool = False,
) -> float:
    """Write `network` as ONNX and return its largest difference to PyTorch in onnxruntime.

    size: (h, w) of the LR frames. keys, times, scale: of space-time networks. free: h and w are free, and so are the times and
    the output size of space-time networks (compared at two other sizes as well). Raises `InputError` if packages are
    missing, the size does not fit or the difference exceeds 1e-4.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"export needs the package(s) {', '.join(missing)}: pip install {' '.join(PACKAGES)}")
    step = network.multiple
    if any(side % step or side <= 0 for side in size):
        raise InputError(f"--size {size[0]} {size[1]}: this network needs multiples of {step}: pad the frames to them")
    if free and min(size) < 2 * step:
        raise InputError(f"--size {size[0]} {size[1]}: with --free, trace at {2 * step} {2 * step} or more")
    network = network.eval()
    if isinstance(network, SpaceTimeNetwork):
        check_space_time(keys, times, scale, min(size))
        traced = space_time(network, size, keys, list(times), scale, free)
    else:
        samples = [{"frames": each} for each in noise(network.config.frames, size, step if free else None)]
        traced = Traced(network.exportable(free, size), network, samples)
    with plain_operators(), replacing(out) as temporary:
        write(traced, temporary, step if free else None)
        difference = max(compare(traced.reference, temporary, each) for each in traced.samples)
        if not difference <= TOLERANCE:
            raise InputError(f"'{out}': onnxruntime differs by {difference:.1e} from PyTorch, more than {TOLERANCE:g}")
    return difference


def noise(count: int, size: tuple[int, int], step: int | None) -> list[Tensor]:
    """Frames (1, count, 3, h, w) of `size`; with `step`, of two other sizes as well.

    The noise is as coarse as an image: STNO's warps multiply rounding errors by the slope of the image, which is large for
    white noise (`test_symbolic_form_equals_the_network_on_white_noise` compares on it in float64).
    """
    sizes = [size, *([(3 * step, 2 * step), (2 * step, 5 * step)] if step else [])]
    random = torch.Generator().manual_seed(0)
    coarse = [torch.rand(count, 3, -(-height // 4), -(-width // 4), generator=random) for height, width in sizes]
    return [F.interpolate(x, size=each, mode="bilinear")[None] for x, each in zip(coarse, sizes, strict=True)]


def check_space_time(keys: int, times: Sequence[float], scale: float, side: int) -> None:
    """Raise `InputError` for arguments that a space-time network does not take: the graph itself has no checks.

    side: the shorter one of the LR frames.
    """
    if keys < 2:
        raise InputError(f"--keys {keys}: expected at least 2 key frames")
    if list(times) != sorted(set(times)) or not times or not all(0 < time < 1 for time in times):
        raise InputError(
            f"--times {' '.join(f'{time:g}' for time in times)}: expected ascending numbers between 0 and 1"
        )
    if not 0 < scale <= LARGEST_SCALE:
        raise InputError(f"--scale {scale:g}: expected a magnification of at most {LARGEST_SCALE}, such as 4")
    if scale * side < 1:
        raise InputError(f"--scale {scale:g}: leaves no pixels of {side} LR pixels: give a larger scale, such as 4")


def space_time(
    network: SpaceTimeNetwork, size: tuple[int, int], keys: int, times: list[float], scale: float, free: bool
) -> Traced:
    """The graph of a space-time network and samples to compare it on; a free graph also at other times and scales."""
    clips = noise(keys, size, network.multiple if free else None)
    graph = cast(SpaceTimeNetwork, network.exportable(free, size))
    if not free:
        out_size = round(scale * size[0]), round(scale * size[1])

        def reference_at_size(frames: Tensor) -> Tensor:
            return network(frames, times=times, size=out_size)

        return Traced(FixedGraph(graph, times, out_size).eval(), reference_at_size, [{"frames": clips[0]}])
    samples = []
    for frames, change in zip(clips, (1, 0.6, 1.3), strict=True):
        height, width = (round(scale * change * side) for side in frames.shape[-2:])
        moved = torch.tensor(times) ** change  # still ascending, between 0 and 1
        samples.append({"frames": frames, "times": moved, "size": torch.tensor([height, width])})

    def reference(frames: Tensor, times: Tensor, size: Tensor) -> Tensor:
        return network(frames, times=times.tolist(), size=tuple(size.tolist()))

    return Traced(FreeGraph(graph).eval(), reference, samples)


@contextmanager
def plain_operators() -> Iterator[None]:
    """Use standard operators for deformable convolution, and attention without kernel selection at run time."""
    dcn.set_backend("plain")
    try:
        with torch.no_grad():
            yield
    finally:
        dcn.set_backend(None)


def write(traced: Traced, path: Path, step: int | None = None) -> None:
    """Write the ONNX file. With `step`, sides may be any multiples of it from 2 * step."""
    shapes, inputs = None, traced.samples[0]
    if step:
        rows, columns = (torch.export.Dim(name, min=2, max=4096 // step) for name in ("rows", "columns"))
        shapes = {**dict.fromkeys(inputs), "frames": {3: step * rows, 4: step * columns}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about constants
        torch.onnx.export(
            traced.graph, tuple(inputs.values()), str(path), input_names=list(inputs), output_names=["restored"],
            opset_version=OPSET, dynamo=True, external_data=False, verbose=False,
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
    parser = cli.Parser(description="Export a network to ONNX.")
    parser.add_argument("--weight", type=cli.weights, required=True, metavar="FILE", help="weights, or a released name")
    parser.add_argument("--out", type=Path, required=True, help="the .onnx file")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), default=(64, 64), help="LR size (default 64 64)"
    )
    parser.add_argument(
        "--free",
        action="store_true",
        help="leave the size open; space-time networks: also the times and the output size",
    )
    parser.add_argument("--keys", type=int, help="space-time networks: key frames (default 2)")
    parser.add_argument("--times", type=float, nargs="+", help="space-time networks: times of new frames (default 0.5)")
    parser.add_argument("--scale", type=float, help="space-time networks, without --free: scale (default 4)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    options = parser.parse_args()
    if options.out.suffix.lower() != ".onnx":
        raise InputError(f"--out '{options.out}': expected a name that ends with .onnx")
    check_free(options.out, "file", options.overwrite)
    network = load_network(options.weight, key_networks=False)
    given = {name: value for name in ("keys", "times", "scale") if (value := getattr(options, name)) is not None}
    if given and not network.space_time:
        raise InputError(
            f"--{next(iter(given))}: is for space-time networks, but {options.weight} is {network.config.name}"
        )
    if options.free and "scale" in given:
        raise InputError("--scale: with --free the output size is an input of the graph: leave --scale out")
    difference = export(network, options.out, tuple(options.size), free=options.free, **given)
    print(f"{options.out}: onnxruntime differs from PyTorch by at most {difference:.1e}")
