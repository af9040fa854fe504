"""Make stills and clips for training from checkouts of public repositories: python experiments/gather.py CHECKOUTS OUT [--list FILE.tsv].

The list (default: experiments/permissive.tsv, whose licences allow any use) has one row for each set of files: repository, commit, files
(a pattern), kind (`stills`, or `clip`: a video or the frames of one clip), shrink (factor, by area averaging), licence, author.
CHECKOUTS/NAME is the checkout of OWNER/NAME:

    git clone https://github.com/OpenDroneMap/odm_data_caliterra CHECKOUTS/odm_data_caliterra       # and so on
    python experiments/gather.py CHECKOUTS datasets/permissive

writes OUT/stills/*.png, OUT/clips/NAME/*.png and OUT/sources.tsv, which names source, licence and author of every still and clip. Files
that cannot be read are named and left out.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import numpy as np

import cli
from data.clips import VideoClip
from data.media import read_image, rgb, write_image
from data.video.opening import VIDEO_SUFFIXES
from errors import InputError

LIST = Path(__file__).with_name("permissive.tsv")
EXAMPLE = "  python experiments/gather.py CHECKOUTS datasets/permissive"
LONGEST = 60  # frames of a clip
KINDS = ("stills", "clip")


class Row(NamedTuple):
    """One row of the list."""

    repository: str
    commit: str
    files: str
    kind: str
    shrink: float
    licence: str
    author: str

    @property
    def name(self) -> str:
        return self.repository.split("/")[1]


def read_list(path: Path) -> list[Row]:
    """Raises InputError for a list that cannot be read."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True))
        read = [Row(**row | {"shrink": float(row["shrink"])}) for row in rows]
        wrong = next((row for row in read if row.kind not in KINDS or not row.shrink >= 1), None)
        if wrong:
            raise ValueError(f"kind {wrong.kind}, shrink {wrong.shrink:g}: expected stills or clip, and 1 or more")
        return read
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"'{path}' is no list of sources ({error}): see experiments/permissive.tsv") from None


def shrunk(picture: np.ndarray, factor: float) -> np.ndarray:
    """(H, W, 3) uint8, shrunk by area averaging."""
    height, width = (round(side / factor) for side in picture.shape[:2])
    return picture if factor == 1 else cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def pictures(paths: list[Path]) -> Iterator[tuple[Path, np.ndarray]]:
    """The 8-bit pictures and the frames of videos in RGB; the first three bands of others."""
    for path in paths:
        try:
            if path.suffix.lower() in VIDEO_SUFFIXES:
                video = VideoClip(path)
                for index in range(len(video)):
                    yield path, rgb(video.array(index))
                continue
            picture = read_image(path)
        except InputError as error:
            print(f"left out: {error}")
            continue
        if picture.dtype != np.uint8:
            print(f"left out: {path} has {picture.dtype} values, expected 8 bits")
            continue
        yield path, np.ascontiguousarray(picture[..., :3]) if picture.shape[-1] > 3 else rgb(picture)


def check_new(path: Path, row: Row) -> None:
    """Raises InputError if another file of the list already has this name."""
    if path.exists():
        raise InputError(
            f"'{path}' would be written twice: a second file of its name is in {row.repository} {row.files}"
        )


def gather(row: Row, folder: Path, out: Path) -> list[tuple[str, str]]:
    """Write the stills or the clip of one row; returns (name in `out`, source) of each."""
    paths = sorted(folder.glob(row.files))
    if not paths:
        raise InputError(f"'{folder}' has no file {row.files}: check out commit {row.commit} of {row.repository}")
    if row.kind == "clip":
        name = f"clips/{row.name}_{Path(row.files).stem.strip('*') or Path(row.files).parent.name}"
        check_new(out / name, row)
        for index, (_, frame) in enumerate(islice(pictures(paths), LONGEST)):
            write_image(out / name / f"{index:05d}.png", shrunk(frame, row.shrink))
        return [(name, row.files)]
    made = []
    for path, picture in pictures(paths):
        name = f"stills/{row.name}_{path.stem}.png"
        check_new(out / name, row)
        write_image(out / name, shrunk(picture, row.shrink))
        made.append((name, str(path.relative_to(folder))))
    return made


def main(argv: list[str] | None = None) -> None:
    description = "Make stills and clips for training from checkouts of public repositories."
    arguments = cli.Parser(description=description, epilog=f"example:\n{EXAMPLE}")
    arguments.add_argument("checkouts", type=Path, metavar="CHECKOUTS")
    arguments.add_argument("out", type=Path, metavar="OUT")
    arguments.add_argument("--list", type=Path, default=LIST, help="the sources (default: experiments/permissive.tsv)")
    options = arguments.parse_args(argv)
    rows = read_list(options.list)
    if options.out.exists() and any(options.out.iterdir()):
        raise InputError(f"'{options.out}' is not empty: name another folder, or remove it")
    absent = sorted({row.repository for row in rows if not (options.checkouts / row.name).is_dir()})
    if absent:
        raise InputError(f"'{options.checkouts}' lacks checkouts of {', '.join(absent)}")
    lines = ["name\tsource\tlicence\tauthor\n"]
    for row in rows:
        made = gather(row, options.checkouts / row.name, options.out)
        lines += [
            f"{name}\t{row.repository}@{row.commit} {source}\t{row.licence}\t{row.author}\n" for name, source in made
        ]
        print(f"{row.repository} {row.files}: {len(made)}")
    (options.out / "sources.tsv").write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    cli.run(main)
