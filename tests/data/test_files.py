"""Atomic files, leftovers of killed processes, and protection of the user's files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from data.files import (
    check_apart,
    make_own_folder,
    remove_own_folder,
    remove_unfinished,
    replacing,
    temporary_path,
)
from data.folder_settings import remember
from errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def test_half_written_files_are_removed(tmp_path: Path):
    with pytest.raises(KeyError), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_file_gets_its_name_when_complete(tmp_path: Path):
    with replacing(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("all")
        assert not (tmp_path / "new" / "a.txt").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


def left_behind(path: Path) -> Path:
    """Create the temporary file that a killed process would leave."""
    half = temporary_path(path)
    half.parent.mkdir(parents=True, exist_ok=True)
    half.write_bytes(b"half a file")
    return half


@pytest.mark.parametrize(
    "name", [f"{'x' * 251}.png", f"{'é' * 125}.tiff", "a." + "b" * 253, "y" * 255, "z" * 233 + ".a-b"]
)
def test_temporary_names_of_long_names(tmp_path: Path, name: str):
    path, other = tmp_path / name, tmp_path / f"{name[:100]}{name[101:]}"
    halves, kept = [left_behind(path), left_behind(path)], left_behind(other)
    path.write_bytes(b"complete")
    assert all(len(half.name.encode()) <= 255 for half in halves) and len({*halves, kept, path}) == 4
    remove_unfinished(path)
    assert sorted(tmp_path.iterdir()) == sorted([path, kept])


def test_only_unfinished_files_are_removed(tmp_path: Path):
    names = ["a.png", ".hidden.png", "a.tmp.png", ".a.tmp.png", ".a.b.12.png", "deep/c.12.tmp.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"complete")
    for name in ("a.png", "deep/er/000.01.png", "deep/no_suffix", "w.safetensors"):
        left_behind(tmp_path / name)
    remove_unfinished(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(names)


def test_only_temporary_files_of_this_name_are_removed(tmp_path: Path):
    mine, others = left_behind(tmp_path / "film.mp4"), left_behind(tmp_path / "film2.mp4")
    remove_unfinished(tmp_path / "film.mp4")
    assert not mine.exists() and others.exists()


def test_folder_remembers_its_settings(tmp_path: Path):
    path = tmp_path / "out" / "made.json"
    remember(path, {"scale": 4, "shares": (0.5, 0.5)})
    remember(path, {"scale": 4, "shares": (0.5, 0.5)})
    with pytest.raises(InputError, match=r"other settings \(scale\)"):
        remember(path, {"scale": 2, "shares": (0.5, 0.5)})
    path.write_text("{half")
    with pytest.raises(InputError, match="is damaged"):
        remember(path, {"scale": 4})
    with pytest.raises(InputError, match="not empty"):
        remember(tmp_path / "made.json", {"scale": 4})


# --- nothing of the user's ----------------------------------------------------------------------------------------


def test_temporary_names_are_unpredictable(tmp_path: Path):
    assert temporary_path(tmp_path / "a.png") != temporary_path(tmp_path / "a.png")
    with replacing(tmp_path / "a.png") as first, replacing(tmp_path / "a.png") as second:
        assert first != second and first.is_file() and second.is_file()


def test_file_created_meanwhile_is_not_replaced(tmp_path: Path):
    path = tmp_path / "a.txt"
    with pytest.raises(InputError, match="created meanwhile"), replacing(path, replace=False) as temporary:
        temporary.write_text("new")
        path.write_text("precious")
    assert path.read_text() == "precious" and len(list(tmp_path.iterdir())) == 1


def test_link_at_the_target_is_replaced_and_not_followed(tmp_path: Path):
    (tmp_path / "precious.txt").write_text("mine")
    (tmp_path / "a.txt").symlink_to("precious.txt")
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a.txt").read_text() == "new" and (tmp_path / "precious.txt").read_text() == "mine"


def test_unfinished_folders_are_removed(tmp_path: Path):
    half = temporary_path(tmp_path / "frames")
    half.mkdir()
    (half / "0.png").write_bytes(b"as a killed process leaves it")
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("in", "is the input itself"),
        ("in/../in", "is the input itself"),
        ("link", "is the input itself"),
        ("in/large", "is inside the input"),
        (".", "contains the input"),
        ("new/..", "contains the input"),
        (str(ROOT), "contains this program"),
        (str(ROOT.parent), "contains (this program|the input)"),
        (str(ROOT / "data"), "among the files of this program"),
        (str(ROOT / "upscale.py"), "among the files of this program"),
        (str(ROOT / "engine" / "new"), "among the files of this program"),
    ],
)
def test_outputs_overlapping_input_or_program_are_refused(tmp_path: Path, monkeypatch, output: str, problem: str):
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=problem):
        check_apart([Path(output)], [Path("in")])


def test_every_folder_of_the_repository_is_protected():
    git = shutil.which("git") or pytest.skip("needs git")
    tracked = subprocess.run([git, "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip(f"needs a git checkout of this user: {tracked.stderr}")
    folders = {line.split("/")[0] for line in tracked.stdout.splitlines() if "/" in line} | {".git"}
    assert "experiments" in folders
    for folder in folders:
        with pytest.raises(InputError, match="among the files of this program"):
            check_apart([ROOT / folder / "large.mp4"], [Path("in")])


def test_outputs_outside_the_inputs_are_accepted(tmp_path: Path):
    (tmp_path / "in").mkdir()
    check_apart(
        [tmp_path / "in_large", tmp_path / "new" / "in", ROOT / "large.mp4", ROOT / "runs" / "x"], [tmp_path / "in"]
    )


def test_only_folders_with_the_marker_are_removed(tmp_path: Path):
    own, foreign = tmp_path / "own", tmp_path / "foreign"
    make_own_folder(own)
    make_own_folder(own)
    (own / "piece").write_text("half")
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    (tmp_path / "link").symlink_to(own)
    for path in (foreign, tmp_path / "link"):
        with pytest.raises(InputError, match="not made by this program"):
            remove_own_folder(path)
    with pytest.raises(InputError, match="not made by this program"):
        make_own_folder(foreign)
    remove_own_folder(own)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign", "link"]


def test_tilde_is_not_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("~.mp4", "~nobody/a.mp4"):
        check_apart([Path(name)], [tmp_path / "in.mp4"])
    with pytest.raises(InputError, match="is the input itself"):
        check_apart([Path("~")], [tmp_path / "~"])
