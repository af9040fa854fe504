"""Images, GeoTIFF tags and videos with random changes."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from data import media, tiff
from data.clips import FolderClip, VideoClip
from data.media import write_image
from data.video.writer import VideoWriter
from tests.fuzz.damage import damaged, seeds


def _images(place: Path) -> None:
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (24, 20, 3), dtype=np.uint8)
    for suffix in ("png", "jpg", "bmp", "webp", "tif"):
        write_image(place / f"a.{suffix}", picture)
    write_image(place / "deep.png", picture.astype(np.uint16) * 257)
    write_image(place / "deep.tif", picture.astype(np.uint16) * 257)
    write_image(place / "float.tif", picture.astype(np.float32) / 255)
    Image.fromarray(picture).quantize(16).save(place / "palette.png")
    Image.fromarray(picture).quantize(16).save(place / "a.gif")
    Image.fromarray(picture[..., 0]).save(place / "gray.ppm")
    tifffile.imwrite(place / "lzw.tif", picture, compression="lzw", photometric="rgb")
    tifffile.imwrite(
        place / "tiles.tif", np.tile(picture, (3, 3, 1)), tile=(16, 16), compression="deflate", photometric="rgb"
    )


def images(random: Random, folder: Path) -> None:
    """Probe, read and open as a clip an image of any format with changed bytes."""
    source = random.choice(seeds(folder, _images))
    path = folder / "clip" / f"0{source.suffix if random.random() < 0.9 else random.choice(('.png', '.jpg', '.tif'))}"
    path.parent.mkdir()
    path.write_bytes(damaged(random, source.read_bytes()))
    for act in (media.probe, media.read_image, lambda p: FolderClip(p.parent).array(0)):
        act(path)


GEO = (
    33550,
    33922,
    34264,
    34735,
    34736,
    34737,
    50844,
    42113,
    256,
    257,
    258,
    259,
    262,
    273,
    274,
    277,
    278,
    279,
    284,
    317,
    320,
    322,
    323,
    325,
    338,
    339,
)


def geotiff_tags(random: Random, folder: Path) -> None:
    """Read a small TIFF whose geographic and structural tags have any type, count and values."""
    path = folder / "a.tif"
    extra = []
    for _ in range(random.randint(1, 4)):
        kind = random.choice("sBHIdf")
        count = random.choice((1, 2, 3, 6, 12, 16, 100))
        value: Any = random.choice(("nan", "1e400", "a\0b", "", "5|WGS|", "é")) if kind == "s" else None
        if value is None:
            most = {"B": 255, "H": 65535, "I": 2**32 - 1}.get(kind, 0)
            whole = [random.choice((0, 1, most, random.randint(0, most))) for _ in range(count)]
            real = [random.choice((0.0, -1.0, 1e308, float("nan"), float("inf"), 0.5)) for _ in range(count)]
            value = tuple(whole if most else real)
        extra.append((random.choice(GEO), kind, len(value) if kind == "s" else count, value, True))
    picture = np.zeros((8, 8, 3), np.uint8)
    try:
        tifffile.imwrite(path, picture, photometric="rgb", extratags=extra)
    except Exception:  # the writer refuses some tags itself: nothing was made
        return
    tiff.read_geo(path)
    media.read_image(path)
    media.read_geo(path)


def _videos(place: Path) -> None:
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (4, 32, 48, 3), dtype=np.uint8)
    for suffix in ("mp4", "mkv", "avi"):
        with VideoWriter(place / f"a.{suffix}", fps=10) as writer:
            for frame in frames:
                writer.write(frame)


def videos(random: Random, folder: Path) -> None:
    """Open a short video with changed bytes and read every frame."""
    source = random.choice(seeds(folder, _videos))
    path = folder / f"a{source.suffix}"
    path.write_bytes(damaged(random, source.read_bytes()))
    clip = VideoClip(path)
    for index in range(min(len(clip), 6)):
        clip.array(index)
