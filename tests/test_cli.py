"""Options and output common to the scripts."""

from __future__ import annotations

import argparse
import importlib.machinery
import os
import sys
import types
from pathlib import Path

import pytest

import cli
from engine.evaluate.options import evaluation_parser
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
    arguments: argparse.ArgumentParser = evaluation_parser("", "", "out")
    with pytest.raises(SystemExit) as caught:
        cli.parse(arguments, [option, ""])
    assert caught.value.code == 2 and f"{option}: the name is empty" in capsys.readouterr().err


def test_errors_are_one_line_whatever_the_file_name(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise InputError("'new\nline\x1b[2J.mp4': no such file")

    assert cli.exit_code(main) == 2
    assert capsys.readouterr().err == "error: 'new line\\x1b[2J.mp4': no such file\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--protocl", "standard"], "unknown option '--protocl': did you mean '--protocol'?"),
        (["--proto", "standard"], "unknown option '--proto': did you mean '--protocol'?"),
        (["--xyz"], "unknown option '--xyz'"),
        (["--protocol", "mtdo"], "argument --protocol: invalid choice: 'mtdo'"),
        (["--weight", "mtdo_x"], "argument --weight: 'mtdo_x' is neither a file nor released weights: did you mean"),
    ],
)
def test_wrong_usage_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.parse(evaluation_parser("", "", "out"), words)
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        caught.value.code == 2 and line.startswith(f"error: {message}") and line.endswith("--help lists the options)")
    )


@pytest.mark.parametrize(
    ("module", "file", "command"),
    [
        ("engine.distill", "/any/engine/distill.py", "python -m engine.distill"),
        ("data.doctor.__main__", "/any/data/doctor/__main__.py", "python -m data.doctor"),
        (None, "eval.py", "python eval.py"),
        (None, "{here}/benchmarks/tiles.py", f"python {Path('benchmarks/tiles.py')}"),
        (None, "../clone/eval.py", f"python {Path('../clone/eval.py')}"),
    ],
)
def test_messages_name_the_command_that_was_typed(
    module: str | None, file: str, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = types.ModuleType("__main__")
    started.__spec__ = importlib.machinery.ModuleSpec(module, None) if module else None
    monkeypatch.setitem(sys.modules, "__main__", started)
    monkeypatch.setattr(sys, "argv", [file.format(here=Path.cwd())])
    with pytest.raises(SystemExit):
        cli.Parser().parse_args(["--x"])
    assert f"({command} --help lists" in capsys.readouterr().err


def test_scripts_that_only_print_have_no_options_for_files() -> None:
    flags = {flag for action in evaluation_parser("", "", None)._actions for flag in action.option_strings}
    assert "--weight" in flags and not {"--outputpath", "--save-frames"} & flags
    assert cli.parse(evaluation_parser("", "", None), []).save_frames is False


def test_weights_by_released_name_or_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    released = Path(cli.__file__).parent / "checkpoints" / "stno_s.safetensors"
    assert cli.weights("stno_s") == released
    assert cli.weights("./stno_s") == Path("stno_s") and cli.weights("a.pth") == Path("a.pth")
    Path("stno_s").touch()
    assert cli.weights("stno_s") == Path("stno_s")
