"""Export to ONNX, where its optional packages are installed."""

from __future__ import annotations

import importlib.util

import pytest

import engine.export
from engine.export import PACKAGES, TOLERANCE, export
from errors import InputError
from models.mtdo.config import HATConfig
from tests.engine.small import small_mtdo, small_stno

installed = all(importlib.util.find_spec(name) for name in PACKAGES)
HAT = HATConfig(embed=12, depths=[2], heads=2, window=8, squeeze=4)


@pytest.mark.skipif(not installed, reason="needs onnx, onnxscript and onnxruntime")
@pytest.mark.parametrize(
    ("network", "size"),
    [
        (small_mtdo(), (16, 24)),
        (small_mtdo(reconstruction="hat", hat=HAT, residual="none"), (16, 24)),
        (small_stno(), (16, 16)),
    ],
    ids=["residual", "hat", "stno"],
)
def test_onnxruntime_gives_the_same(network, size, tmp_path):
    out = tmp_path / "model.onnx"
    assert export(network, out, size, scale=2.5) <= TOLERANCE
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_sizes_that_do_not_fit(tmp_path):
    if installed:
        with pytest.raises(InputError, match="multiples of 8"):
            export(small_stno(), tmp_path / "model.onnx", (12, 16))


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(engine.export, "PACKAGES", ("no_such_package",))
    with pytest.raises(InputError, match="pip install no_such_package"):
        export(small_stno(), tmp_path / "model.onnx", (16, 16))
