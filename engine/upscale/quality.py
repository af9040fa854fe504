"""Whether a source is lossy, so that weights trained on compressed video suit it better than those trained on clean video."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from data.clips import Clip, FolderClip, VideoClip, WebPClip

LOSSLESS = frozenset(
    (
        "ffv1",
        "huffyuv",
        "ffvhuff",
        "utvideo",
        "magicyuv",
        "lagarith",
        "png",
        "apng",
        "qtrle",
        "rawvideo",
        "v210",
        "tiff",
    )
)
CLEAN_BITS = 3.0  # bits a pixel from which a lossy stream is close to its source; lossless ones are above it, too
CLEAN_JPEG = 97  # JPEG quality from which losses are about a grey level
STANDARD_TABLE = 3688  # sum of the JPEG standard's luma table, which is quality 50 (ITU-T T.81, table K.1)


def loss(clip: Clip) -> str | None:
    """The reason why `clip` counts as lossy, or None. A folder is judged by its first frame."""
    if isinstance(clip, VideoClip):
        return video_loss(clip)
    if isinstance(clip, WebPClip):
        return "lossy WebP" if clip.lossy else None
    if isinstance(clip, FolderClip):
        return image_loss(clip.paths[0])
    return None


def video_loss(clip: VideoClip) -> str | None:
    """The reason why a video counts as lossy, or None."""
    codec, path = clip.video.info.codec, Path(clip.video.path)
    if codec in LOSSLESS:
        return None
    height, width = clip.size
    bits = 8 * path.stat().st_size / (len(clip) * height * width)  # with the sound, which is small
    return f"{codec} at {bits:.2g} bits a pixel" if bits < CLEAN_BITS else None


def image_loss(path: Path) -> str | None:
    """The reason why an image file counts as lossy, or None."""
    with path.open("rb") as file:
        head = file.read(16)
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8 ":
        return "lossy WebP"
    if head[:2] != b"\xff\xd8":
        return None
    quality = jpeg_quality(path)
    return f"JPEG of quality {quality}" if quality < CLEAN_JPEG else None


def jpeg_quality(path: Path) -> int:
    """The quality 1 to 100 whose standard luma table is about as coarse as the one in the file."""
    with Image.open(path) as image:
        table = image.quantization[0]  # type: ignore[attr-defined]
    percent = 100 * sum(table) / STANDARD_TABLE
    return max(1, min(100, round((200 - percent) / 2 if percent <= 100 else 5000 / percent)))
