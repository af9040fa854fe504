import gc
import multiprocessing
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from data.clips import VideoClip
from data.samples import natural
from data.video import VideoFile
from data.video.writer import VideoWriter
from errors import InputError
from tests.media_info import sound_packets

HEIGHT, WIDTH = 48, 64


def smooth(count: int = 8, height: int = HEIGHT, width: int = WIDTH) -> list[np.ndarray]:
    """Smooth colours that change from frame to frame."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    frames = []
    for t in range(count):
        planes = [0.5 + 0.4 * np.sin(3 * x + t), 0.5 + 0.4 * np.cos(2 * y + t / 2), 0.5 + 0.4 * np.sin(2 * (x + y) - t)]
        frames.append((np.stack(planes, -1) * 255).astype(np.uint8))
    return frames


def noise(count: int = 6, height: int = HEIGHT, width: int = WIDTH, dtype=np.uint8) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return list(random.integers(0, np.iinfo(dtype).max, (count, height, width, 3), dtype, endpoint=True))


def write(path: Path, frames: list[np.ndarray], times: list[float] | None = None, **options) -> Path:
    with VideoWriter(path, **options) as writer:
        for number, frame in enumerate(frames):
            writer.write(frame, times[number] if times else None)
    return path


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", None), ("a.mkv", "h265"), ("a.mkv", "ffv1"), ("a.avi", "ffv1"), ("a.webm", None)]
)
def test_lossless_videos_are_bit_exact(tmp_path, name, codec):
    frames = noise()
    recording = VideoFile(write(tmp_path / name, frames, fps=25, codec=codec, lossless=True))
    assert len(recording) == 6 and recording.info.bits == 8 and recording.info.fps == 25
    for number in (3, 0, 5, 1, 4, 2):
        assert np.array_equal(recording.array(number), frames[number])


def test_16_bit_videos_are_bit_exact(tmp_path):
    frames = noise(dtype=np.uint16)
    recording = VideoFile(write(tmp_path / "a.mkv", frames, fps=25, bits=16, lossless=True))
    assert recording.info.bits == 16
    assert all(np.array_equal(recording.array(number), frame) for number, frame in enumerate(frames))


def test_10_bit_videos_are_read_exactly_and_kept(tmp_path):
    """Every 10-bit value is read as a distinct 16-bit value, which a lossless copy keeps."""
    random = np.random.default_rng(0)
    levels = [random.integers(0, 1024, (HEIGHT, WIDTH, 3), np.uint16, endpoint=False) for _ in range(3)]
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "gbrp10le"
        for frame in levels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gbrp10le")))
        container.mux(stream.encode(None))
    recording = VideoFile(tmp_path / "a.mkv")
    assert recording.info.bits == 10
    copied = VideoFile(write(tmp_path / "b.mkv", [recording.array(n) for n in range(3)], like=recording, lossless=True))
    for number, frame in enumerate(levels):
        read = recording.array(number)
        assert np.array_equal(np.rint(read / 65535 * 1023), frame) and read.max() > 65000
        assert np.array_equal(copied.array(number), read)


def test_16_bit_gray_is_read_exactly(tmp_path):
    frames = [frame[..., 0] for frame in noise(dtype=np.uint16)]
    with av.open(str(tmp_path / "g.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "gray16le"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray16le")))
        container.mux(stream.encode(None))
    clip = VideoClip(tmp_path / "g.mkv")
    assert clip.channels == 1 and clip.bit_depth == 16
    assert all(np.array_equal(clip.array(number)[..., 0], frame) for number, frame in enumerate(frames))


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_lossy_videos_are_close(tmp_path, codec, bits):
    frames = smooth()
    levels = [frame.astype(np.uint16) * 257 for frame in frames] if bits == 10 else frames
    recording = VideoFile(write(tmp_path / "a.mp4", levels, fps=30, codec=codec, bits=bits, crf=8))
    assert recording.info.bits == bits and not recording.info.full_range
    unit = 257 if bits == 10 else 1
    for number, frame in enumerate(frames):
        assert np.abs(recording.array(number) / unit - frame).mean() < 1.5


def planes_of(rgb: tuple[int, int, int], red: float, blue: float, full: bool) -> tuple[int, int, int]:
    """Y, U, V of a colour, by the definitions of BT.601 and BT.709."""
    r, g, b = (value / 255 for value in rgb)
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    levels = (255 * y, 255 * u + 128, 255 * v + 128) if full else (16 + 219 * y, 128 + 224 * u, 128 + 224 * v)
    return tuple(round(min(max(level, 0), 255)) for level in levels)


def yuv_video(path: Path, yuv: tuple[int, int, int], matrix: int, full: bool, size=(HEIGHT, WIDTH)) -> Path:
    height, width = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        planes = [np.full((height, width), yuv[0]), *(np.full((height // 2, width // 2), value) for value in yuv[1:])]
        flat = np.concatenate([plane.reshape(-1, width) for plane in planes]).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(flat, format="yuv420p")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


MATRICES = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("colour", [(200, 40, 60), (30, 180, 90), (255, 255, 255), (0, 0, 0)])
def test_matrix_and_range_are_honoured_when_reading(tmp_path, matrix, full, colour):
    recording = VideoFile(yuv_video(tmp_path / "a.mp4", planes_of(colour, *MATRICES[matrix], full), matrix, full))
    assert recording.info.full_range == full
    assert np.abs(recording.array(0)[8:40, 8:56].astype(int) - colour).max() <= 2


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
def test_matrix_and_range_are_kept_when_writing(tmp_path, matrix, full):
    colour = (200, 40, 60)
    source = VideoFile(yuv_video(tmp_path / "a.mp4", planes_of(colour, *MATRICES[matrix], full), matrix, full))
    out = write(tmp_path / "b.mp4", [np.full((96, 128, 3), colour, np.uint8)], like=source, crf=1)
    with av.open(str(out)) as container:
        frame = next(container.decode(video=0))
        levels = [
            int(np.median(plane))
            for plane in (frame.to_ndarray()[:96], frame.to_ndarray()[96:120], frame.to_ndarray()[120:])
        ]
        assert int(frame.colorspace) in ({5, 6} if matrix == 6 else {matrix}) and int(frame.color_range) == (
            2 if full else 1
        )
    assert np.abs(np.array(levels) - planes_of(colour, *MATRICES[matrix], full)).max() <= 1
    again = VideoFile(out)
    assert np.abs(again.array(0).astype(int) - colour).max() <= 2


def test_untagged_videos_are_bt709_when_large(tmp_path):
    tall = yuv_video(tmp_path / "a.mp4", (100, 100, 180), 2, False, (720, 64))
    low = yuv_video(tmp_path / "b.mp4", (100, 100, 180), 2, False)
    assert VideoFile(tall).info.matrix == 1 and VideoFile(low).info.matrix == 5


def test_variable_times_are_written_and_read_exactly(tmp_path):
    times = [0.0, 0.04, 0.05, 0.11, 0.2, 0.21, 0.5, 0.52]
    source = VideoFile(write(tmp_path / "a.mp4", smooth(), times, fps=25))
    assert source.times == pytest.approx(times, abs=1e-6)
    copy = VideoFile(write(tmp_path / "b.mp4", smooth(), like=source))
    assert copy.times == pytest.approx(times, abs=1e-6)
    doubled = [t + half for t, after in zip(times, [*times[1:], 0.56], strict=True) for half in (0, (after - t) / 2)]
    finer = VideoFile(write(tmp_path / "c.mp4", smooth(16), doubled, like=source))
    assert finer.times == pytest.approx(doubled, abs=1e-5)


def test_ntsc_rate_is_exact(tmp_path):
    recording = VideoFile(write(tmp_path / "a.mp4", smooth(), fps=Fraction(30000, 1001)))
    assert recording.info.fps == Fraction(30000, 1001)
    assert recording.times == pytest.approx([n * 1001 / 30000 for n in range(8)], abs=1e-9)


def test_random_access_equals_reading_in_order(tmp_path):
    path = tmp_path / "a.mp4"
    frames = [np.full((HEIGHT, WIDTH, 3), 3 * n, np.uint8) for n in range(60)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "12", "bf": "3", "qp": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    recording = VideoFile(path)
    ordered = [recording.array(n).copy() for n in range(60)]
    assert all(abs(int(frame.mean()) - 3 * n) <= 2 for n, frame in enumerate(ordered))
    for number in np.random.default_rng(0).integers(0, 60, 40).tolist():
        assert np.array_equal(recording.array(number), ordered[number])
    assert len(recording._kept) <= 12


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_rotation_flag(tmp_path, turns):
    path = tmp_path / "a.mp4"
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    frame[:24, :32] = 200
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV cannot write the flag")
        stream.set_display_rotation(90 * turns)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    clip = VideoClip(path)
    expected = np.rot90(frame, turns)
    assert clip.size == expected.shape[:2]
    assert np.abs(clip.array(0).astype(int) - expected).mean() < 2


@pytest.mark.parametrize(("height", "width"), [(47, 63), (48, 63), (1, 2)])
def test_odd_sizes(tmp_path, height, width):
    frames = smooth(3, height, width)
    recording = VideoFile(write(tmp_path / "a.mp4", frames, fps=25, crf=4))
    assert recording.array(2).shape == (height, width, 3)
    assert np.abs(recording.array(2).astype(int) - frames[2]).mean() < 3


def test_odd_sized_420_is_read(tmp_path):
    frames = smooth(3, 47, 63)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 63, 47, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    recording = VideoFile(tmp_path / "a.mkv")
    assert recording.array(1).shape == (47, 63, 3)
    assert np.abs(recording.array(1).astype(int) - frames[1]).mean() < 3


def video_with_sound(path: Path) -> list[bytes]:
    """Write a video with 0.4 s of AAC sound; return the bytes of its packets."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=20)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=44100)
        audio.layout = "mono"
        for frame in smooth():
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode(None))
        for start in range(0, 17 * 1024, 1024):
            tone = np.sin(np.arange(start, start + 1024) / 20).astype(np.float32)[None]
            sound = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = 44100, start, Fraction(1, 44100)
            container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    return sound_packets(path)


@pytest.mark.parametrize("name", ["b.mp4", "b.mkv"])
def test_sound_is_copied(tmp_path, name):
    packets = video_with_sound(tmp_path / "a.mp4")
    assert len(packets) > 10
    out = write(tmp_path / name, smooth(8, 96, 128), like=VideoFile(tmp_path / "a.mp4"))
    assert sound_packets(out) == packets
    assert VideoFile(out).times == pytest.approx(VideoFile(tmp_path / "a.mp4").times, abs=1e-3)


def test_failed_write_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "a.mp4", fps=25) as writer:
        writer.write(smooth()[0])
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_tensors_are_written(tmp_path):
    with VideoWriter(tmp_path / "a.mkv", fps=25, lossless=True) as writer:
        writer.write(torch.full((3, 16, 16), 0.5))
    assert (VideoFile(tmp_path / "a.mkv").array(0) == 128).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_process_does_not_free_an_inherited_decoder():
    """Freeing it would wait forever for the decoder's threads, which do not exist in the child."""
    path = next(natural("train").glob("*.mp4"))
    gc.disable()
    try:
        video = VideoFile(path)
        video.array(3)
        cycle = [video]
        cycle.append(cycle)
        del video, cycle
        process = multiprocessing.get_context("fork").Process(target=gc.collect)
        process.start()
        process.join(300)
        hung = process.is_alive()
        process.kill()
    finally:
        gc.enable()
    assert not hung


def test_wrong_requests_are_refused_in_one_line(tmp_path):
    frame = smooth(1)
    with pytest.raises(InputError, match="codec"):
        VideoWriter(tmp_path / "a.mp4", codec="divx")
    with pytest.raises(InputError, match="ffv1"):
        VideoWriter(tmp_path / "a.mp4", codec="h264", bits=16, lossless=True)
    with pytest.raises(InputError, match=r"\.webm cannot hold h264"):
        write(tmp_path / "a.webm", frame, codec="h264")
    with pytest.raises(InputError, match="differs in size"):
        write(tmp_path / "a.mp4", [*frame, smooth(1, 50, 64)[0]])
    with pytest.raises(InputError, match="no frames"):
        write(tmp_path / "a.mp4", [])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write(tmp_path / "file" / "a.mp4", frame)
