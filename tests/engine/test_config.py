"""Configs: every shipped file loads, overrides reach their key, mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import config_from_mapping, config_to_mapping, dump_yaml, load_config
from errors import InputError

CONFIGS = sorted(Path(__file__).parents[2].joinpath("configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_load_and_come_back_from_their_dump(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_yaml(config))
    assert load_config(copy) == config


def test_overrides_reach_their_key() -> None:
    path = Path(__file__).parents[2] / "configs" / "mtdo_demo.yaml"
    changed = load_config(
        path, ["train.steps=7", "data.val.region=[0,0,0.5,1]", "network.hat.window=4", "train.lr=2e-4"]
    )
    assert (changed.train.steps, changed.data.val.region) == (7, (0.0, 0.0, 0.5, 1.0))
    assert (changed.network.hat.window, changed.train.lr) == (4, 2e-4)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.stpes=7", ["train.stpes", "did you mean 'steps'"]),
        ("network.hat.windw=8", ["windw", "window"]),
        ("train.steps=many", ["train.steps", "whole number"]),
        ("train.steps=0", ["steps", "at least 1"]),
        ("train.accumulate=3", ["accumulate", "multiple"]),
        ("train.init_partial=true", ["init_partial", "name weights in 'init'"]),
        ("steps", ["key.sub=value"]),
        ("seed.x=1", ["seed", "group"]),
        ("network.scale=5", ["scale", "5"]),
        ("data.train.kind=[", ["YAML"]),
    ],
)
def test_bad_overrides_are_one_clear_line(override: str, parts: list[str]) -> None:
    path = Path(__file__).parents[2] / "configs" / "mtdo_demo.yaml"
    with pytest.raises(InputError) as caught:
        load_config(path, [override])
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_missing_and_broken_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_config(tmp_path / "none.yaml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"try one of .*configs/mtdo_demo\.yaml"):
        load_config("none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("network: [1,\n")
    with pytest.raises(InputError, match=r"broken\.yaml.*not valid YAML"):
        load_config(broken)
    broken.write_text("")
    with pytest.raises(InputError, match="holds no keys"):
        load_config(broken)


def test_stages_add_up() -> None:
    mapping = {"network": {"name": "mtdo"}, "train": {"stages": [{"steps": 3}, {"steps": 4, "patch": 8}]}}
    config = config_from_mapping(mapping)
    assert config.train.steps == 7
    assert config_from_mapping(config_to_mapping(config)) == config
