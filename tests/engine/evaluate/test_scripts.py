"""Code shared by the evaluation scripts: options reach the config unchanged, sweeps load weights and open clips once."""

from __future__ import annotations

from pathlib import Path

import pytest

import cli
from data.layouts import Layout
from engine import distributed
from engine.checkpoint import save_weights
from engine.evaluate import scripts, sweep
from engine.evaluate.options import evaluation_parser
from engine.sources import open_source
from errors import InputError
from tests.engine.conftest import CLIPS
from tests.engine.small import small_mtdo, small_stno

SIMULATED = ["data.val.kind=simulated", f"data.val.simulate={ {**CLIPS, 'clips': 1, 'frames': 5} }", "device=cpu"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    for name, network in (("mtdo", small_mtdo()), ("stno", small_stno())):
        save_weights(folder / f"{name}.safetensors", network)
    return {name: folder / f"{name}.safetensors" for name in ("mtdo", "stno")}


def options(weight: Path, *words: str, scales: tuple[float, ...] = (), times: tuple[float, ...] = ()):
    result = cli.parse(evaluation_parser("Test.", "", "runs/test"), ["--weight", str(weight), *words])
    result.scales, result.times, result.grid = list(scales), list(times), True
    return result


@pytest.mark.parametrize(
    "text", ["2024", "001", "clips: new", "null", "~", "a #1", "[a]", "Größe\u3000\U0001f600", "\udc80"]
)
def test_paths_are_not_parsed_as_yaml(weights: dict[str, Path], text: str) -> None:
    given = options(weights["mtdo"], "--datapath", text, "--list", text, "--split", text, "--frames", "3")
    config = scripts.prepare(given, space_time=False)[1]
    assert config.data.val.root == config.data.val.list_file == config.data.val.split == text
    assert config.eval.frames == 3


def test_spacing_is_the_only_network_key_to_override(weights: dict[str, Path]) -> None:
    for key in ("data.spacing", "network.spacing"):  # network.spacing: before version 0.2
        model, config, _ = scripts.prepare(options(weights["mtdo"], f"{key}=auto"), space_time=False)
        assert model.spacing == config.data.spacing == "auto"
    with pytest.raises(InputError, match=r"network\.frames is fixed by the weights"):
        scripts.prepare(options(weights["mtdo"], "network.frames=5"), space_time=False)


def test_paths_without_effect_on_simulated_clips_are_refused(weights: dict[str, Path], tmp_path: Path) -> None:
    """The config of a run on simulated clips does not hide --datapath, and a list file needs a folder."""
    (tmp_path / "run.yaml").write_text("network: {name: mtdo}\ndata: {val: {kind: simulated}}\n")
    run = ("--config", str(tmp_path / "run.yaml"))
    with pytest.raises(InputError, match=r"data\.val\.root' has no effect: .*data\.val\.kind=auto"):
        scripts.prepare(options(weights["mtdo"], *run, "--datapath", "CLIPS"), space_time=False)
    given = options(weights["mtdo"], *run, "--datapath", "CLIPS", "--kind", "auto")
    assert scripts.prepare(given, space_time=False)[1].data.val.root == "CLIPS"
    with pytest.raises(InputError, match=r"list_file' has no effect: data\.val\.kind is 'simulated'"):
        scripts.prepare(options(weights["mtdo"], "--list", "a.txt"), space_time=False)
    scripts.prepare(options(weights["mtdo"], "data.val.simulate.clips=2"), space_time=False)


def test_a_config_whose_data_is_no_group_is_refused(weights: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("network: {name: mtdo}\ndata: [1]\n")
    with pytest.raises(InputError, match=r"'data': expected a group of keys, got \[1\]"):
        scripts.prepare(options(weights["mtdo"], "--config", str(tmp_path / "a.yaml")), space_time=False)


@pytest.mark.parametrize("number", ["0", "-2"])
def test_frame_count_below_one_is_refused(weights: dict[str, Path], number: str) -> None:
    with pytest.raises(InputError, match=rf"eval\.frames': expected at least 1, got {number}"):
        scripts.prepare(options(weights["mtdo"], "--frames", number), space_time=False)


def test_frame_count_must_be_a_number(weights: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options(weights["mtdo"], "--frames", "few")
    assert "--frames" in capsys.readouterr().err


def test_sweep_loads_weights_once_and_opens_clips_once_per_scale(
    weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def load(path: Path, really=scripts.load_network, **options):
        calls.append("load")
        return really(path, **options)

    def opened(config, part: str) -> Layout:
        calls.append(f"open x{config.scale:g}")
        return open_source(config, part)

    monkeypatch.setattr(scripts, "load_network", load)
    monkeypatch.setattr(sweep, "open_source", opened)
    given = options(weights["stno"], "--outputpath", str(tmp_path), *SIMULATED, scales=(2.0, 2.5), times=(2.0, 0.25))
    report = sweep.sweep_and_report(given)
    assert calls == ["load", "open x2", "open x2.5"]
    alone = options(weights["stno"], "--outputpath", str(tmp_path / "alone"), *SIMULATED, "eval.scale=2.5")
    single = scripts.evaluate_and_report(alone, space_time=True, defaults=["eval.stride=4", "eval.times=[0.25]"])
    assert (single["crop"], report["crop"]) == (3, None)
    assert report["settings"]["border"] == "as many pixels as the scale, rounded up, are left out"
    assert report["sweep"]["psnr_y"][1][1] == pytest.approx(single["mean"]["psnr_y"], abs=1e-9)


@pytest.mark.parametrize("scale", [0.5, 33.0, float("nan")])
def test_impossible_scale_of_a_sweep_is_named(weights: dict[str, Path], tmp_path: Path, scale: float) -> None:
    given = options(weights["stno"], "--outputpath", str(tmp_path), *SIMULATED, scales=(2.0, scale), times=(2.0,))
    with pytest.raises(InputError, match=f"--scales {scale:g}"):
        sweep.sweep_and_report(given)
    assert not any(tmp_path.iterdir())


def test_only_rank_0_writes_the_sweep(
    weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rank 1 of 2; the rank is known only until the process group is destroyed."""
    rank, written = [1], []
    monkeypatch.setattr(distributed, "rank", lambda: rank[0])
    monkeypatch.setattr(distributed, "stop", lambda: rank.__setitem__(0, 0))
    report = {"config": {"name": "x"}, "crop": 2, "mean": {"psnr_y": 30.0, "gain_psnr_y": 1.0}, "groups": {}}
    monkeypatch.setattr(sweep, "evaluate", lambda *_, **__: dict(report))
    for module, name in ((scripts, "write_report"), (sweep, "write_grid")):
        monkeypatch.setattr(module, name, lambda *_, name=name: written.append(name))
    sweep.sweep_and_report(options(weights["stno"], *SIMULATED, scales=(2.0,), times=(2.0,)))
    assert rank == [0] and written == [] and capsys.readouterr().out == ""


def test_report_title_names_the_run(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "harbour"
    save_weights(run / "weights.safetensors", small_mtdo())
    assert scripts.prepare(options(run / "weights.safetensors"), space_time=False)[1].name == "harbour"
    assert scripts.run_name(Path("checkpoints/mtdo_s.safetensors")) == "mtdo_s"
