"""Folders with animations, unusual names, and folders that cannot be read."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from PIL import Image

from data.naming import are_one_file
from errors import InputError
from tests.engine.small import moving_clip
from tests.engine.upscale.folders import frames, listed, make, photograph


def animation(path: Path) -> Path:
    shown = [Image.fromarray(moving_clip(3, 16, 24).array(k)) for k in range(3)]
    shown[0].save(path, save_all=True, append_images=shown[1:], duration=100)
    return path


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_animation_next_to_numbered_frames_is_left_out(weight, tmp_path, capsys, suffix):
    frames(tmp_path / "in", 3)
    animation(tmp_path / "in" / f"preview{suffix}")
    make(tmp_path / "in", tmp_path / "out", weight)
    assert listed(tmp_path / "out") == ["000.png", "001.png", "002.png"]
    assert f"'preview{suffix}'" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
@pytest.mark.parametrize("below", [False, True])
def test_photographs_and_animations_are_separate_clips(weight, tmp_path, suffix, below):
    folder = tmp_path / "in" / "below" if below else tmp_path / "in"
    for number, name in enumerate(("beach", "dog")):
        photograph(folder / f"{name}.jpg", seed=number)
    animation(folder / f"wave{suffix}")
    make(tmp_path / "in", tmp_path / "out", weight)
    expected = ["beach.png", "dog.png", "wave.mp4"]
    assert listed(tmp_path / "out") == [f"below/{name}" if below else name for name in expected]


NAMES = ["a b.png", "e\u0301.png", "\u00e9.png", "\U0001f600.png", "%04d.png", "[1].png", "new\nline.png", "-dash.png",
         "UPPER.PNG", "*.png", "a..png", "http:x.png"]  # fmt: skip


def test_unusual_names_of_pictures(weight, tmp_path):
    for number, name in enumerate(NAMES):
        photograph(tmp_path / "photo.png", seed=number)
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "photo.png").rename(tmp_path / "in" / name)
    make(tmp_path / "in", tmp_path / "out", weight, stills=True)
    assert sorted(listed(tmp_path / "out")) == sorted(f"{Path(name).stem}.png" for name in NAMES)


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", "here"])
def test_folders_of_the_operating_system_are_not_clips(weight, tmp_path, name):
    """Nor is a link to the folder itself."""
    frames(tmp_path / "in", 2)
    if name == "here":
        (tmp_path / "in" / name).symlink_to(tmp_path / "in")
    else:
        frames(tmp_path / "in" / name, 2)
        frames(tmp_path / "in" / name / "001.jpg", 1)  # thumbnails of a network storage
    make(tmp_path / "in", tmp_path / "out", weight)
    assert listed(tmp_path / "out") == ["000.png", "001.png"]


LONG = ["x" * 251, "x" * 230, "\u00e9" * 125, "\U0001f600" * 62]  # 251, 230, 250 and 248 bytes


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".mp4"])
def test_names_up_to_255_bytes(weight, tmp_path, name, suffix):
    frames(tmp_path / "in", 2)
    out = tmp_path / f"{name}{suffix}"
    make(tmp_path / "in" / "000.png" if suffix == ".png" else tmp_path / "in", out, weight)
    assert out.stat().st_size and listed(tmp_path) == sorted(["in/000.png", "in/001.png", out.name])


def test_long_names_in_folders(weight, tmp_path):
    photograph(tmp_path / "in" / "a.png")
    for name in LONG:
        photograph(tmp_path / "in" / "b.jpg", seed=len(name))
        (tmp_path / "in" / "b.jpg").rename(tmp_path / "in" / f"{name}.jpg")
    make(tmp_path / "in", tmp_path / "out", weight, stills=True)
    assert listed(tmp_path / "out") == sorted(f"{name}.png" for name in ("a", *LONG))
    with pytest.raises(InputError, match=r"1 of 5 clips were not upscaled.*File name too long"):
        make(tmp_path / "in", tmp_path / "webp", weight, stills=True, image_format="webp")  # 256 bytes
    (tmp_path / "one").mkdir()
    for number in range(2):
        photograph(tmp_path / "one" / f"{number}.png")
        (tmp_path / "one" / f"{number}.png").rename(tmp_path / "one" / f"{'x' * 250}{number}.png")
    with pytest.raises(InputError, match="its name has more than 255 bytes"):
        make(tmp_path / "one", tmp_path / "frames", weight, image_format="webp")
    assert not (tmp_path / "frames").exists()


def test_folder_that_cannot_be_listed_does_not_stop_the_others(weight, tmp_path, monkeypatch):
    frames(tmp_path / "in" / "a", 2)
    frames(tmp_path / "in" / "locked", 2)
    access, scan = os.access, os.scandir

    def denied(path, *_more):
        if not isinstance(path, int) and Path(path).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("os.scandir", denied)
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "locked" and access(path, mode))
    with pytest.raises(InputError, match=r"1 of 2 clips were not upscaled \('locked'\).*cannot be listed"):
        make(tmp_path / "in", tmp_path / "out", weight)
    assert listed(tmp_path / "out") == ["a/000.png", "a/001.png"]
    with pytest.raises(InputError, match=r"locked: cannot be listed"):
        make(tmp_path / "in" / "locked", tmp_path / "out2", weight)


@pytest.mark.parametrize("names", [("A", "a"), ("e\u0301", "\u00e9"), ("stra\u00dfe", "STRASSE")])
@pytest.mark.parametrize("series", [True, False])
def test_names_that_the_disk_does_not_tell_apart(weight, tmp_path, monkeypatch, names, series):
    """As on most disks of Windows and macOS; `are_one_file` asks the disk itself."""
    for number, name in enumerate(names):
        photograph(tmp_path / "in" / f"{name}.png", seed=0 if series else number)
    options = {} if series else {"stills": True}
    make(tmp_path / "in", tmp_path / "apart", weight, **options)
    assert len(listed(tmp_path / "apart")) == 2
    monkeypatch.setattr("data.naming.are_one_file", lambda *_: True)
    with pytest.raises(InputError, match="are one file on its file system"):
        make(tmp_path / "in", tmp_path / "out", weight, **options)
    assert not (tmp_path / "out").exists()


def test_the_disk_is_asked_whether_it_tells_names_apart(tmp_path):
    assert are_one_file(tmp_path / "new", "same", "same") and not are_one_file(tmp_path, "one", "other")
    assert not any(tmp_path.iterdir())


def test_clips_in_a_folder_of_frames_are_named(weight, tmp_path, capsys):
    frames(tmp_path / "in" / "a")
    frames(tmp_path / "in" / "b")
    frames(tmp_path / "in" / "b" / "c")
    make(tmp_path / "in", tmp_path / "out", weight)
    assert sorted(path.name for path in (tmp_path / "out" / "b").iterdir()) == ["000.png", "001.png", "002.png"]
    assert "left out, because they are in a folder of frames: 'c'" in capsys.readouterr().out


def test_control_characters_of_names_do_not_break_lines(weight, tmp_path, capsys):
    frames(tmp_path / "in" / "x\ny")
    animation(tmp_path / "in" / "x\ny" / "preview\r.gif")
    make(tmp_path / "in", tmp_path / "out", weight)
    assert (tmp_path / "out" / "x\ny").is_dir()
    shown = capsys.readouterr().out
    assert r"x\ny': animations next to numbered frames are left out: 'preview\r.gif'" in shown
