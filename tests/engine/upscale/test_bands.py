"""11-bit, multi-band and georeferenced data in upscaling and evaluation: units, corners and pixel sizes are correct."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from data.bands import Bands, hint
from data.clips import FolderClip, TiffStackClip
from data.geo_tags import PIXEL_SCALE, TIEPOINT
from data.media import write_image
from engine.config import config_from_mapping
from engine.evaluate.measure import evaluate
from engine.sources import open_source
from engine.upscale.request import Request
from engine.upscale.run import upscale
from errors import InputError
from settings import to_mapping
from tests.engine.conftest import tiny_mapping
from tests.engine.small import moving_clip, small_mtdo

SHAPE = (3, 16, 24)


def scene() -> np.ndarray:
    """(3, 16, 24, 4) uint16 with 11 bits: four bands with different offsets."""
    grey = np.stack([moving_clip(3, *SHAPE[1:]).array(index)[..., :1] for index in range(3)]).astype(np.uint16)
    return np.concatenate([grey * 6 + offset for offset in (100, 200, 300, 400)], axis=-1)


def tags(index: int) -> list[tuple]:
    """Georeference with pixels of 2 m and a different corner for every frame."""
    return [(PIXEL_SCALE, "d", 3, (2.0, 2.0, 0.0), True), (TIEPOINT, "d", 6, (0, 0, 0, 100.0 + index, 200, 0), True)]


@pytest.fixture()
def stack(tmp_path: Path) -> Path:
    with tifffile.TiffWriter(tmp_path / "in.tif") as writer:
        for index, page in enumerate(scene()):
            writer.write(page, photometric="minisblack", planarconfig="contig", metadata=None, extratags=tags(index))
    return tmp_path / "in.tif"


@pytest.mark.parametrize("out", ["out.tif", "out"])
@pytest.mark.parametrize("choice", [{"bands": (4, 2, 1)}, {"bands": (3,)}])
def test_result_has_the_units_of_the_source(stack: Path, weight: Path, tmp_path: Path, out: str, choice: dict) -> None:
    upscale(Request(stack, tmp_path / out, weight, precision="fp32", limits=(0, 2047), **choice))
    clip = TiffStackClip(stack, bands=Bands(choice["bands"], limits=(0, 2047)))
    pages = sorted((tmp_path / out).iterdir()) if out == "out" else [tmp_path / out] * 3
    for index, path in enumerate(pages):
        with tifffile.TiffFile(path) as file, torch.no_grad():
            page = file.pages[0 if out == "out" else index]
            expected = small_mtdo()(clip.window(index, 3)[None])[0].permute(1, 2, 0).numpy() * 2047
            expected = expected if len(choice["bands"]) == 3 else expected.mean(-1)
            assert page.dtype == np.uint16 and np.abs(page.asarray() - expected).max() < 2
            assert page.tags[PIXEL_SCALE].value[:2] == (1.0, 1.0)
            assert page.tags[TIEPOINT].value[3:5] == (100.0 + index, 200.0)


def test_bands_of_a_video_or_missing_ones_are_refused(stack: Path, weight: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="band 9 was chosen"):
        upscale(Request(stack, tmp_path / "out.tif", weight, bands=(9,)))
    with pytest.raises(InputError, match="shows one or three: choose them"):
        upscale(Request(stack, tmp_path / "out.png", weight))
    (tmp_path / "a.mp4").touch()
    with pytest.raises(InputError, match="is a video"):
        upscale(Request(tmp_path / "a.mp4", tmp_path / "out.mp4", weight, limits=(0, 1)))


def test_dark_data_are_stretched_or_reported(
    stack: Path, weight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hint(scene()) == hint(scene()[0]) and "11-bit" in (hint(scene()) or "")
    assert hint(scene() * 20) is hint(scene().astype(np.uint8)) is None
    upscale(Request(stack, tmp_path / "out.tif", weight, precision="fp32", bands=(1,)))
    assert "are stretched for the network" in capsys.readouterr().out
    write_image(tmp_path / "in.png", scene()[0, ..., :1])
    upscale(Request(tmp_path / "in.png", tmp_path / "out.png", weight, precision="fp32"))
    assert "limits 0 and 2047" in capsys.readouterr().out


def test_evaluation_keeps_depth_units_and_georeference(stack: Path, tmp_path: Path) -> None:
    mapping = tiny_mapping(tmp_path)
    bands = {"choice": [1, 2, 3], "limits": [0, 2047]}
    mapping |= {"data": {"val": {"root": str(stack), "bands": bands}}, "eval": {"save_frames": True, "crop": 0}}
    mapping["network"] = to_mapping(small_mtdo().config)
    config = config_from_mapping(mapping)
    layout = open_source(config, "val")
    report = evaluate(small_mtdo(), layout, config, device=torch.device("cpu"), folder=tmp_path / "run", progress=False)
    saved = FolderClip(tmp_path / "run" / "frames" / "in", bands=Bands((1, 2, 3), limits=(0, 2047)))
    assert len(saved) == 3 and saved.geo(2).tags == layout[0].gt.geo(2).tags
    for index, row in enumerate(report["clips"]["in"]["frames"]):
        error = np.abs(saved.array(index) - layout[0].gt.array(index)).mean()
        assert 0 < error < 0.1 and row["psnr_y"] > 20
