"""Data sets that are refused, in one line that names the fault, and settings that a data set does not have."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data import open_layout
from data.media import write_image
from errors import InputError
from tests.data.folders import frames, jilin, names, video


def empty_clip_inside(root: Path) -> None:
    frames(root / "a" / "truth")
    (root / "b" / "truth").mkdir(parents=True)


def clip_without_truth(root: Path) -> None:
    frames(root / "a" / "truth")
    frames(root / "b" / "other")


def wrong_ratio(root: Path) -> None:
    for clip in ("001", "003", "010"):
        frames(jilin(root, ("train",)) / "train" / "LR2x" / clip, size=(4, 6))


def text_for_a_video(root: Path) -> None:
    root.mkdir()
    (root / "a.mp4").write_text("no video")


def link_in_a_circle(root: Path) -> None:
    frames(root / "a")
    (root / "b").symlink_to(root / "b")


def low_resolution(root: Path) -> Path:
    return jilin(root, ("train",)) / "train" / "LR4x"


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {  # how to make the root, and the message
    "missing root": (lambda root: None, "no such file or folder"),
    "unknown file": (lambda root: root.write_text("x"), "unknown kind of file"),
    "empty root": (lambda root: root.mkdir(), "no known layout"),
    "empty clip": (lambda root: frames(root / "a").with_name("b").mkdir(), "b: the clip is empty"),
    "empty clip inside": (empty_clip_inside, "truth: the clip is empty"),
    "clip without truth": (clip_without_truth, "b: has no folder"),
    "different length": (
        lambda root: frames(low_resolution(root) / "001", 4, size=(4, 6)),
        "clip 001: 3 frames of ground truth .* but 4",
    ),
    "wrong ratio": (wrong_ratio, "low resolution 6x4 does not fit ground truth 24x16 at scale 2"),
    "missing clip": (lambda root: shutil.rmtree(low_resolution(root) / "003"), "lacks the clip 003"),
    "gap": (lambda root: (frames(root / "a", 5) / "002.png").unlink(), "001.png: the next frame is 003.png, 1 frame"),
    "text for an image": (
        lambda root: (frames(root / "a") / "000.png").write_text("no image"),
        "000.png: cannot be read as an image",
    ),
    "text for a video": (text_for_a_video, "a.mp4: cannot be read as a video"),
    "videos and images": (lambda root: video(frames(root) / "a.mkv"), "put them into two folders"),
    "frames above clips": (lambda root: frames(frames(root) / "a"), "choose one as root"),
    "link in a circle": (link_in_a_circle, "b: a link that leads nowhere"),
    "unknown kind": (lambda root: None, "unknown layout 'jillin': expected auto or one of"),
    "other kind": (lambda root: frames(root / "a"), "is not of the layout 'vimeo90k'"),
}
OPTIONS: dict[str, dict] = {
    "wrong ratio": {"scale": 2},
    "unknown kind": {"kind": "jillin"},
    "other kind": {"kind": "vimeo90k"},
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_data_sets_are_refused_in_one_line(tmp_path, what):
    root = tmp_path / "röot with blanks"
    make, message = BROKEN[what]
    make(root)
    with pytest.raises(InputError) as caught:
        for pair in open_layout(root, **OPTIONS.get(what, {})):
            pair.gt.size
    assert re.search(message, str(caught.value)) and "\n" not in str(caught.value), caught.value


def test_split_must_be_chosen(tmp_path):
    jilin(tmp_path)
    with pytest.raises(InputError, match="test_set and training_set; choose"):
        open_layout(tmp_path)
    with pytest.raises(InputError, match="has no split 'val'"):
        open_layout(tmp_path, split="val")
    with pytest.raises(InputError, match="expected one of train"):
        open_layout(tmp_path, split="tests")
    with pytest.raises(InputError, match="has no split 'train'"):
        open_layout(frames(tmp_path / "one" / "clip").parent, split="train")


def test_videos_of_one_name_are_refused(tmp_path):
    """A report would hold only one of them."""
    for suffix in ("mkv", "avi"):
        video(tmp_path / f"a.{suffix}")
    with pytest.raises(InputError, match="two clips have the name 'a'"):
        open_layout(tmp_path)


@pytest.mark.parametrize("deeper", ["data", "data/data"])
def test_clips_below_the_root_are_named(tmp_path, deeper):
    """As after unpacking an archive into a folder of its name."""
    frames(tmp_path / "root" / deeper / "a")
    with pytest.raises(InputError, match=rf"clips are in \S*/root/{deeper}: name it"):
        open_layout(tmp_path / "root")
    assert names(open_layout(tmp_path / "root" / deeper)) == ["a"]


def test_videos_next_to_folders_of_frames_are_refused(tmp_path):
    frames(tmp_path / "a")
    (tmp_path / "b.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds videos and folders of frames \(b.mp4, a, "):
        open_layout(tmp_path)


@pytest.mark.parametrize(("others", "refused"), [(["000_mask"], True), (["x_0", "x_1"], True), (["003"], False)])
def test_other_pictures_next_to_frames_are_refused(tmp_path, others, refused):
    for name in others:
        frames(tmp_path / "a", 3)
        write_image(tmp_path / "a" / f"{name}.png", np.zeros((16, 24, 3), np.uint8))
    if refused:
        with pytest.raises(InputError, match=r"holds numbered frames \(000.png, ...\) and other pictures"):
            open_layout(tmp_path)
        assert len(open_layout(tmp_path, allow_gaps=True)[0]) == 3 + len(others)
    else:
        assert len(open_layout(tmp_path)[0]) == 4
