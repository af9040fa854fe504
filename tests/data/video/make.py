"""Small test videos with the features of real ones: frame rates, sound, subtitles, chapters, colour tags."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

HEIGHT, WIDTH = 16, 24
SOUND = {
    "aac": 1,
    "libopus": 1,
    "libmp3lame": 1,
    "pcm_s16le": 1,
    "wmav2": 1,
    "ac3": 1,
    "flac": 1,
    "tta": 1,
    "libvorbis": 2,
}
FLASH = 0.4  # seconds: the time at which frames become white and the sound begins


def pictures(count: int, flash: int | None = None, size: tuple[int, int] = (HEIGHT, WIDTH)) -> list[np.ndarray]:
    """Dark frames with a moving bright bar; white from frame `flash` on."""
    found = []
    for k in range(count):
        array = np.full((*size, 3), 40, np.uint8)
        array[:, 2 * k % size[1] : 2 * k % size[1] + 4] = 120
        found.append(np.full_like(array, 235) if flash is not None and k >= flash else array)
    return found


def video(
    path: Path,
    times: Sequence[float] = tuple(k / 25 for k in range(15)),
    *,
    codec: str = "libx264",
    base: Fraction = Fraction(1, 90_000),
    rate: Fraction = Fraction(25),
    sound: Sequence[str] = (),
    pixels: str = "yuv420p",
    size: tuple[int, int] = (HEIGHT, WIDTH),
    options: dict[str, str] | None = None,
    colour: tuple[int, int, int, int] | None = None,
    languages: Sequence[str] = (),
    noisy: bool = False,
) -> Path:
    """Frames at `times`, white from FLASH seconds on, and a sound track for each encoder in `sound` (a tone from FLASH on)."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(
            codec, rate=rate, options={"bf": "2", **(options or {})} if codec == "libx264" else options
        )
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        stream.time_base = stream.codec_context.time_base = base
        if colour:
            context = stream.codec_context
            context.color_primaries, context.color_trc, context.colorspace, context.color_range = colour
        tracks = [_track(file, encoder) for encoder in sound]
        for track, language in zip(tracks, languages, strict=False):
            track.metadata["language"] = language
        flash = next((k for k, time in enumerate(times) if time >= FLASH - 1e-9), None)
        random = np.random.default_rng(0)
        for time, array in zip(times, pictures(len(times), flash, size), strict=True):
            if noisy:  # for large files
                array = random.integers(0, 255, array.shape, np.uint8)
            frame = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = round(Fraction(time) / base), base
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        for track in tracks:
            _click(file, track, times[-1] + 0.1)
    return path


def _track(file: Any, encoder: str) -> Any:
    track = file.add_stream(encoder, rate=48_000, layout="stereo")
    if encoder in ("aac", "wmav2", "libopus"):
        track.bit_rate = 128_000
    if encoder == "tta":
        track.codec_context.format = "s16"
    return track


def _click(file: Any, track: Any, seconds: float) -> None:
    """Silence, then a tone of 600 Hz from FLASH seconds on."""
    context = track.codec_context
    length = context.frame_size or 1024
    time = np.arange(round(seconds * 48_000) + length) / 48_000
    wave = (np.sin(2 * np.pi * 600 * time) * (time >= FLASH) * 0.5).astype(np.float32)
    for start in range(0, len(wave) - length + 1, length):
        both = np.stack([wave[start : start + length]] * 2)
        frame = av.AudioFrame.from_ndarray(both, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, start, Fraction(1, 48_000)
        file.mux(track.encode(frame))
    file.mux(track.encode(None))


def flash_time(path: Path) -> float:
    """Time in the file of the first white frame, in seconds."""
    with av.open(f"file:{path}") as file:
        avi = file.format.name == "avi"
        for frame in file.decode(video=0):
            if frame.to_ndarray(format="gray").mean() > 180:
                return float((frame.dts if avi else frame.pts) * frame.time_base)
    raise AssertionError(f"{path} has no white frame")
