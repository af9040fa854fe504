"""The small released weights in checkpoints/, which are used where the user names none: by network, scale and kind of source."""

from __future__ import annotations

from pathlib import Path

import models
from data.files import in_repository
from errors import InputError
from models.base import DEFAULT_SCALE

RELEASED: dict[str, dict[float | None, str]] = {  # network -> scale (None: any) -> file; the first that fits is taken
    "mtdo": {
        2.0: "checkpoints/mtdo_s_x2.safetensors",
        3.0: "checkpoints/mtdo_s_x3.safetensors",
        DEFAULT_SCALE: "checkpoints/mtdo_s.safetensors",
    },
    "stno": {None: "checkpoints/stno_s.safetensors"},
}
RELEASED_LOSSY: dict[float, str] = {
    DEFAULT_SCALE: "checkpoints/mtdo_s_real.safetensors"
}  # scale -> weights for lossy sources
LOSSY_ABOVE = 2.0  # at this scale and below, mtdo_s_x2 is better for lossy sources too


def released_for(scale: float | None = None, *, space_time: bool | None = None, lossy: bool = False) -> Path:
    """The path of the small released weights for a job.

    scale: output size relative to the input; None: 4.
    space_time: weights of a space-time network or of a window network. None: those of a window network of this scale, else of the next
    larger scale, else of the largest (lossy sources: of those for them). Its frames are then resized, which is more accurate than STNO
    (experiments/scales.py).
    lossy: prefer weights trained on compressed video, if they exist for this scale and kind.

    Raises `InputError` if there are none.
    """
    scale = DEFAULT_SCALE if scale is None else scale
    if space_time is None:
        lossy = lossy and scale > LOSSY_ABOVE
        clean = (own for files in RELEASED.values() for own in files if own is not None)
        known = sorted(RELEASED_LOSSY if lossy else clean)
        scale = next((own for own in known if own >= scale), known[-1])
    if lossy and not space_time and scale in RELEASED_LOSSY:
        return _shipped(RELEASED_LOSSY[scale])
    for name, files in RELEASED.items():
        if space_time in (None, models.NETWORKS[name].config.space_time) and (scale in files or None in files):
            return released(name, scale)
    raise InputError(f"no weights of scale {scale:g} come with the repository: name a file with --weight")


def for_lossy(name: str) -> str:
    """The released weights for lossy sources that replace those of file `name`; `name` if there are none."""
    for scale, file in RELEASED_LOSSY.items():
        if Path(RELEASED["mtdo"][scale]).name == name:
            return Path(file).name
    return name


def released(network: str, scale: float | None = None) -> Path:
    """The small released weights of "mtdo" (at certain scales) or "stno" (any scale). Raises `InputError` if there are none."""
    scale, files = DEFAULT_SCALE if scale is None else scale, RELEASED.get(network, {})
    if scale not in files and None not in files:
        known = ", ".join(f"{known:g}" for known in files if known) or "none"
        raise InputError(
            f"no {network.upper()} weights of scale {scale:g} come with the repository, only of {known}: use STNO weights"
        )
    return _shipped(files.get(scale) or files[None])


def _shipped(file: str) -> Path:
    path = in_repository(file)
    if not path.is_file():
        raise InputError(
            f"weights file '{path}' does not exist: name a file with --weight, such as runs/NAME/weights.safetensors"
        )
    return path
