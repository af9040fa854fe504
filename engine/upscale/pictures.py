"""Transparency, metadata and georeference files of a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from data import world_file
from data.clips import Clip
from data.degrade import imresize
from data.details import Details
from data.frame_writer import STACK_SUFFIXES
from data.geo_tags import GeoTags
from data.media import ALPHA_SUFFIXES, LEVELS
from data.video.colour import Colour
from engine.upscale.relations import some

PRIMARIES, TRANSFERS = (1, *range(4, 13), 22), (1, *range(4, 19))  # known code points
DISPLAY_P3 = Colour(primaries=12, transfer=13)


def enlarged_alpha(clip: Clip, place: tuple[int, float], size: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """(H, W, 1) of an output frame, by bicubic interpolation; of an intermediate frame, the weighted mean of its neighbours.

    place: the key frame before the output frame and the time after it. dtype: of the output.
    """
    key, step = place
    alpha = _opacity(clip, key, size)
    if step:
        alpha = (1 - step) * alpha + step * _opacity(clip, key + 1, size)
    levels = LEVELS.get(dtype, 1.0) if dtype.kind == "f" else float(np.iinfo(dtype).max)
    values = alpha.clamp(0, 1).mul(levels).numpy()[..., None]
    return (values if dtype.kind == "f" else np.rint(values)).astype(dtype)


def _opacity(clip: Clip, index: int, size: tuple[int, int]) -> torch.Tensor:
    """(H, W) float64 in [0, 1]."""
    alpha = clip.alpha(index)
    if alpha is None:
        return torch.ones(size, dtype=torch.float64)
    stored = torch.from_numpy(alpha[..., 0].astype(np.float64) / LEVELS[alpha.dtype])
    return imresize(stored, size=size)


def holds_alpha(suffix: str) -> bool:
    return suffix.lower() in ALPHA_SUFFIXES


def enlarged_details(clip: Clip, index: int, size: tuple[int, int]) -> Details:
    """Metadata of a frame for its output of `size` (H, W). A profile for other colours than those of the output is left out."""
    height, width = clip.size
    details = clip.details(index).enlarged(size, (size[0] / height, size[1] / width))
    return details if _profile_fits(clip, details) else replace(details, profile=None)


def _profile_fits(clip: Clip, details: Details) -> bool:
    return details.profile is None or details.profile_colours == ("gray" if clip.channels == 1 else "RGB")


def side_files(clip: Clip, index: int, geo: GeoTags | None, suffix: str) -> dict[str, bytes]:
    """Files next to an output picture, by suffix: its world file if the format has no georeference, and the source's .prj.

    geo: of the output.
    """
    files, source = {}, clip.file(index)
    if suffix.lower() not in STACK_SUFFIXES and geo is not None and (text := world_file.text(geo)):
        files[world_file.suffix(suffix)] = text.encode()
    if source is not None and (reference := world_file.reference(source)):
        files[world_file.REFERENCE] = reference
    return files


def colour_tags(clip: Clip) -> Colour:
    """Tags for a video of pictures (code points of ITU-T H.273): those of the first one's cICP chunk (PNG), or of a Display P3
    profile; unspecified for others, which players take for sRGB.
    """
    return _tags_of(clip.details(0))


def _tags_of(details: Details) -> Colour:
    for kind, content in details.colours:
        if kind == b"cICP" and len(content) == 4 and content[0] in PRIMARIES and content[1] in TRANSFERS:
            return Colour(content[0], content[1])
    return DISPLAY_P3 if "P3" in details.profile_name else Colour()


def _colour_space(details: Details) -> str:
    """The colours of a picture in words; "sRGB" without a profile."""
    if (tags := _tags_of(details)) not in (Colour(), DISPLAY_P3):
        return f"cICP {tags.primaries}/{tags.transfer}"
    name = details.profile_name
    if not details.profile or "sRGB" in name or "61966-2" in name or details.profile_colours != "RGB":
        return "sRGB"
    return name or "an ICC profile without a name"


def losses_of_video(clip: Clip) -> list[str]:
    """Notes on transparency and colours of pictures that a video does not hold."""
    notes = [f"clip '{clip.name}': transparency is left out, because a video holds none"] if clip.transparent else []
    details = clip.details(0)
    notes += [f"clip '{clip.name}': its CMYK colours become RGB"] if details.inks else []
    space = _colour_space(details)
    if space != "sRGB" and _tags_of(details) == Colour():
        notes.append(
            f"clip '{clip.name}': its ICC profile ({details.profile_name or 'without a name'}) is left out, because a video holds "
            "none: players show its colours as sRGB (convert the pictures to sRGB or Display P3 first)"
        )
    files = {path: index for index in range(len(clip)) if (path := clip.file(index)) is not None}
    spaces = dict.fromkeys([space, *(_colour_space(clip.details(index)) for index in files.values())])
    if len(spaces) > 1:
        notes.append(
            f"clip '{clip.name}': its pictures have several colour spaces ({some(list(spaces))}), and the video is tagged as the "
            "first one: convert the pictures to one of them first"
        )
    return notes


def losses(clip: Clip, geo: GeoTags | None, suffix: str) -> list[str]:
    """Notes on the parts of the first frame's file that files with this suffix cannot store. geo: of the output."""
    return list(_losses(clip, geo, suffix))


def _losses(clip: Clip, geo: GeoTags | None, suffix: str) -> Iterator[str]:
    name = Path(clip.source(0)).name
    if clip.transparent and not holds_alpha(suffix):
        yield f"'{name}': transparency is left out, because {suffix} holds none (.png, .webp and .tif do)"
    details = clip.details(0)
    if details.inks:
        yield f"'{name}': its CMYK colours become RGB"
    if not _profile_fits(clip, details):
        result = "gray" if clip.channels == 1 else "RGB"
        yield f"'{name}': its ICC profile is left out, because it describes {details.profile_colours} and the result is {result}"
        details = replace(details, profile=None)
    if lost := details.lost(suffix):
        yield f"'{name}': left out, because {suffix} cannot hold it: {', '.join(lost)}"
    if suffix.lower() not in STACK_SUFFIXES and geo is not None:
        if world_file.text(geo) is None:
            yield f"'{name}': its georeference is left out, because {suffix} cannot hold it (.tif can)"
        elif geo.has_reference:
            yield f"'{name}': pixel sizes go into a world file, its reference system is left out (.tif holds both)"
