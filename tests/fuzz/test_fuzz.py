"""Random inputs: each one works or gives a one-line error. `pytest tests/fuzz --long` makes 10,000 tries per target."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from data.clips import VideoClip
from data.layouts.boxes import read_boxes
from data.layouts.lists import read_list
from data.media import read_image
from engine.checkpoint import load_network
from engine.config import load_config
from errors import InputError
from tests.fuzz.targets import TARGETS

LONG = 10_000


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_works_or_gives_a_one_line_error(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    target, tries = TARGETS[name]
    first = request.config.getoption("--fuzz-from", 0)
    tries = request.config.getoption("--tries", 0) or (LONG if request.config.getoption("--long", False) else tries)
    faults = []
    refused = 0
    for number in range(first, first + tries):
        folder = tmp_path / "try"
        folder.mkdir()
        try:
            with warnings.catch_warnings(action="ignore"):
                target(Random(f"{name} {number}"), folder)
        except InputError as error:
            refused += 1
            if "\n" in str(error):
                faults.append(f"{number}: more than one line: {error}")
        except SystemExit as error:  # argparse has printed its error
            refused += 1
            if error.code != 2:
                faults.append(f"{number}: exit code {error.code}")
        except Exception as error:
            faults.append(f"{number}: {type(error).__name__}: {str(error)[:200]}")
        shutil.rmtree(folder)
    print(f"\n{name}: {tries} tries, {refused} refused, {len(faults)} faults")
    assert not faults, f"{len(faults)} of {tries} tries:\n" + "\n".join(faults[:20])


@pytest.mark.parametrize(
    "name", ["a.png", "a.tif", "a.mp4", "a.yaml", "a.safetensors", "a.pth", "boxes.txt", "list.txt"]
)
def test_pipe_is_refused_without_waiting(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a pipe would wait forever for a writer."""
    monkeypatch.chdir(tmp_path)  # long paths are shortened in messages
    readers: dict[str, Callable[[Path], object]] = {
        "a.png": read_image,
        "a.tif": read_image,
        "a.mp4": VideoClip,
        "a.yaml": load_config,
        "a.safetensors": load_network,
        "a.pth": load_network,
        "boxes.txt": lambda path: read_boxes(path, ["1"], "car", []),
        "list.txt": read_list,
    }
    os.mkfifo(name)
    with pytest.raises(InputError, match=name):
        readers[name](Path(name))
