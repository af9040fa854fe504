"""Borders that the stream or its container cuts off, and videos of which only a part is interlaced."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data.video import VideoFile
from data.video.cropping import Border

SIZE = (48, 64)  # H, W as stored


def stored_frames(count: int = 3) -> list[np.ndarray]:
    return [np.random.default_rng(k).integers(0, 256, (*SIZE, 3), dtype=np.uint8) for k in range(count)]


def write(path: Path) -> list[np.ndarray]:
    """A lossless video of noise."""
    frames = stored_frames()
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264rgb", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.options = SIZE[1], SIZE[0], "rgb24", {"qp": "0"}
        for number, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array)
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return frames


def insert_clap(path: Path, border: Border) -> None:
    """Add a clean aperture to the sample entry of an MP4 whose index is at its end, so that no offset changes."""
    data = path.read_bytes()
    height, width = border.size(SIZE)
    right, down = border.left - border.right, border.top - border.bottom  # twice the offsets of the centre
    box = struct.pack(">I4s4I4i", 40, b"clap", width, 1, height, 1, right, 2, down, 2)
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        place = data.rindex(kind) - 4
        size = int.from_bytes(data[place : place + 4], "big")
        data = data[:place] + struct.pack(">I", size + len(box)) + data[place + 4 :]
    path.write_bytes(data[: place + size] + box + data[place + size :])


def element(kind: str, *content: bytes | int) -> bytes:
    """A Matroska element; kind: its identifier in hexadecimal."""
    body = b"".join(part if isinstance(part, bytes) else part.to_bytes(2, "big") for part in content)
    return bytes.fromhex(kind) + (0x10000000 | len(body)).to_bytes(4, "big") + body


def write_matroska(path: Path, border: Border) -> None:
    """Motion JPEG with PixelCrop elements, after a track of sound."""
    pictures = []
    for array in stored_frames():
        file = io.BytesIO()
        Image.fromarray(array).save(file, "JPEG")
        pictures.append(file.getvalue())
    names = zip(("54bb", "54aa", "54cc", "54dd"), border, strict=True)
    crops = b"".join(element(name, value) for name, value in names)
    video = element("e0", element("b0", SIZE[1]), element("ba", SIZE[0]), crops)
    codec = element("86", b"V_MJPEG")
    sound = element("ae", element("d7", 1), element("73c5", 1), element("83", 2), element("86", b"A_PCM/INT/LIT"))
    track = element("ae", element("d7", 2), element("73c5", 2), element("83", 1), codec, video)
    blocks = (element("a3", bytes([0x82, 0, 40 * k, 0x80]), data) for k, data in enumerate(pictures))
    cluster = element("1f43b675", element("e7", 0), *blocks)
    info = element("1549a966", element("2ad7b1", (1_000_000).to_bytes(4, "big")))
    segment = element("18538067", info, element("1654ae6b", sound, track), cluster)
    path.write_bytes(element("1a45dfa3", element("4282", b"matroska")) + segment)


@pytest.mark.parametrize("border", [Border(2, 4, 6, 8), Border(1, 0, 3, 0), Border(0, 7, 0, 0)])
@pytest.mark.parametrize("container", ["mp4", "mov"])
def test_clean_aperture(tmp_path: Path, border: Border, container: str) -> None:
    path = tmp_path / f"a.{container}"
    frames = write(path)
    insert_clap(path, border)
    video = VideoFile(path)
    assert video.info.size == border.size(SIZE)
    assert np.array_equal(video.array(1), border.cut(frames[1]))
    assert any("is cut off, as its header asks" in note for note in video.notes)


@pytest.mark.parametrize("border", [Border(2, 4, 6, 8), Border(0, 1, 3, 0)])
def test_pixel_crop(tmp_path: Path, border: Border) -> None:
    write_matroska(tmp_path / "stored.mkv", Border())
    write_matroska(tmp_path / "a.mkv", border)
    stored, video = VideoFile(tmp_path / "stored.mkv"), VideoFile(tmp_path / "a.mkv")
    assert (stored.info.size, video.info.size) == (SIZE, border.size(SIZE))
    assert np.array_equal(video.array(1), border.cut(stored.array(1)))
    assert video.info.sample_aspect == 1


def test_aperture_beyond_the_frame_is_ignored(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4")
    insert_clap(tmp_path / "a.mp4", Border(-2, -2, 0, 0))
    video = VideoFile(tmp_path / "a.mp4")
    assert video.info.size == SIZE and not video.notes


@pytest.mark.parametrize("left", [3, 4])
def test_left_border_of_the_stream_is_exact(tmp_path: Path, left: int) -> None:
    """FFmpeg's decoders round it down to a multiple of 32 or more by default."""
    path, cropped = tmp_path / "a.mp4", tmp_path / "b.mp4"
    frames = write(path)
    copy = f"h264_metadata=crop_left={left}:crop_right=6:crop_top=2"
    with av.open(str(path)) as source, av.open(str(cropped), "w") as file:
        stream = file.add_stream_from_template(source.streams.video[0])
        bits = av.bitstream.BitStreamFilterContext(copy, source.streams.video[0], stream)
        for packet in source.demux(video=0):
            for changed in bits.filter(packet if packet.size else None):
                changed.stream = stream
                file.mux(changed)
    video = VideoFile(cropped)
    assert np.array_equal(video.array(1), frames[1][2:, left:-6])


def test_count_of_interlaced_frames_is_reported(tmp_path: Path) -> None:
    """A progressive transport stream followed by an interlaced one; FFmpeg drops the frame before the joint."""
    if not shutil.which("ffmpeg"):
        pytest.skip("needs ffmpeg")
    parts = []
    for name, count, flags in (("p", 8, []), ("i", 4, ["-flags", "+ildct+ilme"])):
        parts.append(tmp_path / f"{name}.ts")
        made = ["-f", "lavfi", "-i", f"testsrc2=s=64x48:r=25:d={count / 25}", "-c:v", "mpeg2video", *flags]
        subprocess.run(["ffmpeg", "-nostdin", "-v", "error", *made, "-q:v", "2", str(parts[-1])], check=True)
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    video = VideoFile(path)
    assert any(note.startswith("4 of 11 frames are interlaced: deinterlaced") for note in video.notes), video.notes
    raw = VideoFile(path, deinterlace=False)
    changed = [not np.array_equal(video.array(k), raw.array(k)) for k in range(len(video))]
    assert changed[:7] == [False] * 7 and any(changed[7:])
    copied = tmp_path / "both.mkv"
    subprocess.run(["ffmpeg", "-nostdin", "-v", "fatal", "-i", str(path), "-c", "copy", str(copied)], check=True)
    quick = VideoFile(copied, quick=True)  # flags are not known in advance; the dropped frame is counted
    assert not quick.table.threads and len(quick) == len(video) + 1
    assert all(np.array_equal(quick.array(k + 1), video.array(k)) for k in (8, 9, 10))
