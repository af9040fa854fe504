"""upscale.py as a process: exit codes, one-line errors, SIGKILL and resume, two processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import upscale
from data.media import write_image
from engine.checkpoint import save_weights
from engine.upscale import outputs, plan
from engine.upscale.job import ClipJob
from engine.upscale.request import Request
from engine.upscale.run import upscale as run_upscale
from tests.engine.small import moving_clip, small_mtdo
from tests.processes import ROOT, Forked, Script, run_ranks, run_script


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    save_weights(folder / "weights.safetensors", small_mtdo())
    for name, frames in (("a", 60), ("b", 3)):
        clip = moving_clip(frames, 16, 24)
        for index in range(frames):
            write_image(folder / "clips" / name / f"{index:03d}.png", clip.array(index))
    return folder


def arguments(inputs: Path, source: Path, out: Path, *more: str) -> list[str]:
    return [str(source), str(out), "--weight", str(inputs / "weights.safetensors"), *more]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return Script("upscale.py", *words).result()


def start(words: list[str], **more) -> subprocess.CompletedProcess[str]:
    """Run upscale.py as users do."""
    command = [sys.executable, str(ROOT / "upscale.py"), *words]
    return subprocess.run(command, cwd=ROOT, text=True, timeout=900, **more)


def frames(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def test_bad_input_gives_one_line_and_exit_code_2(inputs, tmp_path):
    result = start(arguments(inputs, tmp_path / "missing.mp4", tmp_path / "out.mp4"), capture_output=True)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and "missing.mp4" in result.stderr


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--limits", "-100,3000"], "limits", (-100.0, 3000.0)),
        (["--limits", "-.5,-0.25"], "limits", (-0.5, -0.25)),
        (["--limits=-100,3000"], "limits", (-100.0, 3000.0)),
        (["--limits", "0,2047"], "limits", (0.0, 2047.0)),
        (["--percentiles", "1,99"], "percentiles", (1.0, 99.0)),
        (["--scale", "2.5"], "scale", 2.5),
        (["--times", "0.25,0.5"], "times", (0.25, 0.5)),
        (["--bands", "5,3,2"], "bands", (5, 3, 2)),
        (["--preview"], "preview", -1),
        (["--tile", "64"], "tile", 64),
        (["--spacing", "2"], "spacing", 2),
        (["--spacing", "auto"], "spacing", "auto"),
        (["--temporal-filter", "clean"], "temporal_filter", "clean"),
    ],
)
def test_parsing_of_options(words, name, value):
    assert upscale.parse(["in", "out", *words])[name] == value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scale", "0"], "--scale: '0': expected a number above 0"),
        (["--scale", "nan"], "--scale: 'nan': expected a number above 0"),
        (["--scale", "inf"], "--scale: 'inf': expected a number above 0"),
        (["--input-fps", "fast"], "--input-fps: 'fast': expected a number above 0"),
        (["--crf", "-1"], "--crf: '-1': expected an integer from 0 on"),
        (["--context", "few"], "--context: 'few': expected an integer from 0 on"),
        (["--limits", "7"], "--limits: '7': expected two numbers LOW,HIGH"),
        (["--limits", "-a,7"], "--limits: expected one argument"),
        (["--percentiles", "1,2,3"], "--percentiles: '1,2,3': expected two numbers LOW,HIGH"),
        (["--times", "0.5,half"], "--times: '0.5,half': expected ascending numbers between 0 and 1"),
        (["--bands", "red"], "--bands: 'red': expected one band or three"),
        (["--from", "1:xx"], "--from: '1:xx': expected a time from 0 on"),
        (["--bitrate", "fast"], "--bitrate: 'fast': expected bits per second"),
        (["-e", "preset"], "'preset': expected KEY=VALUE"),
        (["--preview", "-3"], "expected a frame number, or seconds such as 5s"),
        (["--input-fps", "0"], "--input-fps: '0': expected a number above 0"),
        (["--tile", "32"], "--tile: '32': expected an integer from 64 on"),
        (["--tile", "large"], "--tile: 'large': expected an integer"),
        (["--spacing", "0"], "--spacing: '0': expected an integer from 1, or auto"),
        (["--weight", ""], "--weight: the name is empty"),
        (["--spacing", "wide"], "--spacing: 'wide': expected an integer from 1, or auto"),
    ],
)
def test_wrong_options_name_the_expected_form(words, message, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["upscale.py"])
    with pytest.raises(SystemExit) as caught:
        upscale.parse(["in", "out", *words])
    error = capsys.readouterr().err
    assert caught.value.code == 2 and message in error and " _" not in error.splitlines()[-1]


def test_parsing_of_video_options():
    words = [
        "in",
        "out",
        "--from",
        "1:30",
        "--to",
        "0:02:00.5",
        "-e",
        "preset=slow",
        "-e",
        "tune=film",
        "--preview",
        "5s",
    ]
    options = upscale.parse([*words, "--bitrate", "5M", "--input-fps", "24000/1001", "--no-scenes", "--no-deinterlace"])
    assert (options["begin"], options["end"], options["preview_seconds"]) == (90.0, 120.5, 5.0)
    assert options["encoder_options"] == (("preset", "slow"), ("tune", "film")) and options["bitrate"] == 5_000_000
    assert options["scenes"] is options["deinterlace"] is False and abs(options["input_fps"] - 23.976) < 1e-3
    assert upscale.parse(["in", "out", "--preview"])["preview"] == -1
    for name, exact in (("23.976", 24000 / 1001), ("29.97", 30000 / 1001), ("59.94", 60000 / 1001), ("23.9", 23.9)):
        assert upscale.parse(["in", "out", "--input-fps", name])["input_fps"] == exact


def test_closed_output_does_not_end_the_work(inputs, tmp_path):
    """As in `upscale.py IN OUT 2>&1 | head -1`, or in a terminal that was closed under nohup."""
    reading, writing = os.pipe()
    os.close(reading)
    words = arguments(inputs, inputs / "clips" / "b", tmp_path / "out", "--precision", "fp32")
    result = start(words, stdout=writing, stderr=writing)
    os.close(writing)
    assert result.returncode == 0 and len(frames(tmp_path / "out")) == 3


def killed_at_frame(number: int, words: list[str]) -> None:
    """Run upscale.py; the process is killed when it is about to keep that frame of the first clip."""
    keep = ClipJob.keep

    def keep_or_die(job: ClipJob, index: int, frame: torch.Tensor) -> None:
        if index == number:
            os.kill(os.getpid(), signal.SIGKILL)
        keep(job, index, frame)

    ClipJob.keep = keep_or_die
    run_script("upscale.py", *words)


def test_two_ranks_and_a_resumed_run_equal_one_process(inputs, tmp_path):
    source, options = inputs / "clips", ("--precision", "fp32")
    full = run(arguments(inputs, source, tmp_path / "full", *options))
    assert full.returncode == 0, full.stderr
    assert len(frames(tmp_path / "full")) == 63
    for rank in run_ranks(2, "upscale.py", *arguments(inputs, source, tmp_path / "shared", *options)):
        assert rank.returncode == 0, rank.stderr
    assert frames(tmp_path / "shared") == frames(tmp_path / "full")

    words = arguments(inputs, source, tmp_path / "killed", *options)
    assert Forked(killed_at_frame, 12, words).result().returncode == -signal.SIGKILL
    assert run(words).returncode == 2  # the error names --resume
    assert run([*words, "--resume"]).returncode == 0
    assert frames(tmp_path / "killed") == frames(tmp_path / "full")


def show_threads(paths: list[Path], stop: bool) -> None:
    """Upscale frames and print the number of threads at each; stop: exit after two frames."""
    threads, restore, keep = [], outputs.restore, ClipJob.keep

    def keep_two(job: ClipJob, index: int, frame: torch.Tensor) -> None:
        keep(job, index, frame) if index < 2 else sys.exit("stopped")

    plan.frames_at_once = lambda *_: 1  # one worker, which has all threads
    outputs.restore = lambda *a, **k: (threads.append(torch.get_num_threads()) or frame for frame in restore(*a, **k))
    if stop:
        ClipJob.keep = keep_two
    try:
        run_upscale(Request(*paths, precision="fp32", resume=True))
    finally:
        print(threads)


def test_resumed_run_has_the_threads_of_a_fresh_one(inputs, tmp_path):
    """The writer uses one thread; in a resumed run it starts before the network, which must still get all threads."""
    paths = [inputs / "clips" / "b", tmp_path / "out", inputs / "weights.safetensors"]
    for stop, threads in ((True, "[2, 2, 2]"), (False, "[2]")):
        result = Forked(show_threads, paths, stop, threads=2).result()
        assert result.stdout.splitlines()[-1] == threads, result.stderr
    assert len(frames(tmp_path / "out")) == 3
