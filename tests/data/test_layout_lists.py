"""List files: frames and clips by name, in the forms of several toolboxes."""

from __future__ import annotations

import numpy as np
import pytest

from data import open_layout
from data.media import write_image
from errors import InputError
from tests.data.folders import jilin


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", ["/", "\\"])
def test_list_files_of_any_operating_system(tmp_path, end, separator):
    jilin(tmp_path)
    lines = [f"003{separator}001.png", f"003{separator}002.png", "", f"GT{separator}010{separator}000.png"]
    (tmp_path / "training_set" / "list.txt").write_bytes(("\ufeff" + end.join(lines)).encode())
    layout = open_layout(tmp_path, split="train", list_file="list.txt")
    assert [(pair.name, pair.listed) for pair in layout] == [("003", [1, 2]), ("010", [0])]
    assert len(layout[0]) == 3  # unlisted frames are still used as neighbours


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_and_comments_of_lists(tmp_path, encoding):
    jilin(tmp_path, ("train",))
    (tmp_path / "list.txt").write_bytes("# clips by night\r\n\r\n003\r\n".encode(encoding))
    assert [pair.name for pair in open_layout(tmp_path, list_file=tmp_path / "list.txt")] == ["003"]


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


@pytest.mark.parametrize(
    ("line", "listed"), [("00001/0001/im4.png", [3]), ("00001/0001/im4", [3]), ("sequences/00001/0001", None)]
)
def test_frames_without_suffix_and_longer_paths(tmp_path, line, listed):
    for index in range(1, 8):
        write_image(tmp_path / "sequences" / "00001" / "0001" / f"im{index}.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "list.txt").write_text(line + "\n")
    layout = open_layout(tmp_path, list_file=tmp_path / "list.txt")
    assert [(pair.name, pair.listed) for pair in layout] == [("00001/0001", listed)]
