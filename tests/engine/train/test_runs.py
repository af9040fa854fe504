"""Folders of runs: their names, and folders that are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.config import Config, dump_yaml
from engine.train import runs
from errors import InputError


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "a/b", "", "x" * 200, "日" * 100, "a\nb"])
def test_run_names_cannot_leave_the_folder(tiny: Config, name: str) -> None:
    with pytest.raises(InputError, match="cannot name a folder"), runs.new_folder(replace(tiny, name=name)):
        pass


def test_runs_with_the_same_name_get_different_folders(tiny: Config) -> None:
    with runs.new_folder(tiny) as first, runs.new_folder(tiny) as second:
        assert (first.name, second.name) == ("tiny", "tiny-2")
        (first / "log.jsonl").write_text("")
    assert first.is_dir() and not second.exists()  # it is still empty
    with runs.new_folder(tiny) as third:
        assert third.name == "tiny-2"


def test_a_run_that_cannot_start_leaves_no_folder(tiny: Config, tmp_path: Path) -> None:
    """The patch is found to be too large when the first batch is drawn; the corrected run has the same name."""
    file = tmp_path / "tiny.yaml"
    file.write_text(dump_yaml(tiny))
    with pytest.raises(InputError, match="smaller than the patch"):
        runs.train_and_report(str(file), ["data.patch=500"], None)
    assert not list(Path(tiny.runs).glob("*"))


@pytest.mark.parametrize("inside", ["runs", "GT/deeper"])
def test_runs_inside_the_data_are_refused(tiny, tmp_path: Path, inside: str) -> None:
    """The pictures of a run would be clips of the next one."""
    (tmp_path / "data" / "GT").mkdir(parents=True)
    data = replace(tiny.data, val=replace(tiny.data.val, kind="auto", root=str(tmp_path / "data")))
    config = replace(tiny, data=data, runs=str(tmp_path / "data" / inside))
    with pytest.raises(InputError, match=r"config key 'runs': .* is inside the input"), runs.new_folder(config):
        pass
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["GT"]
