"""The log of a run: resumed, damaged and unwritable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.train.logger import Logger


def test_foreign_lines_are_removed_from_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.jsonl"
    good = [json.dumps({"step": step}).encode() for step in (1, 2, 3)]
    log.write_bytes(b"\n".join([good[0], b"\xff", b"[1]", b'{"step": "x"}', good[1], good[2], b'{"st']))
    Logger(tmp_path, start=2, total=5).close()
    assert log.read_bytes() == good[0] + b"\n" + good[1] + b"\n"
    assert "3 lines do not belong to this log" in capsys.readouterr().out
    assert b"\xff" in (tmp_path / "log-damaged.jsonl").read_bytes()


def test_curves_of_a_resumed_run_have_each_step_once(tmp_path: Path) -> None:
    """The first run logged a step after its last state, which the resumed run takes again."""
    for start, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        logger = Logger(tmp_path, start=start, total=5)
        for step in steps:
            logger.scalars(step, {"loss": float(start)})
        logger.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [(1, 0.0), (2, 0.0), (3, 2.0), (4, 2.0)]
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3, 4]


def test_unwritable_log_does_not_stop_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = Logger(tmp_path, start=0, total=5)
    (tmp_path / "log.jsonl").mkdir()
    for step in (1, 2):
        logger.scalars(step, {"loss": 1.0})
    logger.close()
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count("cannot be written") == 1
