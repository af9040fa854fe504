"""Upscaling never deletes or overwrites the user's files, for any request and for files created meanwhile."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from data.locks import lock
from data.media import read_image, write_image
from engine.upscale import run as upscale_module
from engine.upscale.job import ClipJob
from engine.upscale.request import Request
from engine.upscale.run import upscale
from errors import InputError
from tests.engine.small import moving_clip


@pytest.fixture()
def frames(tmp_path: Path) -> Path:
    for index in range(3):
        write_image(tmp_path / "frames" / f"{index:04d}.png", moving_clip(3, 16, 24).array(index))
    return tmp_path / "frames"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def make(source: Path, out: Path | str, weight: Path, **more) -> list[Path]:
    return upscale(Request(source, Path(out), weight, precision="fp32", **more))


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("frames", "new/.."),
        ("frames", "."),
        ("frames", "frames/../frames"),
        ("frames", "frames/large"),
        ("frames", "link"),
        ("frames", "link/large"),
        ("frames/0001.png", "frames"),
        ("frames/0001.png", "frames/0001.png"),
        ("link/0001.png", "frames"),
        ("frames", "fifo"),
        ("frames", "frames/0001.png/large"),
        ("frames", "dangling"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_outputs_that_overlap_the_input_are_refused(frames, weight, tmp_path, monkeypatch, source, out, overwrite):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("frames")
    (tmp_path / "dangling").symlink_to("elsewhere")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "thesis.txt").write_text("precious")
    before = sorted(path.name for path in tmp_path.iterdir()), tree(frames)
    with pytest.raises(InputError):
        make(Path(source), out, weight, overwrite=overwrite)
    assert (sorted(path.name for path in tmp_path.iterdir()), tree(frames)) == before


def test_weights_are_not_overwritten(frames, weight, tmp_path):
    copy = tmp_path / "w" / "m.safetensors"
    copy.parent.mkdir()
    copy.write_bytes(weight.read_bytes())
    with pytest.raises(InputError, match="contains the input"):
        make(frames, copy.parent, copy, overwrite=True)


def test_comparison_does_not_overwrite_the_input(frames, weight, tmp_path):
    make(frames, tmp_path / "x_compare.mp4", weight)
    before = (tmp_path / "x_compare.mp4").read_bytes()
    with pytest.raises(InputError, match=r"x_compare\.mp4' is the input itself"):
        make(tmp_path / "x_compare.mp4", tmp_path / "x.mp4", weight, compare=True, overwrite=True)
    assert (tmp_path / "x_compare.mp4").read_bytes() == before


@pytest.mark.parametrize("name", ["large", "large.tif", "large.mp4"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_file_created_at_the_output_meanwhile_is_kept(frames, weight, tmp_path, monkeypatch, name, kind):
    out, keep = tmp_path / name, ClipJob.keep

    def keep_while_something_appears(job, index, frame):
        keep(job, index, frame)
        if kind == "file":
            out.write_text("precious")
        elif not out.exists():
            out.mkdir()
            (out / "notes.txt").write_text("precious")

    monkeypatch.setattr(ClipJob, "keep", keep_while_something_appears)
    with pytest.raises(InputError, match=name):
        make(frames, out, weight)
    assert (out if kind == "file" else out / "notes.txt").read_text() == "precious"
    monkeypatch.undo()
    with pytest.raises(InputError, match=name):  # and not on --resume
        make(frames, out, weight, resume=True)
    out.rename(tmp_path / "away")
    assert make(frames, out, weight, resume=True) == [out]


def test_overwrite_replaces_only_files_of_the_result(frames, weight, tmp_path):
    out = tmp_path / "large"
    make(frames, out, weight)
    before = tree(out)
    make(frames, out, weight, overwrite=True)
    assert tree(out) == before
    write_image(out / "holiday.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match=r"holiday\.png"):
        make(frames, out, weight, overwrite=True)
    assert (out / "holiday.png").is_file() and (out / "0000.png").read_bytes() == before["0000.png"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_folder_with_the_name_of_the_work_folder_is_kept(frames, weight, tmp_path, overwrite):
    work = tmp_path / ".large.upscaling"
    work.mkdir()
    (work / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="was not made by this program"):
        make(frames, tmp_path / "large", weight, overwrite=overwrite)
    assert (work / "thesis.txt").read_text() == "precious"


def test_second_process_gets_the_holder_of_the_lock(frames, weight, tmp_path):
    with lock(tmp_path / "large"), pytest.raises(InputError, match="is being written by"):
        make(frames, tmp_path / "large", weight)


def interrupted(frames, out, weight, monkeypatch) -> Path:
    """Interrupt a run after two of three frames; return its work folder."""
    keep = ClipJob.keep

    def failing(job, index, frame):
        if index == 2:
            raise KeyboardInterrupt
        keep(job, index, frame)

    with monkeypatch.context() as patched:
        patched.setattr(upscale_module.ClipJob, "keep", failing)
        with pytest.raises(KeyboardInterrupt):
            make(frames, out, weight)
    return out.with_name(f".{out.name}.upscaling")


@pytest.mark.parametrize("name", ["large", "large.mkv"])
@pytest.mark.parametrize("damage", [b"", None])
def test_damaged_stored_frames_are_restored_again(frames, weight, tmp_path, monkeypatch, name, damage):
    make(frames, tmp_path / "uninterrupted" / name, weight)
    work = interrupted(frames, tmp_path / "broken" / name, weight, monkeypatch)
    kept = sorted([*(work / "raw").iterdir(), *(work / "frames").iterdir()])
    assert len(kept) == 2
    kept[0].write_bytes(kept[0].read_bytes()[:-20] if damage is None else damage)
    make(frames, tmp_path / "broken" / name, weight, resume=True)
    paths = [tmp_path / place / name for place in ("uninterrupted", "broken")]
    if name == "large":
        assert tree(paths[0]) == tree(paths[1])
    else:
        assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("changed", ["0002", "0000"])
def test_source_that_changed_meanwhile_is_not_resumed(frames, weight, tmp_path, monkeypatch, changed):
    """Frames of two sources would be mixed."""
    interrupted(frames, tmp_path / "large", weight, monkeypatch)
    write_image(frames / f"{changed}.png", np.full((16, 24, 3), 9, np.uint8))
    with pytest.raises(InputError, match="was started with another source"):
        make(frames, tmp_path / "large", weight, resume=True)


@pytest.mark.parametrize("content", ["[]", "{half", "", '"text"', "null"])
def test_damaged_job_file_is_refused(frames, weight, tmp_path, monkeypatch, content):
    work = interrupted(frames, tmp_path / "large", weight, monkeypatch)
    assert json.loads((work / "job.json").read_text())["kind"] == "frames"
    (work / "job.json").write_text(content)
    with pytest.raises(InputError, match=r"job\.json' is damaged: start again with --overwrite"):
        make(frames, tmp_path / "large", weight, resume=True)
    make(frames, tmp_path / "large", weight, overwrite=True)
    assert read_image(tmp_path / "large" / "0002.png").shape == (32, 48, 3)


@pytest.mark.parametrize("source", ["frames", "frames/0001.png"])
def test_hard_link_of_the_input_is_refused_as_output(frames, weight, tmp_path, source):
    before = (frames / "0001.png").read_bytes()
    os.link(frames / "0001.png", tmp_path / "other.png")
    with pytest.raises(InputError, match=r"another name \(a hard link\) of the input"):
        make(tmp_path / source, tmp_path / "other.png", weight, overwrite=True)
    assert (frames / "0001.png").read_bytes() == (tmp_path / "other.png").read_bytes() == before


@pytest.mark.parametrize("finished", [0, 2])
def test_failed_run_keeps_only_a_resumable_work_folder(frames, weight, tmp_path, monkeypatch, finished):
    keep = ClipJob.keep

    def failing(job, index, frame):
        if index == finished:
            raise InputError("the disk is full")
        keep(job, index, frame)

    with monkeypatch.context() as patched:
        patched.setattr(ClipJob, "keep", failing)
        with pytest.raises(
            InputError, match="the disk is full" + (r"; finished parts are kept.*--resume" if finished else "$")
        ):
            make(frames, tmp_path / "large", weight)
    assert (tmp_path / ".large.upscaling").exists() == bool(finished)
    make(frames, tmp_path / "large", weight, resume=bool(finished))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "large"]


def test_existing_folder_is_refused_as_video_output(frames, weight, tmp_path):
    (tmp_path / "out.mp4").mkdir()
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"'.*out\.mp4' is a folder"):
            make(frames, tmp_path / "out.mp4", weight, overwrite=overwrite)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "out.mp4"]


@pytest.mark.parametrize("kind", ["file", "folder", "mount point"])
def test_outputs_that_cannot_be_replaced_are_refused_before_the_work(frames, weight, tmp_path, monkeypatch, kind):
    out = tmp_path / ("out.mp4" if kind == "file" else "out")
    out.touch() if kind == "file" else out.mkdir()
    access, ismount = os.access, os.path.ismount  # as root every file is writable
    if kind == "mount point":
        monkeypatch.setattr(os.path, "ismount", lambda path: path == out or ismount(path))
    else:
        monkeypatch.setattr(os, "access", lambda path, mode: path != out and access(path, mode))
    before = tree(tmp_path)
    with pytest.raises(InputError, match="mount point" if kind == "mount point" else "is read-only"):
        make(frames, out, weight, overwrite=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("length", [256, 260])
def test_too_long_names_are_refused(frames, weight, tmp_path, length):
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"cannot be written \(File name too long\): name another output"):
        make(frames, tmp_path / ("x" * length + ".mp4"), weight)
    assert tree(tmp_path) == before


def test_named_pipe_is_refused(weight, tmp_path):
    os.mkfifo(tmp_path / "in.mp4")
    with pytest.raises(InputError, match="is a pipe or a device"):
        make(tmp_path / "in.mp4", tmp_path / "out.mp4", weight)


def test_full_disk_at_the_start_leaves_nothing(frames, weight, tmp_path, monkeypatch):
    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "0000.png").write_bytes(b"precious")
    with pytest.raises(InputError, match="No space left on device"):
        upscale(Request(frames, tmp_path / "out", weight, precision="fp32", overwrite=True))
    assert [path.name for path in tmp_path.iterdir() if "upscaling" in path.name] == []
    assert (tmp_path / "out" / "0000.png").read_bytes() == b"precious"


PLACE = "10\n0\n0\n-10\n500005\n4999995\n"
STALE = [
    ("out.tif", name) for name in ("out.tfw", "out.TFW", "out.tifw", "out.wld", "out.tab", "out_RPC.TXT", "out.RPB")
]
STALE += [("out.png", "out.pgw"), ("out.png", "out.wld"), ("out.jpg", "out.jgw"), ("out.tiff", "out.tfw")]


@pytest.mark.parametrize(("out", "stale"), STALE)
def test_georeference_of_an_earlier_result_is_not_applied(frames, weight, tmp_path, out, stale):
    """GDAL reads the place of a picture from files with the same name."""
    (tmp_path / stale).write_text(PLACE)
    before = tree(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(InputError, match=rf"{stale}' gives a georeference to every '{out}'.*move it away"):
            make(frames / "0000.png", tmp_path / out, weight, overwrite=overwrite)
        assert tree(tmp_path) == before


@pytest.mark.parametrize("out", ["out.tif", "out.png"])
def test_results_with_a_georeference_of_their_own(frames, weight, tmp_path, out):
    (frames / "0000.pgw").write_text(PLACE)
    (tmp_path / "out.wld").write_text(PLACE.replace("500005", "1"))
    make(frames / "0000.png", tmp_path / out, weight)
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(tmp_path / out) as file:
        assert tuple(file.transform)[:6] == (5, 0, 500000, 0, -5, 5000000)
    assert (tmp_path / "out.wld").read_text() == PLACE.replace("500005", "1")


def test_scene_without_a_place_next_to_a_world_file(weight, tmp_path):
    write_image(tmp_path / "in.tif", moving_clip(1, 16, 24).array(0))
    (tmp_path / "out.tfw").write_text(PLACE)
    with pytest.raises(InputError, match=r"out.tfw' gives a georeference"):
        make(tmp_path / "in.tif", tmp_path / "out.tif", weight, overwrite=True)
    assert sorted(tree(tmp_path)) == ["in.tif", "out.tfw"]


def test_files_of_the_replaced_result_that_are_deleted_are_named(frames, weight, tmp_path, capsys):
    for _ in range(2):
        make(frames / "0000.png", tmp_path / "out.tif", weight, overwrite=True)
        (tmp_path / "out.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
    assert "out.tif.aux.xml' belongs to the earlier 'out.tif' and is deleted" in capsys.readouterr().out
