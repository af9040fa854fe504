import re
from pathlib import Path

import numpy as np
import pytest

from data import open_layout
from data.clips import DegradedClip, FolderClip, TiffStackClip, VideoClip
from data.degrade import Degradation
from data.layouts import Box
from data.media import write_image
from data.tiff import write_page
from data.video.writer import VideoWriter
from errors import InputError

RANDOM = np.random.default_rng(0)


def frames(folder: Path, count: int = 3, size=(16, 24), suffix: str = ".png", digits: int = 3, first: int = 0) -> Path:
    for number in range(first, first + count):
        write_image(folder / f"{number:0{digits}d}{suffix}", RANDOM.integers(0, 255, (*size, 3), np.uint8))
    return folder


def jilin(root: Path, splits=("training_set", "test_set"), lr: bool = True, clips=("003", "001", "010")) -> Path:
    for split in splits:
        for clip in clips:
            frames(root / split / "GT" / clip)
            if lr:
                frames(root / split / "LR4x" / clip, size=(4, 6))
                frames(root / split / "Bicubic4x" / clip)
    return root


def names(layout) -> list[str]:
    return [pair.name for pair in layout]


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


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", ["/", "\\"])
def test_list_files_of_any_operating_system(tmp_path, end, separator):
    jilin(tmp_path)
    lines = [f"003{separator}001.png", f"003{separator}002.png", "", f"GT{separator}010{separator}000.png"]
    (tmp_path / "training_set" / "list.txt").write_bytes(("\ufeff" + end.join(lines)).encode())
    layout = open_layout(tmp_path, split="train", list_file="list.txt")
    assert [(pair.name, pair.listed) for pair in layout] == [("003", [1, 2]), ("010", [0])]
    assert len(layout[0]) == 3  # unlisted frames are still used as neighbours


def test_list_files_that_do_not_match_are_refused(tmp_path):
    jilin(tmp_path, ("train",))
    for text, message in [("099/001.png", "clip '099'"), ("001/077.png", "frame 001/077.png"), ("\n", "empty")]:
        (tmp_path / "list.txt").write_text(text)
        with pytest.raises(InputError, match=message):
            open_layout(tmp_path, list_file=tmp_path / "list.txt")
    with pytest.raises(InputError, match="no such list file"):
        open_layout(tmp_path, list_file="none.txt")
    (tmp_path / "list.txt").write_text("001\n003\n")
    assert [pair.listed for pair in open_layout(tmp_path, list_file="list.txt")] == [None, None]


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
        ("77,1,2,3,4,5", "none of its frame numbers"),
    ],
)
def test_broken_boxes(tmp_path, text, message):
    viso(tmp_path)
    (tmp_path / "mot" / "car" / "001" / "gt" / "gt.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        open_layout(tmp_path)


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


def film(path: Path, count: int = 4) -> Path:
    with VideoWriter(path, fps=25, lossless=True, codec="ffv1") as writer:
        for _ in range(count):
            writer.write(RANDOM.integers(0, 255, (16, 24, 3), np.uint8))
    return path


def test_videos(tmp_path):
    film(tmp_path / "b.mkv")
    film(tmp_path / "a.avi")
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


def broken(root: Path, what: str) -> tuple[dict, str]:
    """Make one broken data set; return the options of `open_layout` and the expected message."""
    if what == "missing root":
        return {}, "no such file or folder"
    if what == "empty root":
        root.mkdir()
        return {}, "no known layout"
    if what == "empty clip":
        frames(root / "a")
        (root / "b").mkdir()
        return {}, "b: the clip is empty"
    if what == "empty clip inside":
        frames(root / "a" / "truth")
        (root / "b" / "truth").mkdir(parents=True)
        return {}, "truth: the clip is empty"
    if what == "clip without truth":
        frames(root / "a" / "truth")
        frames(root / "b" / "other")
        return {}, "b: has no folder"
    if what == "different length":
        frames(jilin(root, ("train",)) / "train" / "LR4x" / "001", 4, size=(4, 6))
        return {}, "clip 001: 3 frames of ground truth .* but 4"
    if what == "wrong ratio":
        for clip in ("001", "003", "010"):
            frames(jilin(root, ("train",)) / "train" / "LR2x" / clip, size=(4, 6))
        return {"scale": 2}, "low resolution 6x4 does not fit ground truth 24x16 at scale 2"
    if what == "missing clip":
        for path in (jilin(root, ("train",)) / "train" / "LR4x" / "003").iterdir():
            path.unlink()
        (root / "train" / "LR4x" / "003").rmdir()
        return {}, "lacks the clip 003"
    if what == "gap":
        (frames(root / "a", 5) / "002.png").unlink()
        return {}, "001.png: the next frame is 003.png, 1 frame"
    if what == "text for an image":
        (frames(root / "a") / "000.png").write_text("no image")
        return {}, "000.png: cannot be read as an image"
    if what == "text for a video":
        root.mkdir()
        (root / "a.mp4").write_text("no film")
        return {}, "a.mp4: cannot be read as a video"
    if what == "videos and images":
        film(frames(root) / "a.mkv")
        return {}, "put them into two folders"
    if what == "frames above clips":
        frames(frames(root) / "a")
        return {}, "choose one as root"
    if what == "link in a circle":
        frames(root / "a")
        (root / "b").symlink_to(root / "b")
        return {}, "b: a link that leads nowhere"
    if what == "unknown kind":
        return {"kind": "jillin"}, "unknown layout 'jillin': expected auto or one of"
    if what == "other kind":
        frames(root / "a")
        return {"kind": "vimeo90k"}, "is not of the layout 'vimeo90k'"
    assert what == "unknown file"
    root.write_text("x")
    return {}, "unknown kind of file"


WHAT = [
    "missing root",
    "empty root",
    "empty clip",
    "empty clip inside",
    "clip without truth",
    "different length",
    "wrong ratio",
]
WHAT += ["missing clip", "gap", "text for an image", "text for a video", "videos and images", "frames above clips"]
WHAT += ["link in a circle", "unknown kind", "other kind", "unknown file"]


@pytest.mark.parametrize("what", WHAT)
def test_broken_data_sets_are_refused_in_one_line(tmp_path, what):
    options, message = broken(tmp_path / "röot with blanks", what)
    with pytest.raises(InputError) as caught:
        for pair in open_layout(tmp_path / "röot with blanks", **options):
            pair.gt.size
    assert re.search(message, str(caught.value)) and "\n" not in str(caught.value), caught.value


def test_links_to_parents_do_not_loop(tmp_path):
    frames(tmp_path / "a")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert names(open_layout(tmp_path)) == ["a"]


# --- MOT-like trees, SatSOT, lists of other toolboxes -------------------------------------------------------------------


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


@pytest.mark.parametrize("line", ["000 3 (64,64,3)", "000 100 (720, 1280, 3)", "train_sharp/000", "000/"])
def test_lists_of_other_toolboxes(tmp_path, line):
    for clip in ("000", "011"):
        write_image(tmp_path / "train_sharp" / clip / "00000000.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "meta_info.txt").write_text(line + "\n")
    assert [pair.name for pair in open_layout(tmp_path, list_file=tmp_path / "meta_info.txt")] == ["000"]


@pytest.mark.parametrize("line", ["00001/../..", "../x", "/etc/passwd", "00001", "a/b/c", "00001/..", "./00001"])
def test_lists_cannot_leave_the_root(tmp_path, line):
    for index in range(1, 8):
        write_image(tmp_path / "sequences" / "00001" / "0001" / f"im{index}.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "sep_testlist.txt").write_text(line + "\n")
    with pytest.raises(InputError, match=r"sep_testlist\.txt, line 1: expected GROUP/CLIP"):
        open_layout(tmp_path, split="test")


def test_lists_in_another_encoding(tmp_path):
    (tmp_path / "sequences").mkdir()
    (tmp_path / "sep_testlist.txt").write_bytes(b"caf\xe9/1\n")
    with pytest.raises(InputError, match=r"sep_testlist\.txt: cannot be read as a list of clips"):
        open_layout(tmp_path, split="test")


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
