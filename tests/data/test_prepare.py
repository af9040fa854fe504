"""Conversion to the jilin layout: values, splits, resuming, no incomplete clips."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from data.clips import FolderClip
from data.degrade import imresize
from data.layouts import open_layout
from data.media import read_image, write_image
from data.prepare import Plan, assign, main, prepare
from errors import InputError

RANDOM = np.random.default_rng(3)


def frames(count: int, size: tuple[int, int] = (34, 50), dtype=np.uint8) -> list[np.ndarray]:
    white = np.iinfo(dtype).max
    return [RANDOM.integers(0, white, (*size, 3), endpoint=True).astype(dtype) for _ in range(count)]


@pytest.fixture()
def source(tmp_path: Path) -> Path:
    """Five clips of 3 to 7 frames in plain folders; sizes are not multiples of the scale."""
    for number in range(5):
        for index, frame in enumerate(frames(3 + number)):
            write_image(tmp_path / "source" / f"c{number}" / f"{index + 10:03d}.png", frame)
    return tmp_path / "source"


def tree(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_values_and_lists(source: Path, tmp_path: Path):
    out = tmp_path / "out"
    splits = prepare(Plan(str(source), shares=(0.6, 0.2, 0.2)), out, jobs=1, quiet=True)
    assert [len(splits[name]) for name in ("train", "val", "test")] == [3, 1, 1]
    assert sorted(name for names in splits.values() for name in names) == [f"c{number}" for number in range(5)]
    name = splits["test"][0]
    original = FolderClip(source / name)
    for index in range(len(original)):
        gt = original.array(index)[:32, :48]
        planes = torch.from_numpy(np.moveaxis(gt, -1, 0).copy())
        low = imresize(planes, 0.25)
        place = out / "test_set"
        read = {kind: read_image(place / kind / name / f"{index:08d}.png") for kind in ("GT", "LR4x", "Bicubic4x")}
        np.testing.assert_array_equal(read["GT"], gt)
        np.testing.assert_array_equal(read["LR4x"], low.movedim(0, -1).numpy())
        np.testing.assert_array_equal(read["Bicubic4x"], imresize(low, 4).movedim(0, -1).numpy())
    lines = (out / "test.txt").read_text().splitlines()
    assert lines == [f"{name}/{index:08d}.png" for index in range(len(original))]
    layout = open_layout(out, split="train", list_file="train.txt")
    assert layout.kind == "jilin" and [pair.name for pair in layout] == splits["train"]


def test_splits_come_from_the_seed_or_the_source(source: Path, tmp_path: Path):
    layout = open_layout(source, split="all")
    first, again = (assign(layout, Plan(str(source), seed=1)) for _ in range(2))
    assert first == again and [len(first[name]) for name in ("train", "val", "test")] == [3, 1, 1]
    assert any(assign(layout, Plan(str(source), seed=seed)) != first for seed in range(2, 8))
    assert assign(layout, Plan(str(source), shares=(1, 0, 0)))["train"] == [f"c{number}" for number in range(5)]
    for split, number in (("train", 0), ("test", 1)):
        for index, frame in enumerate(frames(2)):
            write_image(tmp_path / "own" / split / f"k{number}" / f"{index}.png", frame)
    kept = prepare(Plan(str(tmp_path / "own")), tmp_path / "kept", jobs=1, quiet=True)
    assert kept == {"train": ["train/k0"], "val": [], "test": ["test/k1"]}


def test_resumed_run_equals_an_uninterrupted_one(source: Path, tmp_path: Path):
    plan, out = Plan(str(source)), tmp_path / "out"
    prepare(plan, tmp_path / "undisturbed", jobs=1, quiet=True)
    broken = source / "c4" / "012.png"
    content = broken.read_bytes()
    broken.write_bytes(content[:40] + b"damage" + content[46:])
    with pytest.raises(InputError, match=r"012\.png"):
        prepare(plan, out, jobs=1, quiet=True)
    seen = {path.name for path in out.rglob("*") if path.is_dir() and path.parent.name in ("GT", "LR4x", "Bicubic4x")}
    assert "c4" not in seen and ".c4.part" in seen
    full = [name for name in seen if not name.startswith(".")]
    for name in full:  # visible clips are complete
        parts = [sorted(path.name for path in folder.iterdir()) for folder in out.glob(f"*/*/{name}")]
        assert len(parts) == 3 and all(len(part) == len(list((source / name).iterdir())) for part in parts)
    broken.write_bytes(content)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    prepare(plan, out, jobs=1, quiet=True)
    assert all(path.stat().st_mtime_ns == time for path, time in times.items() if path.exists())
    assert tree(out) == tree(tmp_path / "undisturbed")


@pytest.mark.slow
def test_resume_after_a_kill_equals_an_uninterrupted_run(source: Path, tmp_path: Path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "data.prepare", str(source), str(out), "--jobs", "2"]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], start_new_session=True, stderr=subprocess.PIPE)
    # Folders may be renamed during the walk
    while process.poll() is None and sum(len(names) for _, _, names in os.walk(out)) < 10:
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):  # it may have ended before
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    half = next(out.rglob("*.png")).with_name(".00000001.99999999.tmp.png")
    half.write_bytes(b"half a file")  # as left by a kill during writing
    prepare(Plan(str(source)), out, jobs=2, quiet=True)
    prepare(Plan(str(source)), tmp_path / "undisturbed", jobs=1, quiet=True)
    assert tree(out) == tree(tmp_path / "undisturbed")


def test_result_does_not_depend_on_the_number_of_processes(source: Path, tmp_path: Path):
    plan = Plan(str(source))
    prepare(plan, tmp_path / "one", jobs=1, quiet=True)
    prepare(plan, tmp_path / "two", jobs=2, quiet=True)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_sixteen_bits_and_boxes(tmp_path: Path):
    clip = tmp_path / "viso" / "mot" / "car" / "001"
    for index, frame in enumerate(frames(3, (32, 32))):
        write_image(clip / "img" / f"{index + 1:06d}.jpg", frame)
    (clip / "gt").mkdir()
    (clip / "gt" / "gt.txt").write_text("1,7,1.5,2,3,4,1,1,1\n3,7,2,2,3,4,1,1,1\n")
    prepare(Plan(str(tmp_path / "viso"), bicubic=False), tmp_path / "a", jobs=1, quiet=True)
    assert not list((tmp_path / "a").glob("*/Bicubic*"))
    pair = open_layout(tmp_path / "a", split="train")[0]
    assert pair.boxes is not None
    assert [[tuple(box) for box in boxes] for boxes in pair.boxes] == [
        [(7, 1.5, 2, 3, 4, "car")],
        [],
        [(7, 2, 2, 3, 4, "car")],
    ]
    deep = frames(2, (32, 32), np.uint16)
    for index, frame in enumerate(deep):
        write_image(tmp_path / "deep" / "k" / f"{index}.png", frame)
    prepare(Plan(str(tmp_path / "deep")), tmp_path / "b", jobs=1, quiet=True)
    stored = read_image(tmp_path / "b" / "training_set" / "GT" / "k" / "00000001.png")
    np.testing.assert_array_equal(stored, deep[1])
    assert read_image(tmp_path / "b" / "training_set" / "LR4x" / "k" / "00000000.png").dtype == np.uint16


def test_other_settings_for_the_same_folder_are_refused(source: Path, tmp_path: Path):
    out = tmp_path / "out"
    prepare(Plan(str(source)), out, jobs=1, quiet=True)
    with pytest.raises(InputError, match="seed"):
        prepare(Plan(str(source), seed=5), out, jobs=1, quiet=True)
    write_image(source / "new" / "0.png", frames(1)[0])
    with pytest.raises(InputError, match="clips"):
        prepare(Plan(str(source)), out, jobs=1, quiet=True)
    with pytest.raises(InputError, match="not empty"):
        prepare(Plan(str(source / "c0")), source, jobs=1, quiet=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "1"], "scale"),
        (["--shares", "0.5", "0.1", "0.1"], "shares"),
        (["--shares", "1", "nan", "0"], "shares"),
        (["--seed", "-1"], "seed"),
        (["--jobs", "0"], "--jobs 0"),
        (["--kind", "vimeo90k"], "vimeo90k"),
    ],
)
def test_wrong_arguments_are_refused(source: Path, tmp_path: Path, capsys, arguments: list[str], message: str):
    assert main([str(source), str(tmp_path / "out"), "--jobs", "1", *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error


def test_command(source: Path, tmp_path: Path, capsys):
    assert main([str(source), str(tmp_path / "out"), "--jobs", "1"]) == 0
    assert "train 3, val 1, test 1" in capsys.readouterr().out
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "out2")]) == 2
    assert main([str(source), str(source)]) == 2


def test_interrupted_command_says_how_to_continue(source: Path, tmp_path: Path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("data.prepare.prepare", interrupted)
    assert main([str(source), str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "stopped; the same command continues, finished clips are kept\n"
