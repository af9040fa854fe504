"""Processes that are killed while they put results into place: a resumed run ends with the files of an uninterrupted one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.media import write_image
from engine.upscale.request import Request
from engine.upscale.run import upscale
from engine.upscale.trust import trust_folder
from engine.upscale.work_folder import work_folder
from errors import InputError
from tests.engine.small import moving_clip

CHANGES = ("replace", "rename", "link", "unlink", "rmdir", "mkdir")  # functions of os that change folders


class Killed(BaseException):
    pass


def kill_when(moment: Callable[[], bool], patch: pytest.MonkeyPatch) -> None:
    """From the moment on, no change of a folder takes place any more, not even the removal of temporary files."""
    dead = False

    def dying(change: Callable) -> Callable:
        def changed(*arguments, **more):
            nonlocal dead
            dead = dead or moment()
            if dead:
                raise Killed
            return change(*arguments, **more)

        return changed

    for name in CHANGES:
        patch.setattr(os, name, dying(getattr(os, name)))


def picture(folder: Path) -> Path:
    write_image(folder / "in.png", moving_clip(1, 16, 24).array(0))
    (folder / "in.pgw").write_text("10\n0\n0\n-10\n500005\n4999995\n")
    return folder / "in.png"


def frames(folder: Path) -> Path:
    for index in range(2):
        write_image(folder / "frames" / f"{index}.png", moving_clip(2, 16, 24).array(index))
    return folder / "frames"


def scene(folder: Path) -> Path:
    """A GeoTIFF whose bands have different nodata, which GDAL keeps in a sidecar."""
    pytest.importorskip("rasterio")
    from tests.engine.upscale import geotiff

    path = geotiff.write(folder / "in.tif", (geotiff.picture(2, 16, 24) * 90 + 5).astype(np.uint8))
    bands = "".join(f'<PAMRasterBand band="{k}"><NoDataValue>{k}</NoDataValue></PAMRasterBand>' for k in (1, 2))
    (folder / "in.tif.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    return path


def earlier(out: Path) -> None:
    for index in range(2):
        write_image(out / f"{index}.png", np.zeros((2, 2, 3), np.uint8))


CASES: dict[str, tuple[Callable[[Path], Path], str, dict]] = {
    "picture": (picture, "out.png", {}),
    "scene": (scene, "out.tif", {}),
    "comparison": (frames, "out.mp4", {"compare": True}),
    "stack": (frames, "out.tif", {}),
    "replaced folder": (frames, "out", {"overwrite": True}),
    "trust": (frames, "out", {"trust": True}),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


LATE = [(case, "result in place") for case in CASES if case != "trust"]
LATE += [("picture", "work folder renamed"), ("scene", "work folder renamed"), ("trust", "maps begun")]


@pytest.mark.parametrize(("case", "moment"), LATE)
def test_resumed_after_a_late_kill(tmp_path, weight, monkeypatch, case, moment):
    make_source, name, options = CASES[case]
    source = make_source(tmp_path)
    for place in ("full", "killed"):
        (tmp_path / place).mkdir()
        if case == "replaced folder":
            earlier(tmp_path / place / name)
    upscale(Request(source, tmp_path / "full" / name, weight, precision="fp32", **options))
    out = tmp_path / "killed" / name
    before = out.stat().st_ino if out.exists() else None
    moments: dict[str, Callable[[], bool]] = {
        "result in place": lambda: out.exists() and out.stat().st_ino != before,
        "work folder renamed": lambda: out.exists() and out.stat().st_ino != before and not work_folder(out).exists(),
        "maps begun": lambda: len(list(trust_folder(out).glob("*.tif"))) > 0,
    }
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_when(moments[moment], patch)
        upscale(Request(source, out, weight, precision="fp32", **options))
    upscale(Request(source, out, weight, precision="fp32", resume=True, **options))
    found = {path: content for path, content in contents(tmp_path / "killed").items() if not path.endswith(".lock")}
    assert found == contents(tmp_path / "full")


def test_file_of_another_program_is_not_taken_for_the_result(tmp_path, weight, monkeypatch):
    """A new file at the output of a killed run is not replaced."""
    source, out = picture(tmp_path), tmp_path / "out.png"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_when(out.exists, patch)
        upscale(Request(source, out, weight, precision="fp32"))
    out.unlink()
    out.write_bytes(b"of another program")
    with pytest.raises(InputError, match="exists"):
        upscale(Request(source, out, weight, precision="fp32", resume=True))
    assert out.read_bytes() == b"of another program"
