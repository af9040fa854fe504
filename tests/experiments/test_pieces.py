"""Training in limited pieces (experiments/piece.py) and the packed data set (experiments/pack.py)."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from data.layouts import open_layout
from data.media import read_image, write_image
from engine.checkpoint import load_tensors
from engine.train.loop import Trainer
from engine.train.stops import Signals
from errors import InputError
from experiments import pack, piece
from tests.engine.conftest import tiny_mapping


@pytest.fixture
def stopping(monkeypatch):
    """End every piece after two steps, as the time limit would."""
    update = Trainer.update

    @contextmanager
    def stopped_after(_seconds):
        done = []

        def counted(self, batch):
            done.append(self.step)
            if len(done) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return update(self, batch)

        monkeypatch.setattr(Trainer, "update", counted)
        yield
        monkeypatch.setattr(Trainer, "update", update)

    monkeypatch.setattr(piece, "stopped_after", stopped_after)


def run_pieces(monkeypatch, tmp_path: Path, name: str) -> int:
    """Train the tiny network in pieces, each in another folder; return the number of pieces.

    The time limit is a week: on a busy machine a run of seconds may take longer than a true one.
    """
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(tiny_mapping(tmp_path / name, steps=5)))
    out = tmp_path / f"{name}_out"
    for number in range(1, 10):
        runs = tmp_path / name / str(number)
        if out.is_dir():
            (runs / "tiny").mkdir(parents=True)
            for file in out.iterdir():
                (runs / "tiny" / file.name).write_bytes(file.read_bytes())
        arguments = ["piece.py", "--config", str(config), "--minutes", "1e4", "--out", str(out), f"runs={runs}"]
        monkeypatch.setattr(sys, "argv", arguments)
        piece.main()
        if (out / "weights.safetensors").is_file():
            return number
    raise AssertionError("the run does not end")


def test_pieces_equal_one_run_bit_for_bit(monkeypatch, tmp_path, request):
    assert run_pieces(monkeypatch, tmp_path, "one") == 1
    request.getfixturevalue("stopping")
    assert run_pieces(monkeypatch, tmp_path, "pieces") == 3
    for file in ("last.safetensors", "weights.safetensors"):
        (one, _), (many, _) = (load_tensors(tmp_path / f"{name}_out" / file) for name in ("one", "pieces"))
        assert one.keys() == many.keys() and all(torch.equal(one[key], many[key]) for key in one)
    steps = [line.split(",")[0] for line in (tmp_path / "pieces_out" / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_time_limit_ends_the_training_loop(monkeypatch):
    timers = []

    class Timer(threading.Timer):
        def start(self):
            timers.append(self)

    monkeypatch.setattr(threading, "Timer", Timer)
    signals = Signals()
    with piece.stopped_after(7), signals.watch():
        (timer,) = timers
        assert timer.interval == 7
        timer.function(*timer.args)
    assert signals.caught == [signal.SIGTERM]


def test_time_limit_before_training_is_a_one_line_error():
    with pytest.raises(InputError, match="raise --minutes"), piece.stopped_after(3600):
        os.kill(os.getpid(), signal.SIGTERM)


def test_folder_without_a_state_is_refused(monkeypatch, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(tiny_mapping(tmp_path)))
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "log.jsonl").touch()
    monkeypatch.setattr(sys, "argv", ["piece.py", "--config", str(config), "--minutes", "1"])
    with pytest.raises(InputError, match="contains no state to resume from"):
        piece.main()


def test_out_may_be_the_folder_of_the_run(monkeypatch, tmp_path):
    (tmp_path / "last.safetensors").write_bytes(b"state")
    monkeypatch.setattr(piece, "train", lambda options: (tmp_path, True))
    monkeypatch.setattr(sys, "argv", ["piece.py", "--config", "c", "--minutes", "1", "--out", str(tmp_path)])
    piece.main()
    assert (tmp_path / "last.safetensors").read_bytes() == b"state"


def test_missing_package_is_named_when_it_is_used():
    module = piece.Missing("av")
    with pytest.raises(InputError, match=r"av\.filter\.Graph is needed, but the package 'av' is not installed"):
        module.filter.Graph()


def photograph(path: Path, height: int, width: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    write_image(path, coarse.repeat(8, 0).repeat(8, 1))


def test_pack_takes_crops_round_robin_up_to_the_limit(tmp_path):
    for number in range(4):
        photograph(tmp_path / "many" / f"{number}.png", 320, 400, number)
    photograph(tmp_path / "few" / "0.png", 200, 240, 9)
    photograph(tmp_path / "few" / "small.png", 96, 240, 10)
    for name in ("a", "b"):
        for frame in range(5):
            photograph(tmp_path / "clips" / name / f"{frame:05d}.png", 200, 264, frame)
    stills, clips = [str(tmp_path / "many"), str(tmp_path / "few")], [str(tmp_path / "clips")]
    common = ["--stills", *stills, "--clips", *clips, "--side", "256", "--frames", "3", "--quality", "100"]
    pack.main([str(tmp_path / "pack"), *common])
    lines = [line.split("\t") for line in (tmp_path / "pack" / "pack.tsv").read_text().splitlines()[1:]]
    packed = open_layout(tmp_path / "pack" / "clips")
    assert len(packed.pairs) == 2 and all(len(pair.gt) == 3 for pair in packed)
    chosen = [line[1] for line in lines if line[0].startswith("stills/")]
    assert len(chosen) == 5 and "few" in {Path(source).parent.name for source in chosen[:3]}
    for name, source, box in lines:
        left, top, width, height = map(int, box.split(","))
        place, _, frame = source.partition(", frame ")
        original = read_image(Path(place) / f"{int(frame):05d}.png" if frame else place)
        crop = original[top : top + height, left : left + width]
        np.testing.assert_array_equal(read_image(tmp_path / "pack" / name), crop)
    pack.main([str(tmp_path / "small"), *common, "--megabytes", "0.02"])
    assert 0 < len(list((tmp_path / "small" / "stills").iterdir())) < 5
    with pytest.raises(InputError, match="is not empty"):
        pack.main([str(tmp_path / "pack"), *common])
