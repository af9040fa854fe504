"""Frames of the source by a window network when a space-time network makes new frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data import files
from data.clips import FolderClip
from data.media import read_image, to_uint8, write_image
from engine.checkpoint import load_network, save_weights
from engine.restore import restore
from engine.upscale.networks import open_network
from engine.upscale.request import Request
from engine.upscale.run import upscale
from tests.engine.restore.test_key_networks import saved
from tests.engine.small import moving_clip, small_mtdo, small_stno


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    clip = moving_clip(5, 24, 32)
    for index in range(len(clip)):
        write_image(tmp_path / "in" / f"{index:04d}.png", clip.array(index))
    weight = saved(tmp_path, ["window.safetensors"])
    return Request(tmp_path / "in", tmp_path / "out", weight, fps="x2", precision="fp32", device="cpu")


def test_upscaling_with_new_frames(request_: Request, capsys: pytest.CaptureFixture[str]) -> None:
    upscale(request_)
    assert (
        "frames of the source are restored with 'window.safetensors', new frames with 'space_time.safetensors'"
        in "".join(capsys.readouterr())
    )
    expected = restore(load_network(str(request_.weight)), FolderClip(request_.source))
    for path, frame in zip(sorted(request_.out.glob("*.png")), expected, strict=True):
        np.testing.assert_allclose(read_image(path).astype(int), to_uint8(frame), atol=1)
    upscale(replace(request_, out=request_.out.with_name("alone"), key_weights=()))
    assert "frames of the source" not in "".join(capsys.readouterr())
    middle = [read_image(request_.out.with_name(name) / "00000004.png").astype(int) for name in ("out", "alone")]
    assert np.abs(middle[0] - middle[1]).max() > 2


@pytest.mark.parametrize(("scale", "preview"), [(4, None), (3, None), (3, 0)])
def test_one_picture(request_: Request, scale: int, preview: int | None) -> None:
    """Restored by the window network of its scale, or by the space-time network, also where the precision is measured."""
    source, out = request_.source / "0000.png", request_.out.with_name("one.png")
    upscale(replace(request_, source=source, out=out, fps=None, scale=scale, preview=preview, precision="auto"))
    assert read_image(out).shape == (24 * scale, 32 * scale * (1 if preview is None else 2), 3)


@pytest.mark.parametrize(
    ("lossy", "chosen", "names"),
    [
        (False, None, ["mtdo_s.safetensors", "mtdo_s_x2.safetensors"]),
        (True, None, ["mtdo_s_real.safetensors", "mtdo_s_x2.safetensors"]),
        (True, ("mtdo_s.safetensors",), ["mtdo_s.safetensors"]),
        (True, (), []),
    ],
)
def test_lossy_sources_take_the_weights_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lossy: bool, chosen: tuple[str, ...] | None, names: list[str]
) -> None:
    for scale, name in ((4, "mtdo_s"), (4, "mtdo_s_real"), (2, "mtdo_s_x2")):
        save_weights(tmp_path / "checkpoints" / f"{name}.safetensors", small_mtdo(scale=scale))
    network = small_stno()
    network.set_restore_settings({"key_weights": ["mtdo_s.safetensors", "mtdo_s_x2.safetensors"]})
    save_weights(tmp_path / "checkpoints" / "stno_s.safetensors", network)
    monkeypatch.setattr(files, "REPOSITORY", tmp_path)
    request = Request(tmp_path / "in", tmp_path / "out", fps="x2", key_weights=chosen)
    opened = open_network(request, (24, 32), lossy=lossy)[0]
    assert list(opened.key_weights or ()) == names and len(opened.key_networks) == len(names)
