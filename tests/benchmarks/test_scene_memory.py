"""benchmarks/scene_memory.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rasterio")

from benchmarks import scene_memory
from engine.upscale import scene_tiles


def test_tiles_are_enlarged_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def restore(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(scene_tiles, "restore", restore)
    monkeypatch.setattr(scene_tiles, "enlarger", scene_tiles.enlarger)  # put back after the test
    mean = scene_memory.write_scene(tmp_path / "in.tif", 96, 64)
    scene_memory.repeat_pixels(str(tmp_path / "in.tif"), str(tmp_path / "out.tif"))
    assert scene_memory.read_back(tmp_path / "out.tif") == ("uint16 192x128", pytest.approx(mean))
