"""Configs: shipped files load, overrides reach their key, mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import config_from_mapping, config_to_mapping, dump_yaml, keys, load_config
from errors import InputError

CONFIGS = sorted(Path(__file__).parents[2].joinpath("configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_load_and_round_trip(path: Path, tmp_path: Path) -> None:
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
        ("train.steps=many", ["train.steps", "integer"]),
        ("train.steps=0", ["steps", "at least 1"]),
        ("train.accumulate=3", ["accumulate", "multiple"]),
        ("data.patch=1000000", ["data.patch", "at most 4096"]),
        ("seed=-1", ["seed", "at least 0"]),
        ("train.lr=.nan", ["train.lr", "finite"]),
        ("loss.lr_warp=1", ["loss.lr_warp", "has no effect", "remove it"]),
        ("data.scales=[2,4]", ["data.scales", "has no effect"]),
        ("data.scales=[4,4]", ["data.scales", "has no effect"]),
        ("eval.stride=3", ["eval.stride", "has no effect"]),
        ("train.channels_last=true", ["train.channels_last", "has no effect"]),
        ("train.schedule.kind=step", ["train.schedule", "every"]),
        ("network.reconstruction_blocks=3", ["network.reconstruction_blocks", "has no effect"]),
        ("train.stages=[{steps: 3, scales: [2, 4]}]", ["train.stages[0].scales", "space-time"]),
        ("data.train.root=CLIPS", ["data.train.root", "has no effect", "data.train.kind=auto reads files"]),
        ("data.val.bands.limits=[0,9]", ["data.val.bands", "has no effect", "data.val.kind=auto reads files"]),
        ("train.init_partial=true", ["init_partial", "name weights in 'init'"]),
        ("steps", ["key.sub=value"]),
        ("seed.x=1", ["seed", "group"]),
        ("network.scale=5", ["scale", "5"]),
        ("data.train.kind=[", ["YAML"]),
    ],
)
def test_bad_overrides_are_refused_in_one_line(override: str, parts: list[str]) -> None:
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
    with pytest.raises(InputError, match="has no keys"):
        load_config(broken)


def test_keys_of_earlier_versions_are_read() -> None:
    mapping = {"network": {"name": "stno"}, "data": {"turns": False}, "loss": {"lr_between": 0.5}}
    config = config_from_mapping(mapping)
    assert (config.data.rotations, config.loss.lr_intermediate) == (False, 0.5)
    assert config_from_mapping(mapping, ["loss.lr_between=2", "data.turns=true"]).loss.lr_intermediate == 2
    assert mapping["loss"] == {"lr_between": 0.5}  # not changed


@pytest.mark.parametrize("data", ["x", [], [1], 3])
def test_a_group_of_another_type_is_refused_next_to_keys_of_earlier_configs(data: object) -> None:
    with pytest.raises(InputError, match="'data': expected a group of keys"):
        config_from_mapping({"network": {"name": "mtdo", "spacing": 2}, "data": data})


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.strides=[]", "'strides' is empty"),
        ("data.scales=[4,2]", r"expected \[lowest, highest\]"),
        ("eval.times=[0.3]", r"'eval\.times': no true frame at 0\.3 between key frames 2 frames apart"),
        ("eval.times=[0]", r"'eval\.times': no true frame at 0 "),
    ],
)
def test_space_time_keys_are_checked_before_a_run(override: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        config_from_mapping({"network": {"name": "stno"}}, [override])


@pytest.mark.parametrize("key", ["data.train.compression.share=0.5", "data.also=[{root: a, degradation: {noise: 3}}]"])
def test_settings_that_training_at_any_scale_ignores_are_refused(key: str) -> None:
    """Low resolution of any scale is made from crops, by one degradation and without compression."""
    mapping = {"network": {"name": "stno"}, "eval": {"scale": 4}}
    config_from_mapping(mapping, [key])
    for scales in (
        "data.scales=[2,4]",
        "data.scales=[2.5,2.5]",
        "train.stages=[{steps: 1}, {steps: 1, scales: [2, 4]}]",
    ):
        with pytest.raises(InputError, match=r"no effect at scales \["):
            config_from_mapping(mapping, [key, scales])


def test_settings_of_the_simulator_have_no_effect_on_a_folder() -> None:
    path = Path(__file__).parents[2] / "configs" / "mtdo_demo.yaml"
    folder = ["data.val.kind=auto", "data.val.root=CLIPS"]
    assert load_config(path, folder).data.val.root == "CLIPS"  # the file's own settings of the simulator remain
    with pytest.raises(InputError, match=r"simulate' has no effect: .*data\.val\.root"):
        load_config(path, [*folder, "data.val.simulate.clips=3"])
    load_config(path, ["data.val.simulate.clips=3"])


def test_steps_of_stages_add_up() -> None:
    mapping = {"network": {"name": "mtdo"}, "train": {"stages": [{"steps": 3}, {"steps": 4, "patch": 8}]}}
    config = config_from_mapping(mapping)
    assert config.train.steps == 7
    assert config_from_mapping(config_to_mapping(config)) == config


@pytest.mark.parametrize("key", ["train.steps=2", "data.patch=16", "data.scales=[2,2]"])
def test_keys_that_all_stages_set_are_refused(key: str) -> None:
    mapping = {"network": {"name": "stno"}, "eval": {"scale": 2}}
    stages = [{"steps": 3, "patch": 8, "scales": [4, 4]}, {"steps": 4, "patch": 8, "scales": [2, 4]}]
    with pytest.raises(InputError, match=rf"{key.partition('=')[0]}' has no effect: .*train\.stages"):
        config_from_mapping(mapping | {"train": {"stages": stages}}, [key])
    config_from_mapping(mapping | {"train": {"stages": [*stages, {"steps": 1}]}}, [key] * (key != "train.steps=2"))
    config_from_mapping(mapping | {"train": {"stages": stages}}, ["train.stages=[]", key])


def test_clip_names_of_digits_need_no_quotes() -> None:
    path = Path(__file__).parents[2] / "configs" / "mtdo_s.yaml"
    for text in ("[000,011,7]", "['000','011','7']", '["000", 011, 7]'):
        assert load_config(path, [f"data.train.clips={text}"]).data.train.clips == ["000", "011", "7"]


def test_every_key_is_printed_with_type_default_and_meaning() -> None:
    text = keys.table()
    assert "train.keep=2  (an integer from 1 to 1000)  # number of states kept on disk" in text
    assert "network.hat.window=16  (an integer from 2 to 32)  # side of an attention window" in text
    assert "network.macu=true  (true or false)  # off: M = T + R3" in text  # a key after `deformable_groups`
    names = {line.split("=")[0] for line in text.splitlines() if "=" in line}
    config = config_from_mapping({"network": {"name": "mtdo"}})
    for group in ("data", "loss", "train", "eval"):
        assert {
            f"{group}.{name}" for name, value in vars(getattr(config, group)).items() if not vars_of(value)
        } <= names


def vars_of(value: object) -> bool:
    return hasattr(value, "__dataclass_fields__")
