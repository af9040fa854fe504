"""Whole files or none, and what a killed process leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.files import remember, remove_unfinished, replacing, temporary_path
from errors import InputError


def test_half_written_files_vanish(tmp_path: Path):
    with pytest.raises(KeyError), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_file_takes_its_name_when_it_is_whole(tmp_path: Path):
    with replacing(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("all")
        assert not (tmp_path / "new" / "a.txt").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


def left_behind(path: Path) -> Path:
    """As a killed process leaves it."""
    half = temporary_path(path)
    half.parent.mkdir(parents=True, exist_ok=True)
    half.write_bytes(b"half a file")
    return half


def test_only_unfinished_files_are_removed(tmp_path: Path):
    names = ["a.png", ".hidden.png", "a.tmp.png", ".a.tmp.png", ".a.b.12.png", "deep/c.12.tmp.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"whole")
    for name in ("a.png", "deep/er/000.01.png", "deep/no_suffix", "w.safetensors"):
        left_behind(tmp_path / name)
    remove_unfinished(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(names)


def test_beside_a_file_only_what_was_to_become_it(tmp_path: Path):
    mine, others = left_behind(tmp_path / "film.mp4"), left_behind(tmp_path / "film2.mp4")
    remove_unfinished(tmp_path / "film.mp4")
    assert not mine.exists() and others.exists()


def test_a_folder_knows_what_it_was_begun_with(tmp_path: Path):
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
