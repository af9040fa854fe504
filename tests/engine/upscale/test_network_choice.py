"""The released weights that are chosen for a request, and scales without weights of their own."""

from __future__ import annotations

import numpy as np
import pytest

from data import files
from data.clips import FolderClip
from data.degrade import imresize
from data.media import read_image, to_uint8
from engine.checkpoint import save_weights
from engine.restore import restore
from engine.upscale.networks import open_network
from engine.upscale.request import Request
from engine.upscale.run import upscale
from errors import InputError
from tests.engine.small import small_mtdo, small_stno
from tests.engine.upscale.sources import folder, request


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({}, "mtdo_s"),
        ({"scale": 4.0}, "mtdo_s"),
        ({"scale": 2.0}, "mtdo_s_x2"),
        ({"scale": 3.0}, "mtdo_s_x3"),
        ({"scale": 2.5}, "mtdo_s_x3"),
        ({"scale": 3.5}, "mtdo_s"),
        ({"scale": 1.5}, "mtdo_s_x2"),
        ({"scale": 6.0}, "mtdo_s"),
        ({"scale": 3.0, "fps": "x2"}, "stno_s"),
        ({"size": "80x"}, "mtdo_s_x2"),
        ({"size": "90x40"}, "mtdo_s_x3"),
        ({"size": "200x40"}, "mtdo_s"),
        ({"fps": "x2"}, "stno_s"),
        ({"scale": 2.0, "times": (0.5,)}, "stno_s"),
        ({"lossy": True}, "mtdo_s_real"),
        ({"lossy": True, "scale": 3.0}, "mtdo_s_real"),
        ({"lossy": True, "scale": 2.0}, "mtdo_s_x2"),
        ({"lossy": True, "fps": "x2"}, "stno_s"),
    ],
)
def test_released_weights_are_chosen_by_scale(tmp_path, monkeypatch, asked, name):
    asked = dict(asked)
    (tmp_path / "checkpoints").mkdir()
    for file, own in (("mtdo_s", 4), ("mtdo_s_x2", 2), ("mtdo_s_x3", 3), ("mtdo_s_real", 4), ("stno_s", None)):
        network = small_mtdo(scale=own) if own else small_stno()
        save_weights(tmp_path / "checkpoints" / f"{file}.safetensors", network)
    monkeypatch.setattr(files, "REPOSITORY", tmp_path)
    lossy = asked.pop("lossy", False)
    request = Request(tmp_path / "in", tmp_path / "out", **asked)
    assert open_network(request, (20, 40), lossy=lossy)[1].stem == name


@pytest.mark.parametrize(("scale", "weights_of"), [(2.5, "x3"), (1.5, "x2"), (6.0, "x4")])
def test_other_scales_are_resized_with_a_message(tmp_path, monkeypatch, capsys, scale, weights_of):
    (tmp_path / "checkpoints").mkdir()
    for file, own in (("mtdo_s", 4), ("mtdo_s_x2", 2), ("mtdo_s_x3", 3)):
        save_weights(tmp_path / "checkpoints" / f"{file}.safetensors", small_mtdo(scale=own))
    monkeypatch.setattr(files, "REPOSITORY", tmp_path)
    source, out = folder(tmp_path / "in", frames=1), tmp_path / "out"
    upscale(Request(source, out, scale=scale, quality="clean", precision="fp32"))
    network = small_mtdo(scale=int(weights_of[1:]))
    made = next(restore(network, FolderClip(source), frames=[0]))
    expected = to_uint8(imresize(made, size=(round(16 * scale), round(24 * scale))))
    np.testing.assert_allclose(read_image(next(out.iterdir())).astype(int), expected, atol=1)
    assert f"no weights for x{scale:g}: frames are restored at {weights_of}" in "".join(capsys.readouterr())


def test_scale_zero_is_refused(weights, tmp_path):
    source, out = folder(tmp_path / "in", frames=2), tmp_path / "out"
    for network in ("mtdo", "stno"):
        with pytest.raises(InputError, match="is too small"):
            upscale(request(source, out, weights[network], scale=0.0))
