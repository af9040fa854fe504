"""Options and output common to the scripts."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

import cli
from engine.evaluate import scripts
from errors import InputError

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
def test_full_disk_does_not_end_output() -> None:
    stream = cli.LastingStream(FULL.open("w"))
    for _ in range(2):
        print("a" * 10_000, file=stream, flush=True)
    stream.close()


def test_closed_pipe_does_not_end_output() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = cli.LastingStream(os.fdopen(writer, "w"))
    for _ in range(2):
        print("a", file=stream, flush=True)
    stream.close()


@pytest.mark.parametrize("option", ["--weight", "--config", "--datapath", "--outputpath", "--list"])
def test_empty_values_do_not_mean_the_default(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As of `--weight $W` with a variable that is not set."""
    arguments: argparse.ArgumentParser = scripts.parser("", "", "out")
    with pytest.raises(SystemExit) as caught:
        cli.parse(arguments, [option, ""])
    assert caught.value.code == 2 and f"{option}: the name is empty" in capsys.readouterr().err


def test_errors_are_one_line_whatever_the_file_name(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise InputError("'new\nline\x1b[2J.mp4': no such file")

    assert cli.exit_code(main) == 2
    assert capsys.readouterr().err == "error: 'new line\\x1b[2J.mp4': no such file\n"
