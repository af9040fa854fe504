"""The scripts run as processes: help, reports, one-line errors with exit code 2."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import cli
import models
from data.clips import ArrayClip
from data.media import write_image
from data.simulate import simulate
from engine.checkpoint import save_weights
from tests.engine.conftest import CLIPS, NETWORK, tiny_mapping
from tests.engine.small import SMALL_STNO
from tests.processes import ROOT, Script

SCRIPTS = ["main.py", "eval.py", "eval_VISO.py", "test_vid4.py", "test_contin.py", "upscale.py"]


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return Script(script, *arguments).result()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip of nine frames on disk."""
    root = tmp_path_factory.mktemp("clips")
    clip: ArrayClip = simulate(None, {**CLIPS, "clips": 1, "frames": 9})[0]
    for index in range(9):
        write_image(root / "scene" / f"{index + 1:03d}.png", clip.array(index))
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    for name, config in {"mtdo": NETWORK, "stno": SMALL_STNO}.items():
        save_weights(folder / f"{name}.safetensors", models.build(config))
    return {name: folder / f"{name}.safetensors" for name in ("mtdo", "stno")}


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_an_example(script: str) -> None:
    """At once: PyTorch, which takes seconds, is not imported."""
    command = [sys.executable, "-X", "importtime", str(ROOT / script), "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0 and "example" in result.stdout and f"python {script}" in result.stdout
    assert "argparse" in result.stderr and "torch" not in result.stderr


def test_help_describes_saved_frames() -> None:
    assert "TIFF" in run("eval.py", "--help").stdout
    text = run("test_vid4.py", "--help").stdout
    assert "--save-frames" not in text and "frames are always written" in text


def test_scripts_run_from_any_folder(clips: Path, tmp_path: Path) -> None:
    """Started as users do, so that Python finds the repository from the script's own folder."""

    def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / script), *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)

    result = run("eval.py", "--datapath", clips, "--frames", 1, "--outputpath", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    result = run("main.py", "train.stpes=1")  # the config of the demo was found
    assert "did you mean 'steps'" in result.stderr


def test_eval_writes_every_report(clips: Path, weights: dict[str, Path], tmp_path: Path) -> None:
    result = run(
        "eval.py",
        "--weight",
        weights["mtdo"],
        "--datapath",
        clips,
        "--outputpath",
        tmp_path,
        "--frames",
        2,
        "--save-frames",
    )
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["clips"]["scene"]["psnr_y"] > 15 and report["mean"]["bicubic_psnr_y"] > 15
    assert {p.name for p in tmp_path.iterdir()} >= {"report.json", "report.md", "report.csv", "report.html", "frames"}
    assert sorted(p.name for p in (tmp_path / "frames" / "scene").iterdir()) == ["001.png", "002.png"]
    assert "scene" in result.stdout


@pytest.mark.slow
def test_vid4_frame_names_follow_their_time(clips: Path, weights: dict[str, Path], tmp_path: Path) -> None:
    result = run("test_vid4.py", "--weight", weights["stno"], "--datapath", clips, "--outputpath", tmp_path)
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    rows = report["clips"]["scene"]["frames"]
    assert [row["frame"] for row in rows] == [f"{i:03d}" for i in range(1, 10)]
    assert [row["kind"] for row in rows] == ["key", "between"] * 4 + ["key"]
    assert {"key", "between"} == set(report["groups"]) and "tof" in report["mean"]
    assert len(list((tmp_path / "frames" / "scene").iterdir())) == 9


@pytest.mark.slow
def test_contin_tabulates_scales_and_times(clips: Path, weights: dict[str, Path], tmp_path: Path) -> None:
    result = run(
        "test_contin.py", "--weight", weights["stno"], "--datapath", clips, "--outputpath", tmp_path,
        "--scales", 2, 2.4, "--times", 2, 0.25, "--grid",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    sweep = json.loads((tmp_path / "report.json").read_text())["sweep"]
    assert sweep["scales"] == [2.0, 2.4] and sweep["times"] == [2.0, 0.25]
    assert all(value > 10 for row in sweep["psnr_y"] for value in row)
    assert (tmp_path / "grid.png").is_file()


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("main.py", ["--config", "none.yaml"], "none.yaml"),
        ("main.py", ["train.stpes=1"], "did you mean 'steps'"),
        ("main.py", ["--resume", "nowhere"], "nothing to resume"),
        ("main.py", ["data.train.kind=auto", "data.train.root=nowhere"], "nowhere"),
        ("main.py", ["name=a/b"], "cannot name a folder"),
        ("main.py", ["device=quantum"], "quantum"),
        ("eval.py", ["--weight", "none.pth"], "none.pth"),
        ("eval.py", ["--weight", "{stno}"], "STNO weights"),
        ("eval.py", ["--weight", "{mtdo}", "--datapath", "nowhere"], "nowhere"),
        ("test_vid4.py", ["--weight", "{mtdo}"], "MTDO weights"),
        ("test_vid4.py", ["--weight", "{stno}", "--scale", "0.5"], "scale"),
        ("test_contin.py", ["--weight", "{stno}", "--times", "1.5"], "--times 1.5"),
    ],
)
def test_wrong_arguments_give_one_line_and_exit_code_2(
    script: str, arguments: list[str], words: str, weights: dict[str, Path], tmp_path: Path
) -> None:
    filled = [argument.format(**weights) for argument in arguments]
    place = [f"runs={tmp_path}"] if script == "main.py" else ["--outputpath", tmp_path]
    result = run(script, *filled, *place)
    assert result.returncode == 2, (result.stdout, result.stderr)
    error = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(error) == 1 and words in error[0], result.stderr
    assert "Traceback" not in result.stderr


def test_resume_with_another_network_is_refused(weights: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(tiny_mapping(tmp_path / "runs")))
    result = run("main.py", "--config", file, "--resume", weights["mtdo"])
    assert result.returncode == 2 and "not a training state" in result.stderr


def test_characters_missing_in_a_windows_code_page_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr("sys.stdout", stream)
    assert cli.exit_code(lambda: print("PSNR ↑", flush=True)) == 0
    assert stream.buffer.getvalue().split() == [b"PSNR", b"?"]
