"""Make training clips whose targets are outputs of teacher networks: python -m engine.distill --config C --teacher W --out OUT.

Detail that cannot be predicted from the low resolution (such as noise) makes the training gradients noisy. The mean of
several networks over the eight flips and rotations of a frame contains little of it.

Reads the clips of `data.train` and `data.also`; writes OUT/training_set/{GT,LR}/CLIP/*.png (LR as the config makes it) and
OUT/train.txt, which lists the frames with distilled targets: those whose window is complete within the clip. All other
frames are only neighbours and keep their ground truth. Train with data.train.root=OUT data.train.list_file=train.txt.

The same command resumes a stopped run; `torchrun --nproc_per_node N -m engine.distill ...` shares the clips.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import cli
from data.files import released_weights, replacing, sha256
from data.folder_settings import remember
from data.layouts import Pair
from data.media import from_tensor, write_image
from data.prepare import flat
from engine import distributed
from engine.checkpoint import load_network
from engine.config import Config, config_to_mapping, load_config
from engine.restore import Options, restore
from engine.restore.precision import slow
from engine.sources import training_pairs
from errors import InputError

EXAMPLE = """  python -m engine.distill --config configs/mtdo_s.yaml --out DISTILLED data.train.root=CLIPS \\
      --teacher runs/a/weights.safetensors
  PYTHONPATH=PEERS python -m engine.distill --config configs/mtdo_s.yaml --out DISTILLED --truth 0.2 data.train.root=CLIPS \\
      --teacher checkpoints/mtdo_s.safetensors:0.6 --teacher benchmarks.peers:dat_light:0.2"""
TRAINING = "training_set"


@dataclass(frozen=True)
class Teacher:
    """A teacher and its share of the target: a weights file, or a Python function MODULE:NAME that returns a function from a
    frame (3, h, w) in [0, 1] to (3, H, W).
    """

    name: str
    share: float

    @classmethod
    def parse(cls, text: str) -> Teacher:
        """Parse NAME or NAME:SHARE, where NAME may be a released name; the default share is 1."""
        name, colon, last = text.rpartition(":")
        try:
            share = float(last) if colon else 1.0
        except ValueError:
            colon, share = "", 1.0
        name = name if colon else text
        return cls(str(released_weights().get(name, name)), share)

    @property
    def is_file(self) -> bool:
        return Path(self.name).suffix in (".safetensors", ".pth", ".pt", ".ckpt")

    def identity(self) -> list[Any]:
        return [sha256(Path(self.name)) if self.is_file else self.name, self.share]


Teach = Callable[[Pair, range], Iterator[Tensor]]  # (pair, frame numbers) -> (3, H, W) of each


def make_teacher(teacher: Teacher, config: Config, precision: str = "fp32") -> Teach:
    """A function that yields the teacher's frames. precision: of a weights file.

    Raises InputError if the teacher does not fit a network of `config`.
    """
    if not teacher.is_file:
        module, _, function = teacher.name.partition(":")
        try:
            restored = getattr(importlib.import_module(module), function)()
        except (ImportError, AttributeError) as error:
            raise InputError(
                f"--teacher '{teacher.name}': {error}; expected a weights file or MODULE:FUNCTION"
            ) from None
        return lambda pair, wanted: (restored(pair.lr.frame(index)) for index in wanted)
    network = load_network(Path(teacher.name), key_networks=False)
    if network.space_time or network.config.scale != config.scale:
        scale = "any" if network.space_time else network.config.scale
        raise InputError(
            f"--teacher '{teacher.name}': is {network.config.name} x{scale}, expected a window network x{config.scale:g}"
        )
    options = Options(precision=precision, ensemble=True, workers=1)

    def teach(pair: Pair, wanted: range) -> Iterator[Tensor]:
        return restore(network, pair.lr, frames=wanted, padding=config.data.padding, options=options)

    return teach


def distill(config: Config, out: Path, teachers: list[Teacher], truth: float = 0.0, precision: str = "fp32") -> int:
    """Write the clips that do not exist yet; returns the number of all clips.

    truth: share of the ground truth in the target.   precision: of teachers given as weights files.

    Raises InputError if the shares do not add up to 1, a teacher does not fit, or `out` was made with other settings.
    """
    if config.space_time:
        raise InputError(f"network.name: distillation needs a window network, got {config.network.name}")
    total = truth + sum(teacher.share for teacher in teachers)
    if not abs(total - 1) <= 1e-6 or truth < 0:
        raise InputError(f"--truth and the teachers' shares add up to {total:g}, expected 1")
    made = [(make_teacher(teacher, config, precision), teacher.share) for teacher in teachers]
    pairs, _ = training_pairs(config)
    if distributed.is_main():
        remember(out / "distill.json", _identity(config, teachers, truth, precision))
        for half in (out / TRAINING).glob("*/.*.part"):  # left by a stopped run
            shutil.rmtree(half)
    distributed.barrier()
    frames = config.window_network.frames
    mine = range(distributed.rank(), len(pairs), distributed.world())
    waiting = [n for n in mine if not _place(out, "GT", pairs[n], n).is_dir()]
    with (
        tqdm(
            total=len(mine),
            initial=len(mine) - len(waiting),
            unit="clip",
            disable=not distributed.is_main(),
            dynamic_ncols=True,
        ) as bar,
        torch.inference_mode(),
    ):
        for number in waiting:
            _write(pairs[number], number, out, made, truth, targets(len(pairs[number]), frames))
            bar.update()
    distributed.barrier()
    if distributed.is_main():
        _write_list(out, pairs, frames)
    return len(pairs)


def _identity(config: Config, teachers: list[Teacher], truth: float, precision: str) -> dict[str, Any]:
    """Settings that must match for existing clips to be reused."""
    data = config_to_mapping(config)["data"]
    return {
        "data": {key: data[key] for key in ("train", "also", "padding")},
        "scale": config.scale,
        "frames": config.window_network.frames,
        "teachers": [teacher.identity() for teacher in teachers],
        "truth": truth,
        "precision": precision,
    }


def _write_list(out: Path, pairs: list[Pair], frames: int) -> None:
    """Write OUT/train.txt, the frames with distilled targets. frames: of a window."""
    lines = [
        f"{_place(out, 'GT', pair, number).name}/{index:08d}.png\n"
        for number, pair in enumerate(pairs)
        for index in targets(len(pair), frames)
    ]
    with replacing(out / "train.txt") as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def targets(length: int, frames: int) -> range:
    """Frames with distilled targets: those with a complete window; the middle frame of a clip shorter than a window."""
    half = frames // 2
    return range(half, length - half) if length > 2 * half else range(length // 2, length // 2 + 1)


def _place(out: Path, kind: str, pair: Pair, number: int, part: bool = False) -> Path:
    name = f"{number:05d}_{flat(pair.name)}"
    return out / TRAINING / kind / (f".{name}.part" if part else name)


def _write(
    pair: Pair, number: int, out: Path, teachers: list[tuple[Teach, float]], truth: float, wanted: range
) -> None:
    assert pair.gt is not None  # training clips have it
    dtype = np.dtype(np.uint8 if pair.gt.bit_depth == 8 else np.uint16)
    taught = [(teach(pair, wanted), share) for teach, share in teachers]
    for index in range(len(pair)):
        target = pair.gt.frame(index)
        if index in wanted:
            target = truth * target
            for frames, share in taught:
                target = target + share * next(frames)
        for kind, frame in (("LR", pair.lr.frame(index)), ("GT", target)):
            place = _place(out, kind, pair, number, part=True)
            write_image(place / f"{index:08d}.png", from_tensor(frame, dtype))
    for kind in ("LR", "GT"):  # GT last: its presence marks a complete clip
        final = _place(out, kind, pair, number)
        if final.exists():
            shutil.rmtree(final)
        _place(out, kind, pair, number, part=True).replace(final)


def main() -> None:
    arguments = cli.parser("Write training clips whose targets are outputs of teacher networks.", EXAMPLE)
    arguments.add_argument("--out", required=True, type=Path, help="folder to write")
    arguments.add_argument("--config", required=True, help="YAML file with the clips and the network to train")
    arguments.add_argument(
        "--teacher", type=Teacher.parse, action="append", required=True, metavar="W[:SHARE]",
        help="weights or a released name (averaged over eight rotated and mirrored versions), or a function MODULE:NAME; may be repeated",
    )  # fmt: skip
    arguments.add_argument(
        "--truth", type=float, default=0.0, metavar="SHARE", help="share of the ground truth in the target (default: 0)"
    )
    arguments.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="precision of teachers given as weights (default: fp32)",
    )
    options = cli.parse(arguments)
    config = load_config(options.config, options.overrides)
    device = torch.device("cpu")
    distributed.start(device)
    if note := slow(options.precision, device):
        distributed.say(note)
    try:
        count = distill(config, options.out, options.teacher, options.truth, options.precision)
        distributed.say(f"{options.out}: {count} clips")
    finally:
        distributed.stop()


if __name__ == "__main__":
    cli.run(main)
