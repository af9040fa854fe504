"""Training samples per second: the loader with its cache, and reading every PNG through Pillow each time.

    python -m benchmarks.loader [--root FOLDER] [--workers 2]
    python -m benchmarks.loader --train configs/mtdo_s.yaml configs/stno_s.yaml      is the loader the bottleneck?

Both make the same crops of five LR frames and the ground truth of the middle one. Like the published code, the second decodes
six files per sample, converts the full frames, and then crops; the cached loader crops views of decoded frames. Without
--root, synthetic clips are written to a temporary folder. Measured in one process (plus the loader's workers), interleaved,
best of three.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import numpy as np
import torch
from PIL import Image

import cli
from data.cache import cache_pairs
from data.clips import FolderClip, neighbours
from data.datasets import SequenceDataset, StepBatches, WindowDataset, build_loader
from data.layouts import Pair, open_layout
from data.media import write_image
from engine.config import load_config
from engine.sources import TrainingData
from engine.train.loop import Trainer

BATCH, PATCH, SCALE, FRAMES = 8, 64, 4, 5


def synthetic(root: Path, clips: int = 2, frames: int = 30, side: int = 640) -> Path:
    """Textured clips in the jilin layout, GT 640x640 and LR 160x160 as in Jilin-189."""
    random = np.random.default_rng(0)
    for clip in range(clips):
        ground = cv2.GaussianBlur(random.normal(128, 90, (side + frames, side + frames, 3)), (0, 0), 1.5) * 2 - 128
        ground = np.clip(ground + random.normal(0, 4, ground.shape), 0, 255).astype(np.uint8)
        for frame in range(frames):
            gt = ground[frame : frame + side, frame : frame + side]
            write_image(root / "GT" / f"{clip:03d}" / f"{frame:08d}.png", gt)
            low = cv2.resize(gt, None, fx=1 / SCALE, fy=1 / SCALE, interpolation=cv2.INTER_AREA)
            write_image(root / "LR4x" / f"{clip:03d}" / f"{frame:08d}.png", low)
    return root


def read_each_time(pairs: list[Pair], samples: int, seed: int) -> None:
    """Like the published code: decode full files through Pillow, convert to float, crop."""
    random = np.random.default_rng(seed)

    def load(path: str) -> torch.Tensor:
        with Image.open(path) as image:
            return torch.from_numpy(np.asarray(image.convert("RGB"), np.float32) / 255).permute(2, 0, 1)

    for _ in range(samples):
        pair = pairs[random.integers(len(pairs))]
        assert pair.gt is not None
        centre = int(random.integers(len(pair)))
        low = torch.stack([load(pair.lr.source(k)) for k in neighbours(centre, FRAMES, len(pair))])
        high = load(pair.gt.source(centre))
        top, left = (int(random.integers(side - PATCH + 1)) for side in pair.lr.size)
        low[:, :, top : top + PATCH, left : left + PATCH].contiguous()
        high[:, top * SCALE : (top + PATCH) * SCALE, left * SCALE : (left + PATCH) * SCALE].contiguous()


def read_all(dataset: Any, samples: int, seed: int, workers: int) -> Callable[[], None]:
    def run() -> None:
        steps = samples // BATCH
        for batch in build_loader(dataset, StepBatches(dataset, BATCH, seed, 0, steps), workers=workers):
            assert batch["lr"].dtype == torch.uint8

    return run


def rate(run: Callable[[], None], samples: int) -> float:
    start = time.perf_counter()
    run()
    return samples / (time.perf_counter() - start)


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--root", help="data set with LR files (jilin layout); default synthetic")
    parser.add_argument("--split", help="its split")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--train", nargs="+", metavar="CONFIG", help="compare the loader with training steps of these")
    arguments = parser.parse_args()
    if not arguments.train:
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(arguments.root) if arguments.root else synthetic(Path(folder))
        if arguments.train:
            for path in arguments.train:
                against_training(path, root, arguments.split, Path(folder))
            return
        pairs = open_layout(root, scale=SCALE, split=arguments.split).pairs
        if not all(isinstance(pair.lr, FolderClip) for pair in pairs):
            parser.error(f"{root} has no LR files for scale {SCALE}")
        measure(pairs, Path(folder) / "cache", arguments.workers)


def measure(pairs: list[Pair], folder: Path, workers: int) -> None:
    ways: dict[str, tuple[Callable[[], None], int]] = {
        "PNG through Pillow each time": (lambda: read_each_time(pairs, 32, 0), 32)
    }
    plain = WindowDataset(pairs, SCALE, FRAMES, PATCH)
    ways["our decoder, no cache"] = (read_all(plain, 32, 0, 0), 32)
    for kind in ("ram", "file"):
        kept = cache_pairs(pairs, kind, 4, folder)
        window = WindowDataset(kept, SCALE, FRAMES, PATCH)
        read_all(window, 800, 1, 0)()  # warm: every frame decoded once
        ways[f"cache {kind}, in this process"] = (read_all(window, 800, 0, 0), 800)
        ways[f"cache {kind}, {workers} workers"] = (read_all(window, 1600, 0, workers), 1600)
        if kind == "ram":
            sequence = SequenceDataset(kept, (2.0, 4.0), frames=3, strides=(2,), patch=32)
            ways["cache ram, STNO sequences, LR made per crop"] = (read_all(sequence, 160, 0, 0), 160)
    best = dict.fromkeys(ways, 0.0)
    for _ in range(3):
        for name, (run, samples) in ways.items():
            best[name] = max(best[name], rate(run, samples))
    base = best["PNG through Pillow each time"]
    for name, value in best.items():
        print(f"{name:45s} {value:9.1f} samples/s  {value / base:6.1f} x")


def against_training(path: str, root: Path, split: str | None, folder: Path, steps: int = 8) -> None:
    """Samples per second of the loader, in the training process, and of the training steps."""
    source = [f"data.{part}.{key}" for part in ("train", "val") for key in (f"root={root}", "region=null")]
    source += [f"data.{part}.split={split}" for part in ("train", "val") if split]
    config = load_config(path, [*source, "train.val_every=0"])
    trainer = Trainer(config, folder / "run", torch.device("cpu"))
    batches, size = TrainingData(config).batches(0, 0), config.train.batch_size
    warm = [next(batches) for _ in range(30)]  # most frames are in the cache then
    reading = working = 0.0
    for number in range(steps + 2):
        start = time.perf_counter()
        batch = next(batches)
        middle = time.perf_counter()
        trainer.update(batch)
        if number >= 2:
            reading, working = reading + middle - start, working + time.perf_counter() - middle
    share = reading / (reading + working)
    print(
        f"{path}: loader {steps * size / reading:.0f} samples/s, training step {steps * size / working:.1f} samples/s "
        f"({len(warm)} batches to warm up, {torch.get_num_threads()} threads): {share:.1%} of the time is the loader's"
    )


if __name__ == "__main__":
    cli.run(main)
