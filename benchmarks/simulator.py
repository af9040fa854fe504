"""Compare simulated with real satellite video, or measure the cost of simulation.

    python benchmarks/simulator.py --datapath FOLDER ... [key=value ...]       real clips of the folders, and simulated ones
    python benchmarks/simulator.py --cost                                      seconds per simulated clip

All values are of the middle 256x256 of the middle frame. Amplitude spectrum of luma (BT.601, grey levels; Hann window of unit
power, unitary transform: white noise of deviation 1 gives 0.89 everywhere), mean over rings of radial frequency in cycles a
pixel. Y PSNR of bicubic x4, protocol `standard`. Noise: standard deviation of the difference of neighbouring frames in the
flattest tenth of the 16x16 blocks, divided by the root of two, mean of the colours; the correlation of red and green, and of
green and blue; the luma there. Colour noise: the same for red and blue minus luma in all blocks, and its correlation
between neighbouring pixels. Simulated: --clips (5) of each embedded still and split, lowest to highest; key=value
sets the simulator (objects.ships=3). Deterministic.

Cost: one thread, best of three, with the settings named in docs/simulator.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

import cli
import metrics
from data import samples
from data.clips import Clip, RegionClip
from data.degrade import imresize
from data.layouts import open_layout
from data.media import LUMA
from data.simulate import simulate
from data.simulate.__main__ import mapping_from
from errors import InputError

SIDE, BLOCK, SCALE = 256, 16, 4
RINGS = [(0.10, 0.15), (0.20, 0.25), (0.30, 0.35), (0.40, 0.45), (0.45, 0.50)]
EVERYTHING = {
    "objects": {"ships": 2, "planes": 1, "trains": 1},
    "sky": {"cover": [0.2, 0.3]},
    "motion": {"rolling": 0.5},
}
COSTS: dict[str, dict[str, Any]] = {
    "12 frames of 256x256": {"frames": 12, "size": [256, 256]},
    "12 frames of 256x256, every effect": {"frames": 12, "size": [256, 256], **EVERYTHING},
    "9 frames of 192x192": {"frames": 9, "size": [192, 192]},
}


def spectrum(frame: np.ndarray) -> list[float]:
    """Mean amplitude of the luma in each ring; frame (h, w, 3) in grey levels."""
    luma = frame @ LUMA
    window = np.hanning(luma.shape[0])[:, None] * np.hanning(luma.shape[1])
    window /= np.sqrt(np.mean(window**2))
    amplitude = np.abs(np.fft.fft2((luma - luma.mean()) * window, norm="ortho"))
    radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(side) for side in luma.shape), indexing="ij"))
    return [float(amplitude[(radius >= low) & (radius < high)].mean()) for low, high in RINGS]


def bicubic_psnr(frame: np.ndarray) -> float:
    """Y PSNR of bicubic x4, protocol `standard`; the low-resolution frame is rounded to 8 bits."""
    truth = torch.from_numpy(frame / 255).float().permute(2, 0, 1)
    low = (imresize(truth, 1 / SCALE).clamp(0, 1) * 255).round() / 255
    enlarged = imresize(low, size=(truth.shape[-2], truth.shape[-1])).clamp(0, 1)
    return float(metrics.psnr(enlarged, truth, crop=SCALE))


def blocks(picture: np.ndarray) -> np.ndarray:
    """(h, w, ...) -> (blocks, BLOCK * BLOCK, ...)."""
    rows, columns = (side // BLOCK for side in picture.shape[:2])
    cut = picture[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK, -1)
    return cut.swapaxes(1, 2).reshape(rows * columns, BLOCK * BLOCK, -1)


def noise(frames: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Standard deviation of a frame's noise in grey levels, its correlation between colours, and the luma there.

    Flat blocks are chosen by the gradient of the mean of all frames, in which there is little noise left.
    """
    mean = np.mean(frames, axis=0) @ LUMA
    steepness = blocks(np.hypot(*np.gradient(mean)))[..., 0].mean(1)
    flattest = np.argsort(steepness)[: max(1, len(steepness) // 10)]
    differences = [blocks(after - before)[flattest] for before, after in pairwise(frames)]
    values = np.concatenate(differences)
    values -= values.mean(1, keepdims=True)  # clouds, exposure
    colours = np.cov(values.reshape(-1, 3).T)
    deviation = np.sqrt(np.diag(colours))
    correlation = colours / np.outer(deviation, deviation)
    luma = blocks(mean)[flattest].mean()
    return float(deviation.mean() / np.sqrt(2)), float((correlation[0, 1] + correlation[1, 2]) / 2), float(luma)


def colour_noise(frames: Sequence[np.ndarray]) -> tuple[float, float]:
    """Standard deviation of red and blue minus luma between frames in grey levels, and its correlation between neighbouring pixels."""
    differences = np.stack([after - before for before, after in pairwise(frames)]) / np.sqrt(2)
    red_blue = (differences - (differences @ LUMA)[..., None])[..., [0, 2]]
    pairs = [np.corrcoef(red_blue[:, :, 1:, c].ravel(), red_blue[:, :, :-1, c].ravel())[0, 1] for c in range(2)]
    return float(red_blue.std((0, 1, 2)).mean()), float(np.mean(pairs))


def measured(clip: Clip) -> list[float]:
    """All values of a clip, in the order of the table."""
    height, width = clip.size
    if min(height, width) < SIDE or len(clip) < 2 or clip.bit_depth != 8:
        raise InputError(f"clip '{clip.name}': needs two 8-bit frames of at least {SIDE}x{SIDE}: choose others")
    top, left = (height - SIDE) // 2, (width - SIDE) // 2
    inside = RegionClip(clip, top, left, top + SIDE, left + SIDE)
    centre = len(clip) // 2
    numbers = range(max(0, centre - 4), min(len(clip), centre + 5))
    frames = {number: np.asarray(inside.array(number), np.float64) for number in numbers}
    every = list(frames.values())
    return [*spectrum(frames[centre]), bicubic_psnr(frames[centre]), *noise(every), *colour_noise(every)]


def row(name: str, found: Sequence[Sequence[float]]) -> str:
    """A line of the table: values of one clip, or lowest to highest of several."""
    digits = [0] * len(RINGS) + [1, 1, 2, 0, 1, 2]
    cells = []
    for values, places in zip(zip(*found, strict=True), digits, strict=True):
        ends = [f"{value:.{places}f}" for value in (min(values), max(values))]
        cells.append(ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}")
    return f"| {name} | {' | '.join(cells)} |"


def likeness(datapaths: Sequence[Path], count: int, settings: dict[str, Any]) -> None:
    rings = " | ".join(f"{low:.2f}-{high:.2f}" for low, high in RINGS)
    titles = "bicubic, dB | noise | its colour correlation | luma there | colour noise | its correlation"
    print(f"| clip | {rings} | {titles} |\n|{'---|' * (len(RINGS) + 7)}")
    for root in datapaths:
        for pair in open_layout(root).pairs:
            if pair.gt is not None:
                print(row(f"{root.name}/{pair.name}" if pair.name != root.name else pair.name, [measured(pair.gt)]))
    for still in samples.stills():
        wanted = {"frames": 9, "size": [SIDE, SIDE], **settings, "clips": count}
        clips = [clip for split in ("train", "test") for clip in simulate([still], wanted, split)]
        print(row(f"simulated, {still.stem} ({len(clips)} clips)", [measured(clip) for clip in clips]))


def cost() -> None:
    torch.set_num_threads(1)
    print("| clip | seconds |\n|---|---|")
    for name, settings in COSTS.items():
        seconds = []
        for seed in range(3):
            clips = simulate(None, {**settings, "seed": seed, "clips": 4})
            start = time.perf_counter()
            for clip in clips:
                clip.array(0)
            seconds.append((time.perf_counter() - start) / len(clips))
        print(f"| {name} | {min(seconds):.2f} |")


def main() -> None:
    parser = cli.Parser(description="Compare simulated with real clips.")
    parser.add_argument("--datapath", type=Path, nargs="+", default=[], help="folders with real clips, any layout")
    parser.add_argument("--clips", type=int, default=5, help="simulated clips per still and split (default 5)")
    parser.add_argument("--cost", action="store_true", help="seconds per simulated clip instead")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the simulator")
    options = parser.parse_args()
    if options.cost:
        cost()
    else:
        likeness(options.datapath, options.clips, mapping_from(options.settings))


if __name__ == "__main__":
    cli.run(main)
