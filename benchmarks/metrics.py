"""Properties of the metrics: python benchmarks/metrics.py CLIP [--frames 31]

Y PSNR of bicubic x4 under both protocols, without a border crop; error of two optical flows on the middle frame shifted by known
amounts; the warping error of the ground truth; seconds per frame.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import numpy as np
import torch

import cli
import metrics
from data.clips import Clip, SubClip
from data.degrade import Degradation, imresize
from data.layouts import open_layout
from errors import InputError
from metrics import temporal

SHIFTS = [(0.5, 0.25), (2.3, -1.6)]


def shifted(picture: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
    """Move content from p to p + shift, exactly for the picture's frequencies, wrapped around the border."""
    fy, fx = np.fft.fftfreq(picture.shape[0])[:, None], np.fft.fftfreq(picture.shape[1])
    moved = np.fft.ifft2(np.fft.fft2(picture) * np.exp(-2j * np.pi * (fx * shift[0] + fy * shift[1]))).real
    return moved.round().clip(0, 255).astype(np.uint8)


def flows(clip: Clip) -> None:
    grey = cv2.cvtColor(np.ascontiguousarray(clip.array(len(clip) // 2)), cv2.COLOR_RGB2GRAY)
    grey = cv2.GaussianBlur(grey, (0, 0), 1)  # a sharper picture would ring when shifted
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    for shift in SHIFTS:
        after = shifted(grey, shift)
        for name, flow in (("Farneback", temporal.flow), ("DIS", lambda a, b: dis.calc(a, b, None))):
            inside = flow(grey, after)[16:-16, 16:-16]
            error = np.hypot(inside[..., 0] - shift[0], inside[..., 1] - shift[1]).mean()
            print(f"shift {shift}: {name}, mean error {error:.3f} px")


def main() -> None:
    parser = cli.Parser(description="Measure the metrics.")
    parser.add_argument("clip", type=Path, help="a folder of frames or a video")
    parser.add_argument("--frames", type=int, default=31, help="maximum number of frames (default 31)")
    options = parser.parse_args()
    pair, *others = open_layout(options.clip, degradation=Degradation()).pairs
    if others:
        raise InputError(f"'{options.clip}' has {1 + len(others)} clips: name one of them")
    assert pair.gt is not None
    gt, low = (SubClip(each, range(min(options.frames, len(each)))) for each in (pair.gt, pair.lr))
    bicubic = [imresize(low.frame(k), size=gt.size).clamp(0, 1) for k in range(len(gt))]
    for protocol in ("standard", "paper_mtdo"):
        values = [metrics.psnr(bicubic[k], gt.frame(k), protocol=protocol).item() for k in range(len(gt))]
        print(f"bicubic x4, {protocol}: {np.mean(values):.2f} dB ({len(gt)} frames)")
    flows(gt)
    meter, own, seconds = metrics.TemporalMeter(), [], []
    for k in range(len(gt)):
        truth, start = gt.frame(k), time.perf_counter()
        gap = meter.add(bicubic[k], truth)
        if gap is not None:
            seconds.append(time.perf_counter() - start)
            own.append(gap["gt_warping_error"])
    print(f"gt_warping_error: {min(own):.2f} to {max(own):.2f} percent")
    start = time.perf_counter()
    metrics.fidelity(bicubic[0], gt.frame(0), "standard", 4)
    size = "x".join(map(str, gt.size[::-1]))
    print(f"{size}: fidelity {time.perf_counter() - start:.2f} s, temporal values {np.median(seconds):.2f} s", end="")
    print(f" ({torch.get_num_threads()} threads)")


if __name__ == "__main__":
    cli.run(main)
