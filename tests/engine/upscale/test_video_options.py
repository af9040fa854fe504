"""Options for videos: rates, sizes, time ranges, scene cuts, encoder options, pipes, folders with an unreadable file."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from data.clips import SubClip, VideoClip
from data.video import VideoFile, join
from data.video.encoding import Encoding
from engine.checkpoint import save_weights
from engine.restore import restore
from engine.upscale import pipe
from engine.upscale.request import Request
from engine.upscale.run import upscale
from errors import InputError
from tests.data.video.make import pictures, video
from tests.engine.small import small_mtdo
from tests.media_info import media_info

LONG = [k / 25 for k in range(12)]


def make(source: Path, out: Path, weight: Path, **more) -> list[Path]:
    return upscale(Request(source, out, weight, **{"precision": "fp32", "scenes": False, **more}))


def cut_video(path: Path) -> Path:
    """Six frames of a moving picture, then six of another one."""
    y, x = np.mgrid[:32, :48]
    frames = [np.stack([120 + 100 * np.sin((x + k) / 4)] * 3, -1) for k in range(6)]
    frames += [np.stack([40 + 30 * np.cos((y - k) / 3), 60 + 0 * x, 200 - y], -1) for k in range(6)]
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "bgr0"
        for array in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(array.clip(0, 255).astype(np.uint8), format="rgb24")))
        file.mux(stream.encode(None))
    return path


def test_windows_and_new_frames_end_at_scene_cuts(weights, tmp_path, capsys):
    source = cut_video(tmp_path / "in.mkv")
    clip = VideoClip(source)
    make(source, tmp_path / "mtdo.mkv", weights["mtdo"], scenes=True, codec="ffv1")
    assert "1 scene cut(s) at 0.24 s" in capsys.readouterr().out
    made = VideoFile(tmp_path / "mtdo.mkv")
    with torch.no_grad():
        alone = list(restore(small_mtdo(), SubClip(clip, range(6, 12))))
    first = (alone[0].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(made.array(6).astype(float) - first).max() <= 1

    make(source, tmp_path / "stno.mkv", weights["stno"], scenes=True, fps="x2", scale=2.0, codec="ffv1")
    made = VideoFile(tmp_path / "stno.mkv")
    assert len(made) == 23 and np.array_equal(made.array(11), made.array(10))
    make(source, tmp_path / "off.mkv", weights["stno"], fps="x2", scale=2.0, codec="ffv1")
    assert not np.array_equal(VideoFile(tmp_path / "off.mkv").array(11), VideoFile(tmp_path / "off.mkv").array(10))


def test_scene_of_one_frame(weights, tmp_path):
    source = video(tmp_path / "in.mp4", LONG[:1])
    make(source, tmp_path / "out.mp4", weights["stno"], fps="x2", scale=2.0)
    assert len(media_info(tmp_path / "out.mp4").times) == 1


def test_any_output_rate_and_size(weights, tmp_path):
    rate = Fraction(24_000, 1001)
    source = video(tmp_path / "in.mp4", [float(k / rate) for k in range(12)], rate=rate, sound=["aac"])
    make(source, tmp_path / "out.mp4", weights["stno"], fps="60", size="60x44")
    found = media_info(tmp_path / "out.mp4")
    assert found.size == (44, 60)
    assert found.from_first == pytest.approx([k / 60 for k in range(len(found.times))], abs=1e-3)
    assert len(found.times) == 31  # 12 * 1001 / 24000 s
    make(source, tmp_path / "less.mp4", weights["mtdo"], scale=1.5)
    assert media_info(tmp_path / "less.mp4").size == (24, 36)
    make(source, tmp_path / "x.mp4", weights["stno"], size="x48")
    assert media_info(tmp_path / "x.mp4").size == (48, 72)
    for wrong in ("1920", "axb", "0x20"):
        with pytest.raises(InputError, match="expected WIDTHxHEIGHT"):
            make(source, tmp_path / "y.mp4", weights["stno"], size=wrong)


@pytest.mark.parametrize(("size", "shape"), [(None, (4, 3)), ("48x", (4, 3)), ("64x32", (1, 1)), ("48x48", (2, 1))])
def test_display_aspect_ratio_is_kept(weights, tmp_path, capsys, size, shape):
    """24x16 pixels of 4:3 are shown as 2:1."""
    join.write_piece(tmp_path / "in.mkv", pictures(2), Encoding("h264", aspect=Fraction(4, 3)), Fraction(25))
    make(tmp_path / "in.mkv", tmp_path / "out.mp4", weights["stno"], size=size, scale=None if size else 2.0)
    assert media_info(tmp_path / "out.mp4").aspect == pytest.approx(shape[0] / shape[1], abs=1e-3)
    assert ("pixels of 4:3 become" in capsys.readouterr().out) is (shape != (4, 3))


def test_time_range_preview_and_another_speed(weights, tmp_path, capsys):
    source = video(tmp_path / "in.mp4", LONG, sound=["aac"])
    make(source, tmp_path / "part.mp4", weights["mtdo"], begin=0.12, end=0.32)
    found = media_info(tmp_path / "part.mp4")
    assert found.from_first == pytest.approx([k / 25 for k in range(5)], abs=1e-3)
    assert [stream[0] for stream in found.streams] == ["video", "audio"]
    with pytest.raises(InputError, match="no frame begins after --from 9"):
        make(source, tmp_path / "no.mp4", weights["mtdo"], begin=9.0)
    assert make(source, tmp_path / "look.mp4", weights["mtdo"], preview_seconds=0.2) == [tmp_path / "look_preview.mp4"]
    assert len(media_info(tmp_path / "look_preview.mp4").times) == 5
    capsys.readouterr()
    make(source, tmp_path / "slow.mp4", weights["mtdo"], input_fps=10.0)
    assert media_info(tmp_path / "slow.mp4").from_first == pytest.approx([k / 10 for k in range(12)], abs=1e-3)
    assert "the speed is changed" in capsys.readouterr().out


def test_encoder_options(weights, tmp_path):
    source = video(tmp_path / "in.mp4", LONG[:3])
    more = {
        "encoder_options": (("preset", "ultrafast"),),
        "pix_fmt": "yuv444p10le",
        "bitrate": 200_000,
        "codec": "h265",
    }
    make(source, tmp_path / "out.mp4", weights["mtdo"], **more)
    found = media_info(tmp_path / "out.mp4")
    assert (found.pixels, found.tag) == ("yuv444p10le", "hvc1")


def test_wrong_options_are_refused_before_the_first_frame(weights, tmp_path):
    source = video(tmp_path / "in.mp4", [0.0, 0.02, 0.1, 0.14], sound=["aac"])
    for name, more, message in (
        ("a.webm", {"codec": "h265"}, "cannot hold h265"),
        ("a.avi", {}, "keeps one constant frame rate"),
        ("a.mp4", {"encoder_options": (("presset", "slow"),)}, "-e presset"),
        ("a.mp4", {"pix_fmt": "yuv9p"}, "no such pixel format"),
        ("a.mp3", {}, r"cannot write \.mp3 here"),
    ):
        with pytest.raises(InputError, match=message):
            make(source, tmp_path / name, weights["mtdo"], **more)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4"]


def test_unreadable_file_does_not_stop_the_others(weights, tmp_path):
    (tmp_path / "in").mkdir()
    video(tmp_path / "in" / "a.mp4", LONG[:2])
    (tmp_path / "in" / "b.mp4").write_bytes(b"nothing")
    video(tmp_path / "in" / "c.mkv", LONG[:2], sound=["flac"])
    with pytest.raises(InputError, match=r"1 of 3 clips were not upscaled \('b.mp4'\)"):
        make(tmp_path / "in", tmp_path / "out", weights["mtdo"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mp4", "c.mkv"]


def test_pipes(weights, tmp_path, monkeypatch):
    source = video(tmp_path / "in.y4m", LONG[:4], codec="wrapped_avframe", base=Fraction(1, 25))
    sent = io.BytesIO()
    sent.close = lambda: None  # type: ignore[method-assign]
    monkeypatch.setattr(pipe, "_frames", sent)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(source.read_bytes())))
    assert make(Path("-"), Path("-"), weights["mtdo"]) == []
    (tmp_path / "out.y4m").write_bytes(sent.getvalue())
    read = VideoFile(tmp_path / "out.y4m")
    assert len(read) == 4 and read.info.size == (32, 48) and read.info.fps == 25

    (tmp_path / "two").mkdir()
    for name in ("a.y4m", "b.y4m"):
        (tmp_path / "two" / name).write_bytes(source.read_bytes())
    with pytest.raises(InputError, match=r"is a folder of clips \(2\)"):
        make(tmp_path / "two", Path("-"), weights["mtdo"])
    with pytest.raises(InputError, match="--trust writes a file next to the output"):
        make(source, Path("-"), weights["mtdo"], trust=True)
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        make(Path("-"), tmp_path / "out.mp4", weights["mtdo"])

    for content, message in ((b"", "standard input is empty"), (b"text", "^standard input: cannot be read as a video")):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        with pytest.raises(InputError, match=message):
            make(Path("-"), tmp_path / "out.mp4", weights["mtdo"])

    raw = np.random.default_rng(0).integers(0, 255, (3, 16, 24, 3), np.uint8)
    sent.seek(0)
    sent.truncate()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(raw.tobytes())))
    make(Path("-"), Path("-"), weights["mtdo"], pipe_format="rgb24", input_size="24x16")
    assert len(sent.getvalue()) == 3 * 32 * 48 * 3
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(raw.tobytes()[:-5])))
    with pytest.raises(InputError, match="frame 2 from the pipe has 1147 bytes, expected 1152"):
        make(Path("-"), Path("-"), weights["mtdo"], pipe_format="rgb24", input_size="24x16")


@pytest.mark.parametrize("height, matrix", [(32, 1), (320, 5), (320, 9)])
def test_pipes_have_the_matrix_that_readers_assume(weights, tmp_path, monkeypatch, capsys, height, matrix):
    """y4m names no matrix: readers take BT.601 up to 576 lines, else BT.709 (here for twice the height of the source)."""
    green = np.broadcast_to(np.uint8([30, 180, 90]), (height, 16, 3))
    with av.open(str(tmp_path / "in.mkv"), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"qp": "1"})
        stream.height, stream.width, stream.pix_fmt = height, 16, "yuv444p"
        tags = stream.codec_context
        tags.colorspace = matrix
        tags.color_primaries, tags.color_trc = (9, 16) if matrix == 9 else (1, 1)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(green), format="rgb24")
        file.mux(stream.encode(picture.reformat(format="yuv444p", dst_colorspace=matrix)))
        file.mux(stream.encode(None))
    source, sent = VideoFile(tmp_path / "in.mkv"), io.BytesIO()
    assert source.info.matrix == matrix
    monkeypatch.setattr(pipe, "_frames", sent)
    network = small_mtdo()
    torch.nn.init.zeros_(network.reconstruction.conv_last.weight)  # bicubic
    save_weights(tmp_path / "bicubic.safetensors", network)
    make(source.path, Path("-"), tmp_path / "bicubic.safetensors")
    (tmp_path / "out.y4m").write_bytes(sent.getvalue())
    assert np.abs(VideoFile(tmp_path / "out.y4m").array(0)[8:-8].astype(int) - source.array(0)[8, 8]).max() <= 2
    note = "left out (pipes carry pictures only): the colour tags (primaries 9, transfer 16 of ITU-T H.273)"
    assert (note in capsys.readouterr().out) == (matrix == 9)


def test_unsupported_properties_of_pipes_are_named_or_refused(weights, tmp_path, monkeypatch, capsys):
    sent = io.BytesIO()
    monkeypatch.setattr(pipe, "_frames", sent)
    for preview in ({"preview": 0}, {"preview_seconds": 1.0}):
        with pytest.raises(InputError, match="--preview writes a file"):
            make(tmp_path / "a.mp4", Path("-"), weights["mtdo"], **preview)
    make(video(tmp_path / "a.mp4", LONG[:3], sound=["aac"]), Path("-"), weights["mtdo"])
    assert "left out (pipes carry pictures only): sound stream 1 (aac)" in capsys.readouterr().out
    source, length = video(tmp_path / "b.mp4", [0.0, 0.02, 0.1, 0.14]), len(sent.getvalue())
    with pytest.raises(
        InputError, match=r"y4m keeps one constant frame rate, but frame 1 is shown at 0\.0200 s.*--fps"
    ):
        make(source, Path("-"), weights["mtdo"])
    assert len(sent.getvalue()) == length
    make(source, Path("-"), weights["stno"], fps="25", scale=2.0)
    assert sent.getvalue().count(b"FRAME\n") == 3 + 4
    make(source, Path("-"), weights["mtdo"], pipe_format="rgb24")
    assert "raw values have no times" in capsys.readouterr().out
    deep = video(tmp_path / "c.mkv", LONG[:2], codec="ffv1", pixels="yuv444p12le")
    for form, lost in {"y4m": "after the first 10 of 12", "rgb24": "after the first 8 of 12", "rgb48le": ""}.items():
        make(deep, Path("-"), weights["mtdo"], pipe_format=form)
        said = capsys.readouterr().out
        assert f"bits of each value {lost}" in said if lost else "left out" not in said
