"""The released weights are found from any folder and chosen by scale and kind of network."""

from __future__ import annotations

from pathlib import Path

import pytest

from data import files
from engine.released import released, released_for
from errors import InputError


@pytest.mark.parametrize(
    ("network", "scale", "name"),
    [
        ("mtdo", None, "mtdo_s"),
        ("mtdo", 4, "mtdo_s"),
        ("mtdo", 2.0, "mtdo_s_x2"),
        ("mtdo", 3, "mtdo_s_x3"),
        ("stno", None, "stno_s"),
        ("stno", 3.3, "stno_s"),
    ],
)
def test_released_weights_are_found_from_anywhere(
    network: str, scale: float | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, short = tmp_path / "repository", Path("checkpoints") / f"{name}.safetensors"
    (root / short).parent.mkdir(parents=True)
    (root / short).touch()
    monkeypatch.setattr(files, "REPOSITORY", root)
    monkeypatch.chdir(root)
    assert released(network, scale) == short
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert released(network, scale) == root / short


def test_missing_released_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no MTDO weights of scale 5 come with the repository, only of 2, 3, 4"):
        released("mtdo", 5)
    monkeypatch.setattr(files, "REPOSITORY", tmp_path)
    with pytest.raises(
        InputError, match=r"weights file '.*mtdo_s\.safetensors' does not exist: name a file with --weight"
    ):
        released("mtdo")


@pytest.mark.parametrize(
    ("scale", "space_time", "name"),
    [
        (None, False, "mtdo_s"), (2.0, None, "mtdo_s_x2"), (3.3, None, "mtdo_s"), (4.0, True, "stno_s"),
        (1.0, None, "mtdo_s_x2"), (8.0, None, "mtdo_s"), (3.0, None, "mtdo_s_x3"), (3.3, True, "stno_s"),
        (None, None, "mtdo_s"),
    ],
)  # fmt: skip
def test_released_weights_for_a_job(scale: float | None, space_time: bool | None, name: str) -> None:
    assert released_for(scale, space_time=space_time).stem == name


def test_scales_without_released_window_weights_are_refused() -> None:
    with pytest.raises(InputError, match="no weights of scale 5 come with the repository"):
        released_for(5, space_time=False)
