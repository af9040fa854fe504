"""Upscaling in-process: kinds of input and output, errors."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
import tifffile
import torch

from cli import tune_allocator
from data.media import from_tensor, read_image, write_image
from data.video import join
from data.video.containers import timing
from data.video.encoding import Encoding
from engine.restore import restore
from engine.upscale import outputs
from engine.upscale import run as upscale_module
from engine.upscale.job import ClipJob
from engine.upscale.request import Request
from engine.upscale.run import upscale
from errors import InputError
from tests.engine.small import moving_clip, small_mtdo
from tests.engine.upscale.sources import folder, make_video, request
from tests.media_info import sound_packets


@pytest.mark.parametrize(("fps", "frames"), [(None, 5), ("x2", 9)])
def test_video_keeps_sound_times_and_metadata(weights, tmp_path, fps, frames):
    source, out = make_video(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    upscale(request(source, out, weights["stno" if fps else "mtdo"], fps=fps, scale=2, compare=fps is None))
    assert sound_packets(out) == sound_packets(source)
    with av.open(str(source)) as before, av.open(str(out)) as after:
        assert after.metadata["title"] == "a video"
        stream = after.streams.video[0]
        assert (stream.width, stream.height) == (48, 32)
        assert float(stream.duration * stream.time_base) == pytest.approx(5 / 25, abs=1e-4)
        assert after.duration == before.duration
        times = [float(frame.pts * frame.time_base) for frame in after.decode(video=0)]
    assert times == pytest.approx([k / 25 * 4 / (frames - 1) for k in range(frames)], abs=1e-4)
    assert not (tmp_path / ".out.mp4.upscaling").exists()
    assert (tmp_path / "out_compare.mp4").exists() == (fps is None)


def test_frames_keep_their_names_and_equal_the_network(weights, tmp_path):
    source, out = folder(tmp_path / "in"), tmp_path / "out"
    upscale(request(source, out, weights["mtdo"]))
    assert sorted(path.name for path in out.iterdir()) == [f"{k:03d}.png" for k in range(5)]
    with torch.no_grad():
        expected = small_mtdo()(moving_clip(5, 16, 24).window(2, 3)[None])[0]
    expected = (expected.clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(read_image(out / "002.png").astype(float) - expected).max() <= 1


def test_spacing_option(weights, tmp_path):
    source = folder(tmp_path / "in")
    upscale(Request(source, tmp_path / "near", weights["mtdo"], precision="fp32"))
    upscale(Request(source, tmp_path / "apart", weights["mtdo"], precision="fp32", spacing=2))
    network, clip = small_mtdo(spacing=2), moving_clip(5, 16, 24)
    for index, expected in enumerate(restore(network, clip)):
        written = read_image(tmp_path / "apart" / f"{index:03d}.png")
        assert np.array_equal(written, from_tensor(expected, np.dtype(np.uint8)))
        assert not np.array_equal(written, read_image(tmp_path / "near" / f"{index:03d}.png"))
    with pytest.raises(InputError, match="--spacing is for window networks"):
        upscale(Request(source, tmp_path / "out", weights["stno"], spacing=2))


def test_tiff_stack_keeps_depth_and_georeference(weights, tmp_path):
    source, out = tmp_path / "in.tif", tmp_path / "out.tif"
    tags = [(33550, "d", 3, (2.0, 2.0, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, 100.0, 200.0, 0.0), True)]
    with tifffile.TiffWriter(source) as writer:
        for index in range(3):
            page = moving_clip(3, 16, 24).array(index)[..., :1].astype(np.uint16) * 200
            writer.write(page[..., 0], contiguous=False, metadata=None, extratags=tags)
    upscale(request(source, out, weights["mtdo"]))
    with tifffile.TiffFile(out) as file:
        assert [page.shape for page in file.pages] == [(32, 48)] * 3
        assert file.pages[0].dtype == np.uint16
        assert file.pages[0].tags[33550].value == (1.0, 1.0, 0.0)


@pytest.mark.parametrize(("network", "fps"), [("mtdo", None), ("stno", "x2")])
def test_video_with_variable_times_keeps_times_and_length(weights, tmp_path, network, fps):
    source, out, stamps = tmp_path / "in.mp4", tmp_path / "out.mp4", [0, 20, 100, 140, 180, 260, 280, 300, 380]
    clip = moving_clip(len(stamps), 16, 24)
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 24, 16, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for index, stamp in enumerate(stamps):
            picture = av.VideoFrame.from_ndarray(clip.array(index), format="rgb24")
            picture.pts, picture.time_base = stamp, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    upscale(request(source, out, weights[network], fps=fps, scale=2))
    with av.open(str(source)) as before, av.open(str(out)) as after:
        length = before.streams.video[0].duration * before.streams.video[0].time_base
        assert after.streams.video[0].duration * after.streams.video[0].time_base == length
        times = [round(1000 * frame.pts * frame.time_base) for frame in after.decode(video=0)]
    assert times[:: 2 if fps else 1] == stamps


def test_equal_frames_give_equal_bytes(tmp_path):
    """Regression: x264 read uninitialised memory in the rate control of all pieces after the first one."""
    tune_allocator()
    rng = np.random.default_rng(0)
    ground = np.kron(rng.integers(0, 255, (40, 60, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    frames = [np.roll(ground, 3 * k, 1)[:180, :320] + rng.integers(0, 9, (180, 320, 3), np.uint8) for k in range(24)]
    encoding, made, rate = Encoding("h264"), set(), Fraction(24)
    shown = timing("video.mkv", [k / 24 for k in range(24)], 1 / 24, rate)
    for _ in range(3):
        del [rng.bytes(3_000_000) for _ in range(10)][:]  # fill memory that the encoder will get
        join.write_piece(tmp_path / "piece.mkv", frames, encoding, rate)
        join.join(tmp_path / "video.mkv", [tmp_path / "piece.mkv"], encoding, shown, None)
        made.add((tmp_path / "video.mkv").read_bytes())
    assert len(made) == 1


def test_folder_of_clips(weights, tmp_path):
    folder(tmp_path / "in" / "a", frames=2)
    make_video(tmp_path / "in" / "b.mp4", frames=3)
    written = upscale(request(tmp_path / "in", tmp_path / "out", weights["mtdo"]))
    assert [path.name for path in written] == ["a", "b.mp4"]


@pytest.mark.parametrize(
    ("first", "second", "written", "compare"),
    [
        ("a.mpg", "a.wmv", "a.mp4", False),
        ("a.mp4", "a.wmv", "a.mp4", False),
        ("a.mov", "a.mp4", "a_compare.mp4", True),
        ("a.mov", "a.mp4", "", False),
    ],
)
def test_several_clips_into_one_file_are_refused(weights, tmp_path, first, second, written, compare):
    (tmp_path / "in").mkdir()
    for name in (first, second):
        make_video(tmp_path / "made.mp4", frames=2).rename(tmp_path / "in" / name)
    asked = request(tmp_path / "in", tmp_path / "out", weights["mtdo"], compare=compare)
    if not written:
        assert [path.name for path in upscale(asked)] == [first, second]
        return
    with pytest.raises(InputError, match=f"'{first}' and '{second}' would both be written to '{written}'"):
        upscale(asked)
    assert not (tmp_path / "out").exists()


def test_preview(weights, tmp_path):
    upscale(request(folder(tmp_path / "in"), tmp_path / "out", weights["mtdo"], preview=-1))
    assert read_image(tmp_path / "out_preview.png").shape == (32, 96, 3)
    assert not (tmp_path / "out").exists()


def test_output_that_is_not_finite_is_named(weights, tmp_path, monkeypatch):
    def broken(*_, **__):
        yield torch.zeros(3, 32, 48)
        yield torch.full((3, 32, 48), float("nan"))

    monkeypatch.setattr(outputs, "restore", broken)
    with pytest.raises(InputError, match=r"frame '001': the output is not finite"):
        upscale(request(folder(tmp_path / "in"), tmp_path / "out", weights["mtdo"]))


def test_full_disk_is_a_one_line_error(weights, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "x.png")

    monkeypatch.setattr(upscale_module.ClipJob, "keep", full)
    with pytest.raises((InputError, OSError), match="No space left"):
        upscale(request(folder(tmp_path / "in"), tmp_path / "out", weights["mtdo"]))


def test_unusable_inputs_are_refused(weights, tmp_path):
    source, out = folder(tmp_path / "in"), tmp_path / "out"
    cases = {
        "does not exist": {"source": tmp_path / "nothing"},
        "is for scale 2": {"scale": 3.0},
        "make no intermediate frames": {"fps": "x2"},
        "no weights|does not exist": {"weight": tmp_path / "none.safetensors"},
        "cannot write .wmv": {"out": tmp_path / "out.wmv"},
    }
    for message, changes in cases.items():
        how = {"source": source, "out": out, "weight": weights["mtdo"], **changes}
        with pytest.raises(InputError, match=message):
            upscale(request(**how))
    with pytest.raises(InputError, match="expected a multiple such as x2"):
        upscale(request(source, out, weights["stno"], fps="fast"))
    (tmp_path / "zero.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"zero\.mp4"):
        upscale(request(tmp_path / "zero.mp4", out, weights["mtdo"]))
    (tmp_path / "raw.yuv").write_bytes(bytes(range(256)) * 6)
    with pytest.raises(
        InputError, match=r"raw\.yuv: holds values without their size.*-pixel_format yuv420p -i IN\.yuv"
    ):
        upscale(request(tmp_path / "raw.yuv", out, weights["mtdo"]))
    (tmp_path / "photo.exr").write_bytes(b"v/1\x01")
    (tmp_path / "photo.hdr").write_bytes(b"#?RADIANCE\n")  # no header of a raster of ENVI
    with pytest.raises(InputError, match=r"\.exr files are not read; convert it first, for example to PNG or TIFF"):
        upscale(request(tmp_path / "photo.exr", out, weights["mtdo"]))
    write_image(source / "005.png", np.zeros((20, 24, 3), np.uint8))
    with pytest.raises(InputError, match=r"005\.png: 24x20 pixels"):
        upscale(request(source, out, weights["mtdo"]))
    assert not out.exists() and not out.with_name(".out.upscaling").exists()


def during_the_work(monkeypatch, change) -> None:
    """Call `change` after the first frame that a job keeps."""
    keep, changes = ClipJob.keep, [change]

    def kept(job, index, frame):
        keep(job, index, frame)
        if changes:
            changes.pop()()

    monkeypatch.setattr(ClipJob, "keep", kept)


@pytest.mark.parametrize("kind", ["video", "frames"])
def test_input_that_changes_during_the_work_is_reported(weights, tmp_path, monkeypatch, kind):
    other = make_video(tmp_path / "other.mp4") if kind == "video" else folder(tmp_path / "other") / "004.png"
    source = make_video(tmp_path / "in.mp4") if kind == "video" else folder(tmp_path / "in")
    out = tmp_path / f"out{source.suffix}"
    during_the_work(monkeypatch, lambda: other.replace(source if kind == "video" else source / "004.png"))
    with pytest.raises(
        InputError, match=rf"input of '{out.name}' changed while it was upscaled: the result is written"
    ):
        upscale(request(source, out, weights["mtdo"]))
    assert out.exists() and not out.with_name(f".{out.name}.upscaling").exists()


def test_input_that_disappears_during_the_work_is_named(weights, tmp_path, monkeypatch):
    source, out = make_video(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    during_the_work(monkeypatch, lambda: source.rename(tmp_path / "moved.mp4"))
    with pytest.raises(InputError, match=r"in\.mp4: no such file; finished parts are kept"):
        upscale(request(source, out, weights["mtdo"]))
    (tmp_path / "moved.mp4").rename(source)
    assert upscale(request(source, out, weights["mtdo"], resume=True)) == [out]


def test_existing_output_is_not_overwritten(weights, tmp_path):
    source, out = folder(tmp_path / "in", frames=2), tmp_path / "out"
    folder(out, frames=1)
    with pytest.raises(InputError, match="--overwrite"):
        upscale(request(source, out, weights["mtdo"]))
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        upscale(request(source, out, weights["mtdo"], overwrite=True))
    (out / "notes.txt").unlink()
    with pytest.raises(InputError, match="the input itself"):
        upscale(request(source, source, weights["mtdo"], overwrite=True))
    (tmp_path / "new_compare.mp4").write_bytes(b"mine")
    with pytest.raises(InputError, match="new_compare"):
        upscale(request(source, tmp_path / "new", weights["mtdo"], compare=True))
    upscale(request(source, out, weights["mtdo"], overwrite=True))
    assert len(list(out.iterdir())) == 2 and read_image(out / "000.png").shape == (32, 48, 3)
