"""Upscaling that was interrupted: `--resume` produces the bytes of an uninterrupted run."""

from __future__ import annotations

import pytest

from data.files import make_own_folder, temporary_path
from engine.upscale import job as job_module
from engine.upscale.run import upscale
from errors import InputError
from tests.engine.upscale.sources import contents, make_video, request


@pytest.mark.parametrize(
    ("network", "out", "fps"), [("mtdo", "out.mp4", None), ("mtdo", "out", None), ("stno", "out", "x2")]
)
def test_resumed_run_equals_an_uninterrupted_one(weights, tmp_path, monkeypatch, network, out, fps):
    monkeypatch.setattr(job_module, "PIECE", 8)
    source = make_video(tmp_path / "in.mp4", frames=19)
    common = {"fps": fps, "scale": 2}
    upscale(request(source, tmp_path / "uninterrupted" / out, weights[network], **common))
    keep, kept = job_module.ClipJob.keep, []

    def failing_keep(self, index, frame):
        if len(kept) >= 11:
            raise KeyboardInterrupt
        kept.append(index)
        keep(self, index, frame)

    monkeypatch.setattr(job_module.ClipJob, "keep", failing_keep)
    broken = request(source, tmp_path / "broken" / out, weights[network], **common)
    with pytest.raises(KeyboardInterrupt):
        upscale(broken)
    monkeypatch.setattr(job_module.ClipJob, "keep", keep)
    with pytest.raises(InputError, match="--resume"):
        upscale(broken)
    made = []
    monkeypatch.setattr(job_module.ClipJob, "keep", lambda self, i, frame: (made.append(i), keep(self, i, frame))[1])
    resumed = request(source, tmp_path / "broken" / out, weights[network], resume=True, **common)
    with pytest.raises(InputError, match="started with another ensemble"):
        upscale(request(source, tmp_path / "broken" / out, weights[network], resume=True, ensemble=True, **common))
    for place in (out, f".{out}.upscaling/frames/003.png", f".{out}.upscaling/pieces/000001.mkv"):
        temporary_path(tmp_path / "broken" / place).write_bytes(b"half")  # as left by a killed process
    upscale(resumed)
    assert not set(made) & set(kept)
    assert contents(tmp_path / "broken" / out) == contents(tmp_path / "uninterrupted" / out)
    assert [path.name for path in (tmp_path / "broken").iterdir()] == [out]
    assert upscale(resumed) == []


def test_run_killed_before_its_first_file_is_resumed(weights, tmp_path):
    source = make_video(tmp_path / "in.mp4", frames=3)
    full = upscale(request(source, tmp_path / "uninterrupted" / "out.mp4", weights["mtdo"]))[0]
    work = tmp_path / "broken" / ".out.mp4.upscaling"
    make_own_folder(work)
    for name in ("raw", "frames"):  # killed before pieces/ and job.json
        (work / name).mkdir()
    again = upscale(request(source, tmp_path / "broken" / "out.mp4", weights["mtdo"], resume=True))[0]
    assert contents(again) == contents(full) and not work.exists()
