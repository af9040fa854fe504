"""The output folder of evaluations: no input and no file of the user is overwritten, and an interruption leaves no partial files."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

import cli
from data.files import MARKER, write_texts
from data.media import read_image, write_image
from engine.checkpoint import save_weights
from engine.compare import run as comparison
from engine.compare.options import add_arguments
from engine.evaluate import scripts
from engine.evaluate.options import evaluation_parser, move_overrides_, number
from engine.evaluate.output import COMPARISON, EVALUATION, output_folder
from errors import InputError, Interruption
from tests.engine.small import small_mtdo

REPORT = {"protocol": "standard", "machine": {}, "clips": {}}


def held(folder: Path, *inputs: Path, kind: str = EVALUATION):
    return output_folder(folder, kind, ("report.json", "report.md"), ("frames",), inputs)


def clips(root: Path, *names: str) -> Path:
    frames = np.random.default_rng(0).integers(0, 256, (3, 24, 32, 3), dtype=np.uint8)
    for name in names:
        for index, frame in enumerate(frames):
            write_image(root / name / f"{index:04d}.png", frame)
    return root


def evaluation(tmp_path: Path, root: Path, out: Path, *words: str):
    weight = tmp_path / "small.safetensors"
    if not weight.exists():
        save_weights(weight, small_mtdo())
    given = [f"--weight={weight}", f"--datapath={root}", f"--outputpath={out}", "--device=cpu", *words]
    arguments = evaluation_parser("Test.", "", "runs/eval")
    add_arguments(arguments)
    return cli.parse(arguments, given)


def test_ground_truth_in_frames_is_not_overwritten(tmp_path: Path) -> None:
    root = clips(tmp_path / "data" / "frames", "a")
    before = read_image(root / "a" / "0000.png")
    options = evaluation(tmp_path, root, tmp_path / "data", "--save-frames")
    with pytest.raises(InputError, match=r"frames' is the input itself: .*--outputpath"):
        scripts.evaluate_and_report(options, space_time=False)
    assert np.array_equal(read_image(root / "a" / "0000.png"), before)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["frames"]


@pytest.mark.parametrize("name", ["frames/mine.png", "report.md", "report.json"])
def test_files_of_the_user_are_not_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="was not made by this program"), held(tmp_path):
        pass
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("kind", [EVALUATION, COMPARISON])
def test_results_of_another_kind_are_not_replaced(tmp_path: Path, kind: str) -> None:
    other = {**REPORT, "methods": {}} if kind == EVALUATION else REPORT
    (tmp_path / "report.json").write_text(json.dumps(other))
    with pytest.raises(InputError, match=f"which {kind} would replace"), held(tmp_path, kind=kind):
        pass
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    (tmp_path / "config.yaml").touch()
    with pytest.raises(InputError, match="a training run"), held(tmp_path, kind=kind):
        pass


def test_unfinished_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / "frames" / "a").mkdir(parents=True)
    left = [tmp_path / "frames" / "a" / ".0001.0123456789abcdef.tmp.png", tmp_path / ".report.0123456789abcdef.tmp.md"]
    for path in (*left, tmp_path / "frames" / MARKER, tmp_path / "frames" / "a" / "0000.png"):
        path.touch()
    with held(tmp_path):
        pass
    assert not any(path.exists() for path in left) and (tmp_path / "frames" / "a" / "0000.png").exists()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(InputError, match="is being written by"), held(tmp_path):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_with_one_line_and_leave_nothing(
    tmp_path: Path, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)

    def main() -> None:
        with held(tmp_path / "new" / "eval"):
            os.kill(os.getpid(), number)

    try:
        assert cli.exit_code(main) == 128 + number
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == f"interrupted: '{tmp_path}/new/eval' has no complete results: run it again\n"
    assert not (tmp_path / "new").exists()


def test_reports_are_renamed_together(tmp_path: Path) -> None:
    """A report that cannot be rendered or written leaves all files of the earlier one."""
    texts = {tmp_path / "a.json": "\udcff", tmp_path / "b.md": "B"}
    write_texts(texts)
    assert (tmp_path / "a.json").read_text() == "\\udcff"
    (tmp_path / "c").mkdir()
    with pytest.raises(InputError):
        write_texts({tmp_path / "a.json": "new", tmp_path / "c": "a folder has this name"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.md", "c"]


def test_folders_that_are_not_written_are_not_refused(tmp_path: Path) -> None:
    """Ground truth may be in OUTPUTPATH/frames as long as no frames are saved."""
    root = clips(tmp_path / "frames", "a")
    options = evaluation(tmp_path, root, tmp_path, "--frames=1", "eval.pictures=0")
    assert scripts.evaluate_and_report(options, space_time=False)["data"]["clips"] == 1
    assert sorted(path.name for path in root.iterdir()) == ["a"] and not (tmp_path / "pictures").exists()


def test_a_clip_never_has_frames_of_two_networks(tmp_path: Path) -> None:
    """Frames of an earlier evaluation are removed, also those beyond --frames; other clips keep theirs."""
    root, out = clips(tmp_path / "data", "a", "b"), tmp_path / "out"
    options = evaluation(tmp_path, root, out, "--save-frames")
    scripts.evaluate_and_report(options, space_time=False)
    options = evaluation(tmp_path, root, out, "--save-frames", "--frames=2", "data.val.clips=[a]")
    scripts.evaluate_and_report(options, space_time=False)
    saved = {name: sorted(path.name for path in (out / "frames" / name).iterdir()) for name in "ab"}
    assert saved == {"a": ["0000.png", "0001.png"], "b": ["0000.png", "0001.png", "0002.png"]}


def test_a_comparison_obeys_outputpath(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = clips(tmp_path / "data", "a")
    monkeypatch.chdir(tmp_path)
    given = ["--results", f"same={root}", "--datapath", str(root), "--scale=2", "--metrics", "psnr_y", "--figures=0"]
    arguments = evaluation_parser("Test.", "", "runs/eval")
    add_arguments(arguments)
    for words, out in (([], "runs/compare"), (["--outputpath=runs/eval"], "runs/eval")):
        comparison.compare(cli.parse(arguments, [*given, *words]))
        assert (tmp_path / out / "report.json").is_file()


def test_pictures_of_different_clips_and_methods_have_different_names(tmp_path: Path) -> None:
    assert len({name.lower() for name in comparison.safe_names(["a b", "a_b", "A_B", "gt"]).values()}) == 4
    root = clips(tmp_path / "data", "x", "x_y")
    for path in (root / "x").iterdir():
        path.rename(path.with_name(f"y_{path.name}"))
    options = evaluation(tmp_path, root, tmp_path / "out")
    report = scripts.evaluate_and_report(options, space_time=False)
    assert len({entry["ours"] for entry in report["pictures"]}) == len(report["pictures"]) == 2


def test_overrides_may_follow_options_with_several_values() -> None:
    arguments = cli.parser("Test.", "")
    for name in ("--scales", "--times"):
        arguments.add_argument(name, type=number, nargs="+", default=[2.0])
    options = cli.parse(arguments, ["--times", "2", "0.25", "2", "eval.frames=3", "--scales", "4", "device=cpu"])
    move_overrides_(options, "scales", "times")
    assert (options.times, options.scales) == ([2.0, 0.25], [4.0])
    assert sorted(options.overrides) == ["device=cpu", "eval.frames=3"]
    options = cli.parse(arguments, ["--times", "device=cpu"])
    with pytest.raises(InputError, match="--times: expected numbers"):
        move_overrides_(options, "scales", "times")


def test_interruption_keeps_its_code() -> None:
    stop = Interruption("two\nlines", 143)
    assert (str(stop), stop.code, Interruption("").code) == ("two lines", 143, 130)


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_stretched_ground_truth_with_missing_values(tmp_path: Path, dtype: str) -> None:
    """Values beyond the percentiles are clamped for the metrics; saved frames keep units and missing values."""
    rasterio = pytest.importorskip("rasterio")
    rng, holes = np.random.default_rng(0), (slice(3, 9), slice(4, 12))
    (tmp_path / "data").mkdir()
    base = np.linspace(100, 2000, 24 * 32).reshape(24, 32) * np.ones((3, 1, 1))
    options = {
        "driver": "GTiff",
        "count": 3,
        "height": 24,
        "width": 32,
        "dtype": dtype,
        "nodata": 0,
        "crs": "EPSG:32633",
    }
    for index in range(3):
        frame = (base + rng.normal(0, 20, (3, 24, 32))).astype(dtype)
        frame[(slice(None), *holes)] = 0
        transform = rasterio.transform.from_origin(0, 0, 10, 10)
        with rasterio.open(tmp_path / "data" / f"{index}.tif", "w", transform=transform, **options) as file:
            file.write(frame)
    out = tmp_path / "out"
    words = ("--save-frames", "data.val.bands={percentiles: [2, 98]}")
    report = scripts.evaluate_and_report(evaluation(tmp_path, tmp_path / "data", out, *words), space_time=False)
    assert report["mean"]["psnr_y"] > 15 and "(1 of 1 clips)" in report["settings"]["missing values"]
    with rasterio.open(out / "frames" / "data" / "1.tif") as saved:
        values = saved.read()
    assert values.dtype == dtype and not values[(slice(None), *holes)].any()
    assert abs(values[:, 10:].mean() - base[:, 10:].mean()) < 100


def test_ground_truth_without_measured_values_is_refused(tmp_path: Path) -> None:
    """Filled with zeros, it would count as a frame that every method restores."""
    tifffile = pytest.importorskip("tifffile")
    (tmp_path / "data").mkdir()
    frame = np.random.default_rng(0).random((24, 32)).astype(np.float32)
    for index, values in enumerate((frame, np.full_like(frame, np.nan), frame)):
        tifffile.imwrite(tmp_path / "data" / f"{index}.tif", values)
    with pytest.raises(InputError, match=r"1\.tif: has no measured value"):
        scripts.evaluate_and_report(evaluation(tmp_path, tmp_path / "data", tmp_path / "out"), space_time=False)


def test_values_beyond_the_range_are_named_with_the_remedy(tmp_path: Path) -> None:
    for index in range(3):
        write_image(tmp_path / "data" / f"{index}.tif", np.full((24, 32, 3), 1.5, np.float32))
    with pytest.raises(InputError, match=r"0\.tif.*: its values run from 1\.5 to 1\.5.*set a stretch"):
        scripts.evaluate_and_report(evaluation(tmp_path, tmp_path / "data", tmp_path / "out"), space_time=False)
