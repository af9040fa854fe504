"""Pack training data into one small folder: python experiments/pack.py PACK --stills FOLDER ... --clips FOLDER ...

For a machine with a GPU that can be sent only a few megabytes.

Stills for `data.simulate` become WebP crops of at most SIDE x SIDE pixels in PACK/stills, taken from the folders in turn; clips become
WebP frames in PACK/clips/NAME, the middle FRAMES frames, cropped likewise. It stops at MEGABYTES, of which clips take at most the
share CLIP_SHARE. PACK/pack.tsv names the source and crop of every file. The same arguments give the same pack.

WebP of quality 92 halves the resolution of colour, which the luma of the targets does not notice; quality 100 is lossless and three to four
times as large. Training on a pack needs neither PyAV nor imagecodecs (experiments/piece.py).
"""

from __future__ import annotations

import random
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from tqdm import tqdm

import cli
from data.clips import Clip
from data.layouts import open_layout
from data.media import read_image, rgb, write_image
from data.simulate.clips import find_stills
from errors import InputError

EXAMPLE = (
    "  python experiments/pack.py datasets/pack --stills datasets/stills datasets/aerial --clips datasets/natural/clips"
)
CLIP_SHARE = 0.4
SMALLEST = 192  # pixels; smaller stills and clips are left out
MIB = 2**20


class Pack:
    """The output folder and its list. Raises InputError if the folder exists and is not empty."""

    def __init__(self, folder: Path, options: Namespace) -> None:
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"'{folder}' is not empty: name another folder, or remove it")
        self.folder, self.side, self.quality = folder, options.side, options.quality
        self.lines: list[str] = []
        self.size = 0  # bytes written

    def add(self, name: str, source: str, picture: np.ndarray, corner: tuple[int, int]) -> None:
        """Write the crop of `picture` (H, W, 3) uint8 at `corner` (top, left)."""
        top, left = corner
        crop = picture[top : top + self.side, left : left + self.side]
        write_image(self.folder / name, crop, quality=self.quality)
        self.size += (self.folder / name).stat().st_size
        self.lines.append(f"{name}\t{source}\t{left},{top},{crop.shape[1]},{crop.shape[0]}\n")

    def corner(self, size: tuple[int, int], name: str) -> tuple[int, int]:
        """Top left corner of a crop of a picture of `size`, random but the same for the same name."""
        draw = random.Random(name)
        return draw.randint(0, max(size[0] - self.side, 0)), draw.randint(0, max(size[1] - self.side, 0))


def in_turns(groups: Sequence[Sequence[Path]], seed: int) -> Iterator[Path]:
    """One from every group, again and again, each group in random order."""
    mixed = [random.Random(f"{seed} {number}").sample(group, len(group)) for number, group in enumerate(groups)]
    return (path for path in chain.from_iterable(zip_longest(*mixed)) if path is not None)


def pack_clips(pack: Pack, roots: Sequence[str], frames: int, limit: float) -> int:
    """Add the clips of the folders in turns, up to `limit` bytes. Returns their number."""
    found: dict[Path, Clip] = {}
    for root in roots:
        found |= {Path(root) / pair.name: pair.gt for pair in open_layout(root) if pair.gt is not None}
    groups = [[place for place in found if place.is_relative_to(root)] for root in roots]
    count = 0
    for place in tqdm(list(in_turns(groups, 0)), unit="clip", desc="clips"):
        clip = found[place]
        if pack.size >= limit:
            break
        if min(clip.size) < SMALLEST or len(clip) < frames:
            continue
        corner, first = pack.corner(clip.size, str(place)), (len(clip) - frames) // 2
        for index in range(frames):
            name = f"clips/{count:03d}_{place.name}/{index:03d}.webp"
            pack.add(name, f"{place}, frame {first + index}", rgb(clip.array(first + index)), corner)
        count += 1
    return count


def pack_stills(pack: Pack, groups: Sequence[Sequence[Path]], limit: float) -> int:
    """Add stills in turns from the groups, up to `limit` bytes. Returns their number."""
    count = 0
    for path in tqdm(list(in_turns(groups, 1)), unit="still", desc="stills"):
        if pack.size >= limit:
            break
        picture = read_image(path)
        if picture.dtype != np.uint8 or min(picture.shape[:2]) < SMALLEST:
            continue
        picture = rgb(picture)
        pack.add(f"stills/{count:04d}.webp", str(path), picture, pack.corner(picture.shape[:2], str(path)))
        count += 1
    return count


def main(argv: list[str] | None = None) -> None:
    arguments = cli.Parser(description="Pack training data into one small folder.", epilog=f"example:\n{EXAMPLE}")
    arguments.add_argument("folder", type=Path, metavar="PACK")
    arguments.add_argument("--stills", nargs="+", default=[], metavar="FOLDER", help="overhead images")
    arguments.add_argument(
        "--clips", nargs="+", default=[], metavar="FOLDER", help="folders of clips in any known layout"
    )
    arguments.add_argument("--megabytes", type=float, default=28, help="MiB of all files (default: 28)")
    arguments.add_argument("--side", type=int, default=512, help="largest side of a crop in pixels (default: 512)")
    arguments.add_argument("--frames", type=int, default=9, help="frames of a clip (default: 9)")
    arguments.add_argument("--quality", type=int, default=92, help="of WebP (default: 92; 100 is lossless)")
    options = arguments.parse_args(argv)
    if not options.stills:
        raise InputError("--stills: name at least one folder of overhead images")
    if options.side < SMALLEST:
        raise InputError(f"--side {options.side}: expected at least {SMALLEST}")
    groups = [find_stills([root]) for root in options.stills]
    pack, limit = Pack(options.folder, options), options.megabytes * MIB
    clips = pack_clips(pack, options.clips, options.frames, CLIP_SHARE * limit)
    stills = pack_stills(pack, groups, limit)
    (options.folder / "pack.tsv").write_text("file\tsource\tleft,top,width,height\n" + "".join(pack.lines), "utf-8")
    print(f"{options.folder}: {stills} stills and {clips} clips, {pack.size / MIB:.1f} MiB")


if __name__ == "__main__":
    cli.run(main)
