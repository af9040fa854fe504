"""Upscale a long video, killed and resumed: python benchmarks/long_clip.py [--frames 1200] [--size 320x180] [--fps x2] [--weight FILE].

Makes a video with sound by looping a sample clip, and runs upscale.py on it: on all frames, on the first 50, and on all frames
again, killed twice and resumed. Resident memory is sampled ten times a second. Then the files are compared byte by byte and
frame by frame, and their sound packet by packet with the source's. Writes long_clip.md, long_clip.json and long_clip.png
(memory over time) into --out. The default network is tiny and has random weights, which do not affect the measurement.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import av
import numpy as np
import psutil
import torch
from PIL import Image

import cli
import models
from benchmarks.figure import needed, plot
from data.samples import natural
from data.video import VideoFile
from engine.checkpoint import save_weights
from engine.upscale.job import PIECE

ROOT = Path(__file__).parents[1]
FPS, RATE = 24, 48_000  # pictures and sound samples a second
SHORT = 50  # frames of the short video whose peak memory is compared
TINY = {
    "mtdo": {"frames": 3, "scale": 2, "channels": 4, "deformable_groups": 1, "feature_blocks": 1, "residual": "bicubic",
             "route2": False, "ctdm": "off", "tsa": False, "macu": False, "reconstruction": "residual", "reconstruction_blocks": 1},
    "stno": {"channels": 8, "blocks": 1, "embedding": 16, "heads": 2, "hidden": 16, "query_width": 16, "pyramid": [8, 12, 16],
             "head_widths": [24, 24, 24], "side_channels": 4, "frame_features": 5, "residual": "bicubic"},
}  # fmt: skip


def make_video(path: Path, frames: int, size: tuple[int, int]) -> None:
    """A video of `frames` frames of `size` (width, height): a sample clip forwards and backwards, with a sliding tone."""
    source = VideoFile(next(natural("test").glob("*.mp4")))
    there = list(range(len(source))) + list(range(len(source) - 2, 0, -1))
    pictures = [np.asarray(Image.fromarray(source.array(k)).resize(size)) for k in range(len(source))]
    with av.open(str(path), "w") as video:
        picture, sound = video.add_stream("libx264", rate=FPS), video.add_stream("aac", rate=RATE, layout="stereo")
        picture.width, picture.height, picture.pix_fmt = *size, "yuv420p"
        seconds = np.arange(RATE * frames // FPS) / RATE
        wave = (0.3 * np.sin(2 * np.pi * (300 + 10 * seconds) * seconds)).astype(np.float32)
        for k in range(frames):
            video.mux(picture.encode(av.VideoFrame.from_ndarray(pictures[there[k % len(there)]], format="rgb24")))
        video.mux(picture.encode(None))
        for start in range(0, len(wave), 1024):
            block = av.AudioFrame.from_ndarray(np.stack([wave[start : start + 1024]] * 2), "fltp", "stereo")
            block.sample_rate, block.pts, block.time_base = RATE, start, Fraction(1, RATE)
            video.mux(sound.encode(block))
        video.mux(sound.encode(None))


def tiny_weights(path: Path, name: str) -> Path:
    """A tiny network with random weights that change every frame."""
    torch.manual_seed(0)
    network: Any = models.build({"name": name, **TINY[name]}).eval()
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.005)
    save_weights(path, network)
    return path


# --- running and sampling ---------------------------------------------------------------------------------------------


def watch(command: list[str], stop: Callable[[], bool] | None = None) -> dict[str, Any]:
    """Run upscale.py; kill it once `stop()` holds. Returns seconds, samples (second, MB) and the largest sample of resident memory."""
    samples, start, killed = [], time.monotonic(), False
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):  # the process has just ended
            megabytes = psutil.Process(process.pid).memory_info().rss / 2**20
            samples.append((round(time.monotonic() - start, 1), megabytes))
        if not killed and stop and stop():
            process.kill()
            killed = True
        time.sleep(0.1)
    if process.wait() and not killed:
        raise SystemExit(f"failed with exit code {process.returncode}: {' '.join(command)}")
    peak = max((megabytes for _, megabytes in samples), default=0.0)
    return {"seconds": time.monotonic() - start, "samples": samples, "peak_mb": peak, "killed": killed}


def finished_frames(out: Path, piece: int) -> int:
    """Frames that an interrupted run has kept, in finished pieces and as single files."""
    work = out.with_name(f".{out.name}.upscaling")
    return piece * len(list(work.glob("pieces/[0-9]*.mkv"))) + len(list(work.glob("raw/*.zst")))


# --- comparing --------------------------------------------------------------------------------------------------------


def pictures(path: Path) -> list[str]:
    """The hash of every decoded picture."""
    with av.open(str(path)) as video:
        return [hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest() for frame in video.decode(video=0)]


def sound(path: Path) -> list[bytes]:
    with av.open(str(path)) as video:
        return [bytes(packet) for packet in video.demux(audio=0) if packet.size]


def duration(path: Path) -> float:
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        return float(stream.duration * stream.time_base)


def compare(source: Path, full: Path, killed: Path) -> dict[str, Any]:
    ours, again = pictures(full), pictures(killed)
    return {
        "frames": len(ours), "frames that differ": sum(a != b for a, b in zip(ours, again, strict=True)),
        "files equal": full.read_bytes() == killed.read_bytes(), "sound equal": sound(source) == sound(full),
        "seconds of video": [duration(source), duration(full)],
    }  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Make the video, upscale it and compare, or the requested part of it."""
    needed()
    out, size = options.out, tuple(map(int, options.size.split("x")))
    out.mkdir(parents=True, exist_ok=True)
    video, short, record = out / "video.mp4", out / "short.mp4", out / "long_clip.json"
    weight = options.weight or out / "tiny.safetensors"

    def command(source: Path, name: str, *more: str) -> list[str]:
        rate = ["--fps", options.fps, "--scale", "2"] if options.fps else []
        script = [sys.executable, str(ROOT / "upscale.py"), str(source.resolve()), str((out / name).resolve())]
        return [*script, "--weight", str(weight.resolve()), "--precision", "fp32", *rate, *more]

    if options.part != "killed":
        make_video(video, options.frames, size)
        make_video(short, SHORT, size)
        if not options.weight:
            tiny_weights(weight, "stno" if options.fps else "mtdo")
        result = {"full": watch(command(video, "full.mp4", "--overwrite"))}
        result["short"] = watch(command(short, "short_large.mp4", "--overwrite"))
        record.write_text(json.dumps(result))
    if options.part != "full":
        result = json.loads(record.read_text(encoding="utf-8"))
        result["killed"] = kill_and_resume(command, video, out / "killed.mp4", options)
        result |= compare(video, out / "full.mp4", out / "killed.mp4")
        record.write_text(json.dumps(result))
        title = f"resident memory while {options.frames} frames of {options.size} are upscaled (1 process)"
        samples = {"": result["full"]["samples"]}
        plot(out / "long_clip.png", title, ("seconds", "MB"), samples, marker="")
        (out / "long_clip.md").write_text(text(result), encoding="utf-8")
        print(text(result))


def kill_and_resume(
    command: Callable[..., list[str]], video: Path, killed: Path, options: argparse.Namespace
) -> list[dict[str, Any]]:
    factor = int(options.fps[1:]) if options.fps else 1
    runs, more = [], "--overwrite"
    for share in [*options.kills, None]:
        wanted = share and int(share * options.frames * factor)
        stop = (lambda wanted=wanted: finished_frames(killed, PIECE * factor) >= wanted) if wanted else None
        runs.append(watch(command(video, killed.name, more), stop) | {"at": wanted})
        more = "--resume"
    return runs


def main() -> None:
    parser = cli.Parser(description="Upscale a long video, killed and resumed.")
    parser.add_argument("--out", type=Path, default=Path("runs/long_clip"))
    parser.add_argument("--frames", type=int, default=1200)
    parser.add_argument("--size", default="320x180", help="width x height of the video")
    parser.add_argument("--fps", metavar="x2", help="STNO with twice the frames")
    parser.add_argument("--weight", type=cli.weights, help="weights (default: a tiny network with random weights)")
    parser.add_argument(
        "--kills", type=float, nargs="+", default=[0.3, 0.62], help="when it is killed, as shares of the frames"
    )
    parser.add_argument(
        "--part", choices=["all", "full", "killed"], default="all", help="uninterrupted, killed, or both"
    )
    run(parser.parse_args())


def text(result: dict[str, Any]) -> str:
    """The findings as a table."""
    kills = ", ".join(f"after {run['at']} frames" for run in result["killed"] if run["killed"])
    rows = {
        "peak memory, full video": f"{result['full']['peak_mb']:.0f} MB ({result['full']['seconds']:.0f} s)",
        f"peak memory, video of {SHORT} frames": f"{result['short']['peak_mb']:.0f} MB",
        "ratio": f"{result['full']['peak_mb'] / result['short']['peak_mb']:.3f}",
        "killed": kills,
        **{
            key: str(result[key])
            for key in ("frames", "frames that differ", "files equal", "sound equal", "seconds of video")
        },
    }
    return "| | |\n|---|---|\n" + "".join(f"| {key} | {value} |\n" for key, value in rows.items())


if __name__ == "__main__":
    cli.run(main)
