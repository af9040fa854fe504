"""Layouts with boxes of moving objects: VISO, MOT-like trees, SatSOT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data import open_layout
from data.clips import FolderClip
from data.layouts import Box
from data.media import write_image
from errors import InputError
from tests.data.folders import frames, jilin, names


def viso(root: Path) -> Path:
    for group, sequence in [("car", "001"), ("train", "002"), ("ship", "003")]:
        frames(root / "mot" / group / sequence / "img", suffix=".jpg", digits=6, first=1)
        boxes = root / "mot" / group / sequence / "gt" / "gt.txt"
        boxes.parent.mkdir(parents=True)
        boxes.write_text("1,1,2,3,4,5,1,-1,-1,-1\n3,1,3.5,3,4,5,1,-1,-1,-1\r\n3,2,8,9,2,2,1,1,1,1\n")
    return root


def test_raw_viso(tmp_path):
    for root in (viso(tmp_path), tmp_path / "mot"):
        layout = open_layout(root)
        assert layout.kind == "viso" and names(layout) == ["car/001", "ship/003", "train/002"]
        assert layout[2].boxes == [
            [Box(1, 2, 3, 4, 5, "train")],
            [],
            [Box(1, 3.5, 3, 4, 5, "train"), Box(2, 8, 9, 2, 2, "train")],
        ]


@pytest.mark.parametrize(("first", "word"), [(0, "lower"), (2, "higher"), (1, "")])
def test_boxes_whose_frames_are_off_by_one(tmp_path, first, word):
    lines = [f"{frame},1,2,3,4,5" for frame in range(first, first + 3)] + ["99,1,2,3,4,5"] * (first == 1)
    (viso(tmp_path) / "mot" / "car" / "001" / "gt" / "gt.txt").write_text("\n".join(lines))
    (note,) = open_layout(tmp_path / "mot" / "car" / "001").notes
    assert "1 boxes are in frames that do not exist (frames 1 to 3)" in note
    assert ("seem to be" in note) == bool(word) and word in note


@pytest.mark.parametrize(
    ("place", "name"), [("mot/ship", "003"), ("mot/ship/003", "003"), ("mot/train", "002"), ("mot/train/002", "002")]
)
def test_class_or_sequence_of_raw_viso(tmp_path, place, name, monkeypatch):
    """A class or a sequence as root, also as the working folder; `train` is a class here, not a split."""
    monkeypatch.chdir(viso(tmp_path) / place)
    for root in (tmp_path / place, "."):
        layout = open_layout(root)
        assert layout.kind == "viso" and names(layout) == [name]
        assert layout[0].boxes[0][0].label == Path(place).parts[1]


def test_processed_viso_by_name(tmp_path):
    jilin(tmp_path, ("test",), clips=("006", "016"))
    (tmp_path / "test" / "boxes").mkdir()
    (tmp_path / "test" / "boxes" / "006.txt").write_text("0,7,1,1,5,5,car")
    layout = open_layout(tmp_path, "viso", split="test")
    assert layout.kind == "viso" and names(layout) == ["006", "016"] and isinstance(layout[0].lr, FolderClip)
    assert layout[0].boxes[0] == [Box(7, 1, 1, 5, 5, "car")]
    frames(tmp_path / "other" / "a")
    with pytest.raises(InputError, match="not of the layout 'viso'"):
        open_layout(tmp_path / "other", "viso")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,1,2,3,0,5", "line 1: a box of 0x5"),
        ("1,1,2,3", "expected numbers"),
        ("1,a,2,3,4,5", "expected numbers"),
        ("frame,id,x_center,y_center,w,h\n1,1,2,3,4,5", "remove the line if it names columns in this order"),
        ("id,frame,x,y,w,h\n1,1,2,3,4,5", "remove the line if it names columns in this order"),
        ("frame,id,xmin,ymin,xmax,ymax\n1,1,2,3,4,5", "remove the line if it names columns in this order"),
        ("77,1,2,3,4,5", "none of its frame numbers"),
    ],
)
def test_broken_boxes(tmp_path, text, message):
    viso(tmp_path)
    (tmp_path / "mot" / "car" / "001" / "gt" / "gt.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        open_layout(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        "frame,id,x,y,w,h",
        "Frame, ID, bb_left, bb_top, bb_width, bb_height, conf, x, y, z",
        "frame_id\ttrack_id\tx1\ty1\twidth\theight",
    ],
)
def test_names_of_columns_before_boxes(tmp_path, header):
    viso(tmp_path)
    (tmp_path / "mot" / "car" / "001" / "gt" / "gt.txt").write_text(f"{header}\n1,7,2,3,4,5\n")
    assert open_layout(tmp_path)[0].boxes[0] == [Box(7, 2, 3, 4, 5, "car")]


def test_boxes_beyond_the_clip_are_reported(tmp_path):
    viso(tmp_path)
    (tmp_path / "mot" / "car" / "001" / "gt" / "gt.txt").write_text("1 1 2 3 4 5 plane\n9 1 2 3 4 5\n")
    layout = open_layout(tmp_path)
    assert layout[0].boxes[0] == [Box(1, 2, 3, 4, 5, "plane")] and "1 boxes are in frames" in layout.notes[0]


def test_processed_viso_with_boxes(tmp_path):
    jilin(tmp_path, ("test",))
    (tmp_path / "test" / "boxes").mkdir()
    (tmp_path / "test" / "boxes" / "003.txt").write_text("0,7,1,1,5,5,ship")
    assert [pair.boxes and pair.boxes[0] for pair in open_layout(tmp_path)] == [
        None,
        [Box(7, 1, 1, 5, 5, "ship")],
        None,
    ]


def sequence(folder: Path, count: int = 3) -> Path:
    for index in range(count):
        write_image(folder / "img" / f"{index + 1:06d}.png", np.full((8, 8, 3), 20 * index, np.uint8))
    return folder


def air_mot(root: Path) -> Path:
    for place in ("train/1", "test/3", "test/4"):
        gt = sequence(root / place) / "gt" / "gt.txt"
        gt.parent.mkdir()
        gt.write_text("1,1,1,1,2,2,1,1,1\n2,1,2,1,2,2,1,1,1\n1,2,4,4,3,3,1,2,1\n1,3,5,5,2,2,0,2,1\n2,2,4,4,0,3,1,2,1\n")
    return root


@pytest.mark.parametrize(
    ("root", "split", "names"),
    [
        (".", "train", ["1"]),
        (".", "test", ["3", "4"]),
        (".", "all", ["test/3", "test/4", "train/1"]),
        ("train", None, ["1"]),
        ("test", None, ["3", "4"]),
        ("test/3", None, ["3"]),
    ],
)
def test_mot_like_trees(tmp_path, root, split, names):
    layout = open_layout(air_mot(tmp_path / "AIR") / root, split=split)
    assert sorted(pair.name for pair in layout) == names
    for pair in layout:
        assert [[box.label for box in frame] for frame in pair.boxes] == [["class 1", "class 2"], ["class 1"], []]
    assert any("score 0" in note for note in layout.notes) and any("without area" in note for note in layout.notes)


def test_satsot(tmp_path):
    for name in ("car_01", "balloon_02"):
        (sequence(tmp_path / "SatSOT" / name) / "groundtruth.txt").write_text("1,1,2,2\nnone,none,none,none\n3 3 2 2\n")
    layout = open_layout(tmp_path / "SatSOT")
    assert [pair.name for pair in layout] == ["balloon_02", "car_01"]
    assert layout[1].boxes == [[Box(1, 1, 1, 2, 2, "car")], [], [Box(1, 3, 3, 2, 2, "car")]]
    assert layout[0].boxes[0][0].label == "object"
    assert len(open_layout(tmp_path / "SatSOT" / "car_01")[0].boxes) == 3
    (tmp_path / "SatSOT" / "car_01" / "groundtruth.txt").write_text("1,1,2,2\n" * 4)
    with pytest.raises(InputError, match="4 lines for 3 frames"):
        open_layout(tmp_path / "SatSOT")


@pytest.mark.parametrize("huge", ["1e400", "-3", "1e7"])
def test_impossible_boxes_are_refused(tmp_path, huge):
    (sequence(tmp_path / "SatSOT" / "car_01") / "groundtruth.txt").write_text(f"1,1,{huge},2\n")
    with pytest.raises(InputError, match="line 1: a box"):
        open_layout(tmp_path / "SatSOT")
