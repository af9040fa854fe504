"""Small sources of upscaling and the bytes of its results."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from data.media import write_image
from engine.upscale.request import Request
from tests.engine.small import moving_clip


def make_video(path: Path, frames: int = 5, sound: bool = True) -> Path:
    clip = moving_clip(frames, 16, 24)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 24, 16, "yuv420p"
        voice = container.add_stream("aac", rate=48000, layout="stereo") if sound else None
        container.metadata["title"] = "a video"
        for index in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(clip.array(index), format="rgb24")))
        container.mux(stream.encode(None))
        if voice:
            wave = np.sin(np.arange(48000 * frames // 25) / 20).astype(np.float32)
            for start in range(0, len(wave), 1024):
                sound_frame = av.AudioFrame.from_ndarray(np.stack([wave[start : start + 1024]] * 2), "fltp", "stereo")
                sound_frame.sample_rate, sound_frame.pts = 48000, start
                container.mux(voice.encode(sound_frame))
            container.mux(voice.encode(None))
    return path


def folder(path: Path, frames: int = 5, suffix: str = ".png") -> Path:
    clip = moving_clip(frames, 16, 24)
    for index in range(frames):
        write_image(path / f"{index:03d}{suffix}", clip.array(index))
    return path


def request(source: Path, out: Path, weight: Path, **more) -> Request:
    return Request(source, out, weight, **{"precision": "fp32", **more})


def contents(path: Path) -> dict[str, bytes]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {str(file.relative_to(path)): file.read_bytes() for file in files if file.is_file()}
