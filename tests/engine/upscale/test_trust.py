"""Maps of doubt: the spread of the eight versions in the units of the source, written next to the output."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from data.clips import ArrayClip
from data.media import read_image, write_image
from engine.checkpoint import save_weights
from engine.upscale.request import Request
from engine.upscale.run import upscale
from engine.upscale.trust import TransformedClip, trust_folder
from errors import InputError
from tests.engine.small import moving_clip, small_mtdo


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    network = small_mtdo()
    torch.nn.init.normal_(network.reconstruction.conv_last.weight, std=0.05)
    save_weights(tmp_path / "w.safetensors", network)
    clip = moving_clip(3, 16, 24)
    for index in range(3):
        write_image(tmp_path / "in" / f"{index:04d}.png", clip.array(index))
    return Request(
        source=tmp_path / "in", out=tmp_path / "out", weight=tmp_path / "w.safetensors", precision="fp32", device="cpu",
        trust=True,
    )  # fmt: skip


def test_doubt_is_the_standard_deviation_of_the_eight_versions(request_: Request) -> None:
    from engine.checkpoint import load_network

    written = upscale(request_)
    folder = trust_folder(request_.out)
    assert folder in written
    network = load_network(request_.weight)
    frames = torch.stack([torch.from_numpy(read_image(p).copy()) for p in sorted(request_.source.iterdir())])
    window = frames.permute(0, 3, 1, 2).float() / 255  # the window of the middle frame: all three frames
    versions = []
    for orientation in range(8):
        x = torch.rot90(window.flip(-1) if orientation >= 4 else window, orientation % 4, (-2, -1))
        with torch.no_grad():
            y = torch.rot90(network(x[None])[0], -(orientation % 4), (-2, -1))
        versions.append(y.flip(-1) if orientation >= 4 else y)
    expected = 255 * torch.stack(versions).std(0, unbiased=False).mean(0)
    found = tifffile.imread(folder / "0001_doubt.tif").squeeze()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-3)
    assert expected.max() > 0.1
    shown = read_image(folder / "0001_doubt.png")[..., 0]
    np.testing.assert_allclose(shown, np.minimum(found * 16, 255), atol=0.51)
    with (folder / "trust.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == ["0000", "0001", "0002"]
    assert float(rows[1]["doubt"]) == pytest.approx(expected.mean().item(), abs=1e-3)
    assert {"consistency", "bias_1", "bias_3", "doubt_p99"} <= rows[0].keys()
    assert "Middle frame" in (folder / "trust.html").read_text()


def test_existing_trust_folder_is_not_overwritten(request_: Request) -> None:
    folder = trust_folder(request_.out)
    folder.mkdir()
    (folder / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="out_trust' exists"):
        upscale(request_)
    assert not request_.out.exists() and (folder / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize("orientation", range(8))
def test_frames_and_arrays_of_a_transformed_clip_agree(orientation: int) -> None:
    array = np.random.default_rng(orientation).integers(0, 256, (1, 4, 6, 3), np.uint8)
    clip = TransformedClip(ArrayClip("clip", array), orientation)
    assert clip.size == ((6, 4) if orientation % 2 else (4, 6)) == clip.array(0).shape[:2]
    np.testing.assert_allclose(clip.frame(0).permute(1, 2, 0).numpy() * 255, clip.array(0), atol=1e-4)
