"""Group the pictures of a folder into clips, by names, ground positions and similarity."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from data.clips import FolderClip, alike, frame_numbers, without_numbers
from data.decoders import ImageInfo
from data.media import probe, read_geo
from data.scenes import unlike
from errors import InputError

MOST_BANDS = 24  # files of one scene
PAIRS = 16  # pairs of neighbours that are compared


def series_in(pictures: Sequence[Path]) -> list[list[Path]]:
    """Several series of numbered frames (a_001.png ..., b_001.png ...), or an empty list.

    Series differ in the letters of their names. Numbers before the last one tell series apart (clip1_001.png, clip2_001.png) if
    the last one counts again from the start and the content changes there; times of day do not. InputError if other pictures
    are next to a series.
    """
    if _bands_of_one_scene(pictures):
        return []
    series, rest = alike([path.stem for path in pictures])
    numbered, others = [[pictures[k] for k in group] for group in series], [pictures[k].name for k in rest]
    if numbered and others:
        raise InputError(
            f"'{pictures[0].parent}' holds numbered frames ({numbered[0][0].name}, ...) and other pictures ({some(others)}): "
            "move one of them into another folder, or use --stills to upscale each picture separately"
        )
    if len(series) > 1 or (not series and len({without_numbers(path.stem) for path in pictures}) > 1):
        return numbered
    groups = _grouped(pictures, _before_number)
    return groups if len(groups) > 1 and min(map(len, groups)) > 1 and _counts_again(groups) else []


def series_name(group: Sequence[Path]) -> str:
    """The name of a series, without numbers and the separators before them: that of a_001.png is 'a'."""
    return re.sub(r"[\W_]+$", "", _before_number(group[0].stem)) or group[0].stem


def _grouped(pictures: Sequence[Path], key: Callable[[str], str]) -> list[list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in pictures:
        groups.setdefault(key(path.stem), []).append(path)
    return list(groups.values())


def _before_number(stem: str) -> str:
    """A file name without its last number."""
    return re.sub(r"\d+(\D*)$", r"\1", stem)


def _counts_again(groups: Sequence[Sequence[Path]]) -> bool:
    """Whether numbers begin again with every group, without gaps, and the content changes there."""
    if len(groups) < 2:
        return False
    numbers = [frame_numbers([path.stem for path in group]) for group in groups]
    if any(one is None or _has_gaps(one) for one in numbers) or len({one[0] for one in numbers if one}) > 1:
        return False
    return all(_unlike([before[-1], after[0]]) for before, after in pairwise(groups))


def unrelated(pictures: Sequence[Path], joined: bool) -> str:
    """Why pictures are not frames of one clip, or an empty text: they have many sizes, show several places, or most have nothing
    in common with the next one and their names are not those of frames. joined: see `members.find_members`.
    """
    if len(pictures) < 2:
        return ""
    if not joined and _bands_of_one_scene(pictures):
        return "they are the bands of one scene"
    sizes = Counter(info.size for path in pictures if (info := _header(path)))
    numbers = frame_numbers([path.stem for path in pictures])
    if len(sizes) > 1 and (not numbers or 2 * max(sizes.values()) <= len(pictures)):
        return f"they have {len(sizes)} sizes"
    if len(sizes) != 1 or joined:
        return ""
    if _several_places(pictures, next(iter(sizes))):
        return "they show different places"
    if (not numbers or _has_gaps(numbers)) and nothing_in_common(pictures):
        return "most have nothing in common with the next one"
    return ""


def _bands_of_one_scene(pictures: Sequence[Path]) -> bool:
    """Whether the names of TIFF files differ only in the band, as Sentinel-2 (_B04_10m) and Landsat (_SR_B4) name them."""
    names = [re.fullmatch(r"(|.*?_)(?:SR_|ST_)?B\d{1,2}A?((?:_.*)?\.[Tt][Ii][Ff]+)", path.name) for path in pictures]
    found = {match.groups() for match in names if match}
    if len(found) != 1 or sum(map(bool, names)) < 2 or len(pictures) > MOST_BANDS:
        return False
    prefix, _ = found.pop()  # other layers of the scene have the same beginning: ..._QA_PIXEL.TIF
    return all(match or (prefix and path.name.startswith(prefix)) for match, path in zip(names, pictures, strict=True))


def _several_places(pictures: Sequence[Path], size: tuple[int, int]) -> bool:
    """Whether most neighbouring georeferenced pictures overlap by less than half, as the tiles of a mosaic do."""
    boxes = [box for path in pictures[: PAIRS + 1] if (box := _bounds(path, size))]
    if len(boxes) < 2:
        return False
    apart = sum(_overlap(before, after) < 0.5 for before, after in pairwise(boxes))
    return 2 * apart > len(boxes) - 1


def _bounds(path: Path, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """Smallest and largest x and y of a georeferenced picture, (x, X, y, Y)."""
    try:
        geo = read_geo(path)
    except InputError:
        return None
    if geo is None or geo.affine is None:
        return None
    a, b, c, d, e, f = geo.affine
    corners = [(a * x + b * y + c, d * x + e * y + f) for x in (0, size[1]) for y in (0, size[0])]
    xs, ys = zip(*corners, strict=True)
    return min(xs), max(xs), min(ys), max(ys)


def _overlap(one: tuple[float, float, float, float], two: tuple[float, float, float, float]) -> float:
    """Share of the first box that the second one covers."""
    width = max(min(one[1], two[1]) - max(one[0], two[0]), 0.0)
    height = max(min(one[3], two[3]) - max(one[2], two[2]), 0.0)
    return width * height / ((one[1] - one[0]) * (one[3] - one[2]))


def _header(path: Path) -> ImageInfo | None:
    try:
        return probe(path)
    except InputError:
        return None  # opening the clip or the still raises the error with its reason


def _has_gaps(numbers: Sequence[int]) -> bool:
    return len({after - before for before, after in pairwise(numbers)}) > 1


def nothing_in_common(pictures: Sequence[Path]) -> bool:
    """Whether most pictures are unlike the next one and the one after it: a video has cuts, but most frames continue."""
    return all(_mostly_unlike(pictures, distance) for distance in (1, 2) if distance < len(pictures))


def _mostly_unlike(pictures: Sequence[Path], distance: int) -> bool:
    """Whether more than half of up to `PAIRS` pairs of pictures that many places apart are unlike."""
    count = len(pictures) - distance
    pairs = [(pictures[k], pictures[k + distance]) for k in range(0, count, max(count // PAIRS, 1))]
    return 2 * sum(_unlike(pair) for pair in pairs) > len(pairs)


def _unlike(pair: Sequence[Path]) -> bool:
    """Whether two pictures show different things; False if they cannot be compared."""
    try:
        clip = FolderClip(pair, allow_gaps=True)
        return unlike(clip.array(0), clip.array(1))
    except InputError:
        return False


def some(names: Sequence[str]) -> str:
    """Up to four names, and how many more."""
    return ", ".join(f"'{name}'" for name in names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
