"""States on disk: number kept, damaged states, full disk."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from engine.checkpoint import load_tensors, save_tensors
from engine.train import states
from engine.train.states import STATE, read_newest, save_state, states_in
from errors import InputError


def save(folder: Path, step: int, keep: int = 2) -> None:
    header = {"step": step, "scaler": {}, "config": {}}
    save_state(folder, {"network.a": torch.full((4,), float(step))}, header, keep, say=lambda text: None)


def steps(folder: Path) -> dict[str, int]:
    return {path.name: load_tensors(path)[1]["step"] for path in states_in(folder)}


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_last_states_are_kept(tmp_path: Path, keep: int) -> None:
    for step in (10, 20, 30, 40):
        save(tmp_path, step, keep)
    expected = {STATE: 40, "last-1.safetensors": 30, "last-2.safetensors": 20}
    assert steps(tmp_path) == dict(list(expected.items())[:keep])
    assert len(list(tmp_path.iterdir())) == keep


def test_damaged_state_is_reported_and_the_previous_one_used(tmp_path: Path) -> None:
    save(tmp_path, 10)
    save(tmp_path, 20)
    content = bytearray((tmp_path / STATE).read_bytes())
    content[-3] ^= 4
    (tmp_path / STATE).write_bytes(content)
    messages: list[str] = []
    path, tensors, header = read_newest(tmp_path, messages.append)
    assert path.name == "last-1.safetensors" and header["step"] == 10 and tensors["network.a"][0] == 10
    assert (
        len(messages) == 1
        and "is damaged" in messages[0]
        and "continuing from" in messages[0]
        and "step 10" in messages[0]
    )
    for damaged in states_in(tmp_path):
        damaged.write_bytes(b"")
    with pytest.raises(InputError, match=r"no state in .* can be read"):
        read_newest(tmp_path)


def test_kill_between_renames_loses_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop after each rename in turn: the newest state must be that of step 30 or of step 20."""
    original = Path.replace
    for stop in range(8):
        folder = tmp_path / str(stop)
        for step in (10, 20):
            save(folder, step, 3)
        done = 0

        def replace(self: Path, target: Path, stop: int = stop) -> Path:
            nonlocal done
            done += 1
            if done > stop:
                raise KeyboardInterrupt
            return original(self, target)

        monkeypatch.setattr(Path, "replace", replace)
        with suppress(KeyboardInterrupt):
            save(folder, 30, 3)
        monkeypatch.setattr(Path, "replace", original)
        assert read_newest(folder)[2]["step"] in (20, 30)
        assert (folder / STATE).is_file()
        save(folder, 40, 3)
        assert read_newest(folder)[2]["step"] == 40


@pytest.mark.parametrize(
    "entry", [{"step": True}, {"samples": -1}, {"best": "x"}, {"guard": {"loss": ["x"]}}, {"guard": []}, {"scaler": []}]
)
def test_header_with_other_types_is_damaged(tmp_path: Path, entry: dict[str, object]) -> None:
    save_tensors(tmp_path / STATE, {"network.a": torch.ones(1)}, {"step": 1, "scaler": {}, "config": {}, **entry})
    with pytest.raises(InputError, match=rf"its header is not valid \({next(iter(entry))}\)"):
        read_newest(tmp_path)


def test_oldest_states_are_removed_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step, 3)
    original = states.save_tensors

    def full(path: Path, tensors: object, header: object) -> None:
        if len(states_in(tmp_path)) > room:
            raise InputError("the disk is full") from OSError(errno.ENOSPC, "No space left on device")
        original(path, tensors, header)  # type: ignore[arg-type]

    monkeypatch.setattr(states, "save_tensors", full)
    room = 1
    save(tmp_path, 40, 3)
    assert steps(tmp_path) == {STATE: 40, "last-1.safetensors": 30}
    room = 0
    with pytest.raises(InputError, match="full"):
        save(tmp_path, 50, 3)
    assert steps(tmp_path)[STATE] == 40
