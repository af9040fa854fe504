"""Images and clips of the repository.

Sources, licences and attribution: data/samples/README.md.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent


def stills() -> list[Path]:
    """Aerial photographs (0.1 m a pixel, uint8 RGB) that `data.simulate` turns into satellite video, sorted by name."""
    return sorted((HERE / "stills").glob("*.webp"))


def natural(split: str) -> Path:
    """Folder with short natural video clips (640x360, 24 frames a second) of the split `train` or `test`."""
    return HERE / "natural" / split
