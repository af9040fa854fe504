"""Folders with odd boxes and lists of frames."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np

from data.layouts import open_layout
from data.media import write_image
from tests.fuzz.damage import damaged

FIELDS = [
    "1",
    "0",
    "-1",
    "1e400",
    "nan",
    "1.5",
    "",
    "car",
    "2",
    "99999999999999999999",
    "é",
    "1e-400",
    " ",
    "\x00",
    "0x1",
    "inf",
]


def boxes_and_lists(random: Random, folder: Path) -> None:
    """Open a tiny VISO tree whose boxes and list file are composed of odd fields."""
    frames = folder / "mot" / "car" / "test_1" / "img"
    for number in (1, 2):
        write_image(frames / f"{number:06d}.png", np.zeros((16, 16, 3), np.uint8))
    rows = [",".join(odd_row(random)) for _ in range(random.randint(0, 4))]
    truth = frames.parent / "gt" / "gt.txt"
    truth.parent.mkdir()
    truth.write_bytes(odd_text(random, [*rows, "1,1,2,2,4,4,car"]))
    names = [
        "test_1",
        "test_1/000001",
        "test_1/000002.png",
        "car/test_1",
        "..",
        "/",
        "x",
        "mot/car/test_1/img/000001.png",
        "*",
    ]
    (folder / "list.txt").write_bytes(
        odd_text(random, [random.choice([*names, *FIELDS]) for _ in range(random.randint(0, 4))])
    )
    layout = open_layout(
        folder, random.choice(("auto", "viso")), scale=2, list_file=random.choice((None, folder / "list.txt"))
    )
    for pair in layout.pairs:
        pair.lr.array(0)


def odd_row(random: Random) -> list[str]:
    """A line of boxes with one or two changed fields, or of odd fields only."""
    if random.random() < 0.2:
        return [random.choice(FIELDS) for _ in range(random.choice((0, 5, 6, 7, 10)))]
    row = ["1", "1", "2", "2", "4", "4", "car"]
    for _ in range(random.randint(0, 2)):
        row[random.randrange(7)] = random.choice(FIELDS)
    return row


def odd_text(random: Random, lines: list[str]) -> bytes:
    content = random.choice(("\n", "\r\n", "\r")).join(lines).encode()
    if random.random() < 0.3:
        content = damaged(random, content)
    return random.choice((b"", b"", b"\xef\xbb\xbf", b"\xff\xfe")) + content
