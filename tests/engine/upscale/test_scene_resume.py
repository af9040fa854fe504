"""Interrupted scenes: a resumed run writes the bytes of an uninterrupted one."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import threading

import numpy as np
import pytest

from data.files import sha256, temporary_path
from engine.upscale import scene as scene_module
from engine.upscale.request import Request
from engine.upscale.run import upscale
from errors import InputError
from tests.engine.upscale.geotiff import make, picture, write
from tests.processes import Forked

rasterio = pytest.importorskip("rasterio")


def test_resumed_scene_equals_an_uninterrupted_one(tmp_path, scene_weight, monkeypatch):
    source = write(tmp_path / "in.tif", (picture(4, 150, 70) * 3000 + 9).astype(np.uint16), nodata=0, alpha="NO")
    expected = make(source, scene_weight, "expected.tif", tile=64)
    make_piece, made = scene_module.SceneJob.make_piece, []

    def failing(job, number, *rest):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(number)
        make_piece(job, number, *rest)

    monkeypatch.setattr(scene_module.SceneJob, "make_piece", failing)
    with pytest.raises(KeyboardInterrupt):
        make(source, scene_weight, tile=64)
    pieces = tmp_path / ".out.tif.upscaling" / "pieces"
    temporary_path(pieces / "000003.zst").write_bytes(b"half")
    (pieces / "000001.zst").write_bytes((pieces / "000001.zst").read_bytes()[:-9])  # damaged: must be restored again
    monkeypatch.setattr(
        scene_module.SceneJob, "make_piece", lambda job, n, *rest: (made.append(n), make_piece(job, n, *rest))
    )
    out = make(source, scene_weight, tile=64, resume=True)
    assert (
        out.read_bytes() == expected.read_bytes()
        and made[:3] == [0, 1, 2]
        and made[3] == 1
        and len(made) == len(set(made)) + 1
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected.tif", "in.tif", "out.tif"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX has limits of file sizes")
@pytest.mark.parametrize("layout", ["plain", "mask", "overviews", "COG"])
@pytest.mark.parametrize("missing", [20, 0.05])
def test_disk_that_is_full_at_the_end_of_the_file(tmp_path, scene_weight, monkeypatch, layout, missing):
    """GDAL reports no error when the last bytes of a file cannot be written. missing: bytes, or their share of the file."""
    import resource

    data = np.random.default_rng(0).integers(0, 255, (1, 140, 150)).astype(np.uint8)
    blocks = (
        {"driver": "COG", "blocksize": 128} if layout == "COG" else {"tiled": True, "blockxsize": 64, "blockysize": 64}
    )
    source = write(tmp_path / "in.tif", data, mask=data[0] > 50 if layout == "mask" else None, **blocks)
    if layout == "overviews":
        with rasterio.open(source, "r+") as file:
            file.build_overviews([2], rasterio.enums.Resampling.average)
    expected = make(source, scene_weight, "expected.tif")
    size = expected.stat().st_size
    finish, limits = scene_module.SceneJob._finish_result, resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_a_full_disk(job):
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (size - (missing if missing >= 1 else int(missing * size)), limits[1])
        )
        try:
            finish(job)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with monkeypatch.context() as patch, pytest.raises(InputError, match=r"(?s)result\.tif: cannot be .*--resume"):
            patch.setattr(scene_module.SceneJob, "_finish_result", on_a_full_disk)
            make(source, scene_weight)
    finally:
        signal.signal(signal.SIGXFSZ, before)
    assert not (tmp_path / "out.tif").exists()
    assert sha256(make(source, scene_weight, resume=True)) == sha256(expected)


def killed_after_a_piece(request: Request, delay: float) -> None:
    """Upscale a scene; the process is killed `delay` seconds after its first piece is complete, or after six pieces."""
    make_piece, made = scene_module.SceneJob.make_piece, itertools.count(1)

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def make_and_count(job, *rest):
        make_piece(job, *rest)
        number = next(made)
        if number == 1:
            threading.Timer(delay, kill).start()
        elif number == 6:  # a fast machine would finish the file
            kill()

    scene_module.SceneJob.make_piece = make_and_count
    upscale(request)


@pytest.mark.slow
def test_ten_kills_do_not_change_the_result(tmp_path, scene_weight):
    """Each of 10 processes completes at least one of 72 pieces and is killed; the 11th finishes the file."""
    source = write(tmp_path / "in.tif", (picture(9, 800, 64) * 3000 + 9).astype(np.uint16), nodata=0)
    expected, out, rng = make(source, scene_weight, "expected.tif", tile=64), tmp_path / "out.tif", random.Random(0)
    request = Request(source, out, scene_weight, precision="fp32", tile=64, resume=True)
    pieces = tmp_path / ".out.tif.upscaling" / "pieces"
    for _ in range(10):
        before = set(pieces.glob("[0-9]*.zst"))
        result = Forked(killed_after_a_piece, request, rng.random() * 0.03).result()
        assert result.returncode == -signal.SIGKILL and not out.exists(), result.stderr
        assert set(pieces.glob("[0-9]*.zst")) > before
    upscale(request)
    assert sha256(out) == sha256(expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected.tif", "in.tif", "out.tif"]
