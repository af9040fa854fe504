"""Layouts of data sets: clips, ground truth and low resolution."""

from __future__ import annotations

import numpy as np
import pytest

from data import open_layout
from data.clips import DegradedClip, FolderClip, TiffStackClip, VideoClip
from data.degrade import Degradation
from data.media import write_image
from data.tiff import write_page
from errors import InputError
from tests.data.folders import RANDOM, frames, jilin, names, video


def test_jilin(tmp_path):
    layout = open_layout(jilin(tmp_path), split="train")
    assert layout.kind == "jilin" and names(layout) == ["001", "003", "010"] and "LR4x" in layout.reason
    assert all(
        isinstance(pair.lr, FolderClip) and pair.lr.size == (4, 6) and pair.gt.size == (16, 24) for pair in layout
    )
    assert "training_set" in layout[0].lr.source(0) and len(layout) == 3 and len(layout[0]) == 3
    other = open_layout(tmp_path, split="test", scale=2)
    assert all(isinstance(pair.lr, DegradedClip) and pair.lr.size == (8, 12) for pair in other)
    assert len(names(open_layout(tmp_path, split="all"))) == 6 and "test_set/001" in names(
        open_layout(tmp_path, split="all")
    )


def test_jilin_without_low_resolution_or_splits(tmp_path):
    layout = open_layout(jilin(tmp_path / "a", ("eval",), lr=False))
    assert "made from GT" in layout.reason and layout[0].lr.size == (4, 6)
    for clip in ("calendar", "city"):
        frames(tmp_path / "b" / "GT" / clip)
        frames(tmp_path / "b" / "BIx4" / clip, size=(4, 6))
    layout = open_layout(tmp_path / "b")
    assert layout.kind == "jilin" and isinstance(layout[1].lr, FolderClip)


def test_videos_as_low_resolution_of_frames_and_of_videos(tmp_path):
    for clip in ("a", "b"):
        frames(tmp_path / "frames" / "GT" / clip)
        video(tmp_path / "frames" / "LR4x" / f"{clip}.mkv", 3, size=(4, 6))
        video(tmp_path / "videos" / "GT" / f"{clip}.mkv", 3)
        video(tmp_path / "videos" / "LRx4" / f"{clip}.avi", 3, size=(4, 6))
    for root, kind in ((tmp_path / "frames", FolderClip), (tmp_path / "videos", VideoClip)):
        layout = open_layout(root)
        assert layout.kind == "jilin" and names(layout) == ["a", "b"] and not layout.notes
        assert all(isinstance(pair.lr, VideoClip) and pair.lr.size == (4, 6) for pair in layout)
        assert all(isinstance(pair.gt.clip, kind) and len(pair) == 3 for pair in layout)
    assert names(open_layout(tmp_path / "frames" / "LR4x", need="lr")) == ["a", "b"]
    video(tmp_path / "videos" / "GT" / "a.avi")
    with pytest.raises(InputError, match=r"a\.(avi|mkv) and a\.(avi|mkv) are clips of the same name"):
        open_layout(tmp_path / "videos")
    frames(tmp_path / "frames" / "GT" / "c")
    with pytest.raises(InputError, match="lacks the clip c"):
        open_layout(tmp_path / "frames")
    video(tmp_path / "frames" / "GT" / "d.mkv")
    with pytest.raises(InputError, match="holds videos and folders of frames"):
        open_layout(tmp_path / "frames")


def test_clips_and_single_folders(tmp_path):
    for clip in ("b2", "b10", "a"):
        frames(tmp_path / clip, suffix=".bmp", digits=8)
    layout = open_layout(tmp_path)
    assert layout.kind == "clips" and names(layout) == ["a", "b2", "b10"]
    single = open_layout(tmp_path / "b2")
    assert names(single) == ["b2"] and "one folder of 3 frames" in single.reason


@pytest.mark.parametrize("inside", ["truth", "HR", "GT", "sharp"])
def test_spmcs(tmp_path, inside):
    for clip in ("car05_001", "hdclub_003_001"):
        frames(tmp_path / clip / inside)
        frames(tmp_path / clip / "input4", size=(4, 6))
        frames(tmp_path / clip / "blur")
    layout = open_layout(tmp_path)
    assert layout.kind == "spmcs" and len(layout) == 2 and isinstance(layout[0].lr, FolderClip)
    assert isinstance(open_layout(tmp_path, scale=2)[0].lr, DegradedClip)


def test_single_spmcs_clip(tmp_path):
    """Ground truth, LR and an enlarged LR in one folder are one clip with the name of that folder."""
    for folder, size in (("GT", (16, 24)), ("LR2x", (8, 12)), ("Bicubic2x", (16, 24))):
        frames(tmp_path / "harbour" / folder, size=size)
    layout = open_layout(tmp_path / "harbour", scale=2)
    assert layout.kind == "spmcs" and names(layout) == ["harbour"] and isinstance(layout[0].lr, FolderClip)
    assert isinstance(open_layout(tmp_path / "harbour", scale=4)[0].lr, DegradedClip)
    frames(tmp_path / "harbour" / "park")
    assert len(open_layout(tmp_path / "harbour", "clips", scale=2)) == 4


def test_vimeo90k(tmp_path):
    for clip in ("00001/0001", "00001/0002", "00002/0001"):
        for number in range(1, 8):
            write_image(
                tmp_path / "sequences" / clip / f"im{number}.png", RANDOM.integers(0, 255, (16, 24, 3), np.uint8)
            )
    (tmp_path / "sep_trainlist.txt").write_text("00001/0001\n00002/0001\n")
    (tmp_path / "sep_testlist.txt").write_text("00001/0002\r\n")
    assert names(open_layout(tmp_path, split="train")) == ["00001/0001", "00002/0001"]
    test = open_layout(tmp_path, split="test")
    assert test.kind == "vimeo90k" and names(test) == ["00001/0002"] and len(test[0]) == 7
    assert test[0].gt.frame_names[0] == "im1" and test[0].gt.frame(6).shape == (3, 16, 24)
    assert len(open_layout(tmp_path, split="all")) == 3
    with pytest.raises(InputError, match="choose with split"):
        open_layout(tmp_path)
    (tmp_path / "sep_trainlist.txt").unlink()
    with pytest.raises(InputError, match="sep_trainlist"):
        open_layout(tmp_path, split="train")


@pytest.mark.parametrize("nested", [True, False])
def test_reds(tmp_path, nested):
    for split in ("train", "val"):
        root = tmp_path / split if nested else tmp_path
        frames(root / f"{split}_sharp" / "000", digits=8)
        frames(root / f"{split}_sharp_bicubic" / "X4" / "000", size=(4, 6), digits=8)
    layout = open_layout(tmp_path, split="train")
    assert layout.kind == "reds" and isinstance(layout[0].lr, FolderClip) and "train_sharp" in layout[0].gt.source(0)
    assert isinstance(open_layout(tmp_path, split="val", scale=2)[0].lr, DegradedClip)
    with pytest.raises(InputError, match="choose"):
        open_layout(tmp_path)


def test_videos(tmp_path):
    video(tmp_path / "b.mkv")
    video(tmp_path / "a.avi")
    layout = open_layout(tmp_path)
    assert layout.kind == "file" and names(layout) == ["a", "b"] and "2 videos" in layout.reason
    assert layout[0].lr.size == (4, 6) and layout[0].gt.times[1] == pytest.approx(0.04)
    single = open_layout(tmp_path / "b.mkv", need="lr")
    assert isinstance(single[0].lr, VideoClip) and single[0].gt is None and single.scale is None


def test_tiff_stacks_and_single_images(tmp_path):
    import tifffile

    for name in ("a.tif", "b.tif"):
        (tmp_path / "stacks").mkdir(exist_ok=True)
        with tifffile.TiffWriter(tmp_path / "stacks" / name) as writer:
            for _ in range(3):
                write_page(writer, RANDOM.integers(0, 2047, (16, 24), np.uint16))
    layout = open_layout(tmp_path / "stacks")
    assert layout.kind == "file" and all(len(pair) == 3 and pair.gt.bit_depth == 16 for pair in layout)
    assert isinstance(open_layout(tmp_path / "stacks" / "a.tif", need="lr")[0].lr, TiffStackClip)
    image = frames(tmp_path / "one", 1) / "000.png"
    assert len(open_layout(image)[0]) == 1


def test_high_rate_videos_as_folders(tmp_path):
    for clip in ("GOPR1", "GOPR2"):
        frames(tmp_path / "train" / clip / "sharp")
        frames(tmp_path / "train" / clip / "blur")
    assert open_layout(tmp_path, "gopro", split="train")[0].gt.fps == 240
    frames(tmp_path / "adobe" / "IMG_0001", digits=5)
    assert open_layout(tmp_path / "adobe", "adobe240")[0].gt.times[1] == pytest.approx(1 / 240)


def test_input_for_upscaling(tmp_path):
    jilin(tmp_path)
    layout = open_layout(tmp_path, split="test", need="lr")
    assert all(pair.gt is None and pair.lr.size == (4, 6) for pair in layout)
    assert open_layout(frames(tmp_path / "plain"), need="lr")[0].lr.size == (16, 24)
    frames(tmp_path / "only" / "LR4x" / "001", size=(4, 6))
    assert open_layout(tmp_path / "only", need="lr")[0].lr.size == (4, 6)
    with pytest.raises(InputError, match="no ground truth"):
        open_layout(tmp_path / "only")
    with pytest.raises(InputError, match="LR4x but no GT and no LR for scale 2"):
        open_layout(tmp_path / "only", scale=2, need="lr")


def test_scales_and_degradation(tmp_path):
    frames(tmp_path / "a", size=(17, 26))
    pair = open_layout(tmp_path, scale=4)[0]
    assert pair.gt.size == (16, 24) and pair.lr.size == (4, 6)
    pair = open_layout(tmp_path, scale=2.4)[0]
    assert pair.gt.size == (17, 26) and pair.lr.size == (7, 11)
    blurred = open_layout(tmp_path, scale=4, degradation=Degradation("blur-down"))[0]
    assert not np.array_equal(blurred.lr.array(0), open_layout(tmp_path, scale=4)[0].lr.array(0))
    for scale in (0.5, 0, float("nan")):
        with pytest.raises(InputError, match="scale"):
            open_layout(tmp_path, scale=scale)


def test_folders_of_the_operating_system_are_not_clips(tmp_path):
    for folder in ("a", "b", "b/@eaDir", "__MACOSX", "@eaDir/a", "$RECYCLE.BIN/x"):
        frames(tmp_path / folder)
    layout = open_layout(tmp_path)
    assert names(layout) == ["a", "b"] and [len(pair) for pair in layout] == [3, 3]


def test_links_to_parents_do_not_loop(tmp_path):
    frames(tmp_path / "a")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert names(open_layout(tmp_path)) == ["a"]


def test_low_resolution_that_was_rounded_up_is_cropped(tmp_path):
    """GT of 18x27 at scale 4: MATLAB makes LR of 5x7; its first 4x6 pixels are those of the first 16x24 of GT."""
    gt = RANDOM.integers(0, 255, (18, 27, 3), np.uint8)
    lr = RANDOM.integers(0, 255, (5, 7, 3), np.uint8)
    for name in ("0.png", "1.png"):
        write_image(tmp_path / "GT" / "a" / name, gt)
        write_image(tmp_path / "LRx4" / "a" / name, lr)
    layout = open_layout(tmp_path, scale=4)
    pair = layout.pairs[0]
    assert pair.gt.size == (16, 24) and pair.lr.size == (4, 6)
    assert np.array_equal(pair.lr.array(1), lr[:4, :6]) and np.array_equal(pair.gt.array(1), gt[:16, :24])
    assert "was rounded up" in layout.notes[0]


@pytest.mark.parametrize("low", ["LQ", "lq_x4", "LR_bicubic/X4", "LR_bicubic_x4", "LR/X4"])
def test_names_of_low_resolution(tmp_path, low):
    frames(tmp_path / "gt" / "a")
    frames(tmp_path / low / "a", size=(4, 6))
    layout = open_layout(tmp_path)
    assert f"LR in {low}/" in layout.reason and isinstance(layout[0].lr, FolderClip)


def test_folders_that_are_not_used_are_named(tmp_path):
    frames(tmp_path / "GT" / "a")
    frames(tmp_path / "LR2x" / "a", size=(8, 12))
    assert open_layout(tmp_path).reason == "1 clips in GT/, LR made from GT (not used: LR2x)"


def test_low_resolution_without_ground_truth_is_named(tmp_path):
    frames(tmp_path / "GT" / "a")
    for clip in "abcdef":
        frames(tmp_path / "LR4x" / clip, size=(4, 6))
    assert open_layout(tmp_path).reason == "1 clips in GT/, LR in LR4x/ (not in GT/: b, c, d, ...)"


def test_frames_with_other_numbers_are_paired_with_a_note(tmp_path):
    frames(tmp_path / "GT" / "a")
    frames(tmp_path / "LR" / "a", size=(4, 6))
    assert open_layout(tmp_path).notes == []
    (tmp_path / "LR" / "a" / "000.png").rename(tmp_path / "LR" / "a" / "003.png")
    (note,) = open_layout(tmp_path).notes
    assert note == "clip a: frames are paired by their order: 000 with low resolution 001, ..."
