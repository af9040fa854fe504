"""Comparisons of small clips: metrics by hand and by scikit-image, tables, figures, page, errors."""

from __future__ import annotations

import csv
import json
import re
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

import cli
from data.clips import ArrayClip
from data.layouts import Pair
from data.media import read_image, write_image
from data.simulate import SimulatorSettings, simulated_layout
from engine.compare import figures, write
from engine.compare.measure import BICUBIC, MethodFrames
from engine.compare.options import add_arguments, check_unused
from engine.compare.run import compare, comparison_config
from engine.evaluate.options import evaluation_parser
from errors import InputError
from settings import from_mapping
from tests.engine.conftest import CLIPS
from tests.engine.report.test_page import browser_dom, seen

NASTY = '=x<img src=a onerror="alert(1)">|_'


def options(*words: str):
    parser: ArgumentParser = evaluation_parser("Test.", "", "runs/eval")
    add_arguments(parser)
    return cli.parse(parser, list(words))


def picture(shift: int, height: int, width: int, noise: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    value = 127 + 60 * np.sin((x + shift) / 2.5)[..., None] * np.array([1, 0.8, 0.6]) + 50 * np.cos(y / 4)[..., None]
    return (value + np.random.default_rng(shift).normal(0, noise, value.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips with sizes that are not multiples of four; a good method (PNG, cropped) and a bad one (full frames)."""
    root = tmp_path_factory.mktemp("world")
    for clip, count, height, width in (("a", 4, 66, 98), (NASTY.replace("/", ""), 3, 67, 99)):
        for k in range(count):
            write_image(root / "gt" / clip / f"{k:04d}.png", picture(k, height, width))
            write_image(root / "good" / clip / f"{k}.png", picture(k, height, width, 3)[:64, :96])
            write_image(root / "bad" / clip / f"{k:04d}_x4.png", picture(k, height, width, 12))
    return root


@pytest.fixture(scope="module")
def result(world: Path) -> Path:
    out = world / "out"
    words = ["--results", f"bad={world / 'bad'}", f"good & 1={world / 'good'}", "eval.crop=4", "--datapath"]
    compare(options(*words, str(world / "gt"), "--outputpath", str(out), "--crop", "a/0001:8,8,32,24"))
    return out


def luma(image: np.ndarray) -> np.ndarray:
    """MATLAB's Y in [0, 255], from its definition, without a border of 4 pixels."""
    y = 16 + (image.astype(float) @ [65.481, 128.553, 24.966]) / 255
    return y[4:-4, 4:-4]


def test_metrics_equal_a_computation_by_hand(world: Path, result: Path) -> None:
    report = json.loads((result / "report.json").read_text())
    assert list(report["methods"]) == ["bicubic", "bad", "good & 1"]
    for method, folder, name in (("bad", "bad", "{:04d}_x4"), ("good & 1", "good", "{}")):
        for k, row in enumerate(report["methods"][method]["clips"]["a"]["frames"]):
            made = luma(read_image(world / folder / "a" / f"{name.format(k)}.png")[:64, :96])
            truth = luma(read_image(world / "gt" / "a" / f"{k:04d}.png")[:64, :96])
            assert row["psnr_y"] == pytest.approx(20 * np.log10(255 / np.sqrt(((made - truth) ** 2).mean())), abs=1e-9)
            full = structural_similarity(
                made, truth, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
            )
            assert row["ssim_y"] == pytest.approx(full, abs=1e-9)
    method = report["methods"]["bad"]
    frames = [row["psnr_y"] for clip in method["clips"].values() for row in clip["frames"]]
    clips = [np.mean([row["psnr_y"] for row in clip["frames"]]) for clip in method["clips"].values()]
    assert len(frames) == 7
    assert method["mean_over_frames"]["psnr_y"] == pytest.approx(np.mean(frames))
    assert method["mean_over_clips"]["psnr_y"] == pytest.approx(np.mean(clips))
    assert method["mean_over_clips"]["psnr_y"] < report["methods"]["good & 1"]["mean_over_clips"]["psnr_y"]
    assert any("cropped to 96x64" in note for note in report["notes"])


def test_tables_and_csv_are_escaped(result: Path) -> None:
    markdown = (result / "report.md").read_text()
    assert "<img" not in markdown and "&lt;img" in markdown and "mean over clips" in markdown
    best = [line for line in markdown.splitlines() if "good &amp; 1 | **" in line]
    assert len(best) >= 4  # two clips, two means
    for name in ("clips.csv", "frames.csv"):
        with (result / name).open() as file:
            rows = list(csv.DictReader(file))
        assert {row["method"] for row in rows} == {"bicubic", "bad", "good & 1"}
        assert not any(cell.startswith("=") for row in rows for cell in row.values() if cell)
    assert len(rows) == 3 * 7
    tex = (result / "report.tex").read_text()
    assert r"good \& 1" in tex and r"\textbf{" in tex and r"\toprule" in tex
    (entry,) = [
        entry
        for entry in json.loads((result / "report.json").read_text())["differences"]
        if (entry["a"], entry["b"], entry["measure"]) == ("good & 1", "bad", "psnr_y")
    ]
    assert 0 < entry["low"] <= entry["difference"] <= entry["high"] and entry["frames"] == 7


def test_crop_figures_have_vector_text(result: Path) -> None:
    pytest.importorskip("matplotlib")
    (entry,) = json.loads((result / "report.json").read_text())["figures"]
    assert (entry["clip"], entry["frame"], entry["width"]) == ("a", "0001", 32)
    assert sorted(Path(name).suffix for name in entry["files"]) == [".pdf", ".pdf", ".png", ".png"]
    for name in entry["files"]:
        content = (result / name).read_bytes()
        assert content[:4] == (b"%PDF" if name.endswith("pdf") else b"\x89PNG")
        assert name.endswith("png") or b"/FontDescriptor" in content


@pytest.mark.parametrize("scale", [2.5, 5])
def test_scales_without_a_window_network(world: Path, tmp_path: Path, scale: float) -> None:
    words = ["--results", f"bad={world / 'bad'}", "eval.crop=4", "--datapath", str(world / "gt"), "--figures", "0"]
    report = compare(options(*words, "--scale", str(scale), "--outputpath", str(tmp_path)))
    assert report["scale"] == scale and report["methods"]["bicubic"]["mean_over_frames"]["psnr_y"] > 15


def test_page_shows_several_methods_in_one_slider(result: Path) -> None:
    page = (result / "report.html").read_text()
    assert "onerror=" not in re.sub(r'"[^"]*"', "", page).replace("&lt;img src=a onerror", "")
    script = """
      const stage = document.querySelector(".stage"), told = [];
      const key = (name, more) => stage.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true, ...more}));
      const right = () => document.querySelector(".tag.right").textContent;
      told.push(right());
      key("2", {code: "Digit2"}); told.push(right());
      key("4", {code: "Digit4"}); told.push(right());
      key("!", {code: "Digit1", shiftKey: true}); told.push(document.querySelector(".tag.left").textContent);
      key("b"); told.push(document.querySelector(".blink").getAttribute("aria-pressed"));
      told.push(document.querySelector(".divider").getAttribute("aria-valuenow"));
      key("b"); told.push(document.querySelector(".divider").getAttribute("aria-valuenow"));
      key("x"); told.push(document.querySelector(".slices").open);
      document.title = told.join("; ");
    """
    dom = browser_dom(result, "#left=bicubic&right=method1&split=30", script=script)
    title = re.search(r"<title>(.*?)</title>", dom)[1].replace("&amp;", "&").split("; ")
    assert title[1:] == ["bad", "ground truth", "bicubic", "true", "100", "30", "true"]
    assert {"bicubic", "gt"} <= set(seen(dom))


def test_objects_of_simulated_clips_are_detected(tmp_path: Path) -> None:
    settings = {**CLIPS, "clips": 1, "frames": 5, "size": [96, 96]}
    layout = simulated_layout(from_mapping(SimulatorSettings, settings), "test", scale=4)
    (pair,) = layout.pairs
    for k, name in enumerate(pair.gt.frame_names):
        write_image(tmp_path / "gt" / pair.name / f"{name}.png", pair.gt.array(k))
    words = ["--results", f"truth={tmp_path / 'gt'}", "data.val.kind=simulated", f"data.val.simulate={settings}"]
    report = compare(options(*words, "--metrics", "psnr_y", "--figures", "0", "--outputpath", str(tmp_path / "out")))
    assert list(report["detection"]) == ["LR", "bicubic", "truth", "GT"]
    assert report["detection"]["truth"] == report["detection"]["GT"]
    assert report["detection"]["GT"]["boxes"] == sum(map(len, pair.boxes))
    assert report["methods"]["truth"]["objects"]["all"]["psnr_y"] == 100
    assert "padding" not in report["settings"]  # no network restores here
    assert "Finding moving objects" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize("words", [["--crop", "a/1:0,0,9,9"], ["--metrics", "lpips"], ["--scale", "2"]])
def test_comparison_options_need_results(words: list[str]) -> None:
    with pytest.raises(InputError, match="needs a comparison"):
        check_unused(options(*words))
    check_unused(options("--frames", "3"))
    with pytest.raises(InputError, match="mtdo_s_x2"):
        check_unused(options("--scale", "2"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metrics", "psnr"], "unknown metric 'psnr'"),
        (["--crop", "a/0001:90,8,32,24"], "expected at least 8x8 pixels within 96x64"),
        (["--crop", "a/9:0,0,9,9"], "no frame '9'"),
        (["--crop", "b/0001:0,0,9,9"], "no clip 'b'"),
        (["--crop", "nonsense"], "expected CLIP/FRAME:x,y,w,h"),
        (["--ndvi", "1,4"], "shows 3 band"),
        (["--ndvi", "nir"], "expected the positions"),
        (["--weight", "w.safetensors"], "leave --weight out"),
        (["--scale", "2"], "the ground truth has"),
    ],
)
def test_bad_options_are_refused_before_work_starts(world: Path, words: list[str], message: str) -> None:
    if "--crop" in words:
        pytest.importorskip("matplotlib")
    asked = options("--results", f"good={world / 'good'}", "--datapath", str(world / "gt"), *words)
    asked.outputpath = str(world / "unused")
    with pytest.raises(InputError, match=message):
        compare(asked)
    assert not (world / "unused").exists()


@pytest.mark.parametrize("scale", ["nan", "inf"])
def test_scales_that_are_no_number_are_refused(scale):
    with pytest.raises(InputError, match=f"--scale {scale}: expected a magnification"):
        comparison_config(options("--scale", scale), [])


def test_a_config_with_a_wrong_group_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("eval: 3\n", encoding="utf-8")
    with pytest.raises(InputError, match="config key 'eval': expected a group of keys"):
        comparison_config(options("--config", str(tmp_path / "config.yaml")), [])


def test_addresses_of_figures_in_markdown() -> None:
    assert write._address("figures/a #1?%20\n(x)/1.png") == "figures/a%20%231%3F%2520%0A%28x%29/1.png"


def test_intermediate_frames_of_the_baseline_have_their_true_times() -> None:
    """As in evaluations: a clip with irregular frame times is not blended evenly."""
    random = np.random.default_rng(0)
    clip = ArrayClip("a", random.integers(0, 256, (3, 16, 16, 3), np.uint8), fps=25)
    clip.times = [0.0, 0.8, 1.0]
    baseline = MethodFrames(Pair("a", clip, clip), {}, 2).of(BICUBIC, 1)
    torch.testing.assert_close(baseline, torch.lerp(clip.frame(0), clip.frame(2), 0.8), rtol=0, atol=1e-5)


def test_crop_of_a_frame_that_a_method_lacks_is_refused_before_the_work(world: Path, tmp_path: Path) -> None:
    part = tmp_path / "part" / "a"
    part.mkdir(parents=True)
    for path in sorted((world / "bad" / "a").iterdir())[:2]:
        (part / path.name).write_bytes(path.read_bytes())
    words = ["--results", f"part={tmp_path / 'part'}", "data.val.clips=[a]", "--datapath", str(world / "gt")]
    last = sorted((world / "gt" / "a").iterdir())[-1].stem
    with pytest.raises(InputError, match=f"part has no frame '{last}'"):
        compare(options(*words, "--outputpath", str(tmp_path / "out"), "--crop", f"a/{last}:0,0,16,16"))
    assert not (tmp_path / "out").exists()


def test_labels_of_figures_bear_any_name() -> None:
    assert figures._literal("cl\udcc3\udcafp $1, \udcff") == "clïp \\$1, \ufffd"
