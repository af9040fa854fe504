"""Export of a network to ONNX: python -m engine.export --weight FILE --out model.onnx [--size H W | --dynamic].

The exported graph holds standard operators alone: deformable convolution takes the plain path of `dcn` (GridSample). It is run with
onnxruntime beside PyTorch before it gets its name. Needs the optional packages onnx, onnxscript and onnxruntime.

MTDO: `frames` (1, N, 3, h, w) -> `restored` (1, 3, s*h, s*w). STNO: `frames` (1, T, 3, h, w) -> (1, T + (T-1)*K, 3, H, W); T, the
times and the scale are fixed at export. With --dynamic, h and w of MTDO are free (any multiple of what it pads to).
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import dcn
from data.media import replacing
from engine import cli
from engine.checkpoint import load_network
from engine.restore import multiple
from errors import InputError

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


def export(
    network: Any,
    out: Path,
    size: tuple[int, int],
    *,
    dynamic: bool = False,
    keys: int = 2,
    times: tuple[float, ...] = (0.5,),
    scale: float = 4.0,
) -> float:
    """Write `network` as ONNX and return its largest difference to PyTorch in onnxruntime.

    size: (h, w) of the LR frames, with `dynamic` those it is tried with first; then a second size is tried, too. keys, times, scale:
    of STNO. Raises InputError where packages are missing, the size does not fit or the difference exceeds 1e-4.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"export needs the package(s) {', '.join(missing)}: pip install {' '.join(PACKAGES)}")
    space_time = network.config.name == "stno"
    if space_time and dynamic:
        raise InputError("--dynamic is for MTDO: STNO's query plans its rows and columns for one size, say --size H W")
    step = multiple(network)
    if any(side % step or side <= 0 for side in size):
        raise InputError(f"--size {size[0]} {size[1]}: this network needs multiples of {step}: pad the frames to them")
    graph = network.eval()
    if space_time:
        graph = SpaceTimeGraph(network, list(times), (round(scale * size[0]), round(scale * size[1])))
    frames = torch.rand(1, keys if space_time else network.config.frames, 3, *size, generator=torch.manual_seed(0))
    with plain_operators(), replacing(out) as temporary:
        write(graph, frames, temporary, step if dynamic else 0)
        sizes = [size, (size[0] + step, size[1] + 2 * step)] if dynamic else [size]
        difference = max(compare(graph, temporary, torch.rand(*frames.shape[:3], *each)) for each in sizes)
        if not difference <= TOLERANCE:
            raise InputError(f"'{out}': onnxruntime differs by {difference:.1e} from PyTorch, more than {TOLERANCE:g}")
    return difference


@contextmanager
def plain_operators() -> Iterator[None]:
    """Deformable convolution in standard operators, attention without a fused kernel's decisions."""
    dcn.set_backend("plain")
    try:
        with torch.no_grad():
            yield
    finally:
        dcn.set_backend(None)


def write(graph: nn.Module, frames: Tensor, path: Path, step: int) -> None:
    """The ONNX file; step > 0: height and width are free multiples of it."""
    shapes = None
    if step:
        rows, columns = torch.export.Dim("rows", min=2, max=256), torch.export.Dim("columns", min=2, max=256)
        shapes = ({3: step * rows, 4: step * columns},)
    torch.onnx.export(
        graph, (frames,), str(path), input_names=["frames"], output_names=["restored"], opset_version=OPSET,
        dynamic_shapes=shapes, dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip


def compare(graph: nn.Module, path: Path, frames: Tensor) -> float:
    """Largest difference between PyTorch and onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (restored,) = session.run(None, {"frames": frames.numpy()})
    return (torch.from_numpy(restored) - graph(frames)).abs().max().item()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.export", description="Export a network to ONNX.")
    parser.add_argument("--weight", type=Path, required=True, help="weights of MTDO or STNO")
    parser.add_argument("--out", type=Path, required=True, help="the .onnx file")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), default=(64, 64), help="LR size (default 64 64)")
    parser.add_argument("--dynamic", action="store_true", help="MTDO: any height and width")
    parser.add_argument("--keys", type=int, default=2, help="STNO: key frames (default 2)")
    parser.add_argument("--times", type=float, nargs="+", default=[0.5], help="STNO: times of new frames (default 0.5)")
    parser.add_argument("--scale", type=float, default=4.0, help="STNO: scale (default 4)")
    options = parser.parse_args()
    difference = export(
        load_network(options.weight), options.out, tuple(options.size), dynamic=options.dynamic, keys=options.keys,
        times=tuple(options.times), scale=options.scale,
    )  # fmt: skip
    print(f"{options.out}: onnxruntime differs from PyTorch by at most {difference:.1e}")


if __name__ == "__main__":
    cli.run(main)
