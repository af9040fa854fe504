"""Reading of cut, joined, damaged, interlaced and multi-stream videos under any name, compared with FFmpeg."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data.video import VideoFile
from data.video.opening import open_input
from errors import InputError
from tests.data.video.make import pictures, video

LONG = [k / 25 for k in range(60)]
GOP = {"g": "20", "bf": "2", "x264-params": "scenecut=0"}


def decoded(path: Path) -> list[np.ndarray]:
    """The frames of FFmpeg's decoder, in its order."""
    found = []
    with av.open(f"file:{path}") as file:
        stream = file.streams.video[0]
        for packet in file.demux(stream):
            if packet.size == 0 and packet.dts is not None:
                continue
            found += [frame.to_ndarray(format="gray") for frame in packet.decode()]
    return found


def same_frames(read: VideoFile, expected: list[np.ndarray]) -> bool:
    if len(read) != len(expected):
        return False
    gray = [read.array(k) @ np.array([0.299, 0.587, 0.114]) for k in range(len(read))]
    return all(np.abs(a - b.astype(float) * 255 / 235).mean() < 25 for a, b in zip(gray, expected, strict=True))


def test_b_frames_in_avi_come_in_order(tmp_path):
    path = video(tmp_path / "a.avi", LONG[:24], base=Fraction(1, 25))
    read = VideoFile(path)
    assert read.times == pytest.approx(LONG[:24], abs=1e-6)
    full = VideoFile(video(tmp_path / "a.mp4", LONG[:24]))
    for k in (5, 2, 20, 0, 23):
        assert np.abs(read.array(k).astype(int) - full.array(k)).mean() < 3


def packets_of(path: Path) -> list[bytes]:
    return [path.read_bytes()[k : k + 188] for k in range(0, path.stat().st_size, 188)]


def test_transport_stream_cut_between_key_frames(tmp_path):
    path = video(tmp_path / "a.ts", LONG, options=GOP, size=(64, 96))
    parts = packets_of(path)
    cut = tmp_path / "cut.ts"
    cut.write_bytes(b"".join(parts[len(parts) // 2 :]))
    read = VideoFile(cut)
    assert len(read) == len(decoded(cut)) > 10
    assert any("cut between key frames" in note for note in read.notes)
    assert read.times == pytest.approx([k / 25 for k in range(len(read))], abs=1e-3)


def test_times_continue_in_joined_transport_streams(tmp_path):
    path = video(tmp_path / "a.ts", LONG[:20], options=GOP)
    (tmp_path / "two.ts").write_bytes(path.read_bytes() * 2)
    read = VideoFile(tmp_path / "two.ts")
    assert len(read) == 40 and read.times == pytest.approx([k / 25 for k in range(40)], abs=1e-3)
    assert any("times jump at frame 20" in note for note in read.notes)
    assert np.array_equal(read.array(25), read.array(5))


def test_frames_of_another_size_are_resized(tmp_path):
    parts = [video(tmp_path / f"{w}.ts", LONG[:10], options=GOP, size=(32, w)) for w in (48, 64)]
    (tmp_path / "two.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    read = VideoFile(tmp_path / "two.ts")
    assert {read.array(k).shape for k in range(20)} == {(32, 48, 3)}
    changed = "its frames change from 48x32 to 64x32 pixels at 0.40 s: resized to the size of the first"
    assert read.notes == [changed, "its times jump at frame 10: the frames from there on follow without a gap"]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_open_groups_cut_without_encoding(tmp_path, suffix):
    params = {"x264-params": "keyint=20:min-keyint=20:scenecut=0:open-gop=1:bframes=3", "bf": "3"}
    path, cut = video(tmp_path / "a.mkv", LONG, options=params), tmp_path / f"cut{suffix}"
    with av.open(str(path)) as source, av.open(str(cut), "w") as file:
        stream = file.add_stream_from_template(source.streams.video[0])
        begun = False
        for packet in source.demux(source.streams.video[0]):
            begun = begun or (packet.is_keyframe and (packet.pts or 0) > 0)
            if begun and packet.size:
                packet.stream = stream
                file.mux(packet)
    read = VideoFile(cut)
    assert len(read) == len(decoded(cut)) >= 35
    assert all(read.array(k).shape == (16, 24, 3) for k in range(len(read)))


def test_most_frames_of_a_damaged_video_are_read(tmp_path):
    path = video(tmp_path / "a.mkv", LONG, options=GOP, size=(48, 64), noisy=True)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    path.write_bytes(content)
    read = VideoFile(path)
    assert len(read) >= 50 and read.notes
    assert all(read.array(k).shape == (48, 64, 3) for k in range(len(read)))
    again = VideoFile(path)
    assert all(np.array_equal(read.array(k), again.array(k)) for k in range(len(read)))


def test_truncated_video_is_reported(tmp_path):
    for suffix, message in ((".mkv", "cut short"), (".avi", "cut short")):
        base = Fraction(1, 25) if suffix == ".avi" else Fraction(1, 1000)
        path = video(tmp_path / f"a{suffix}", LONG, options=GOP, size=(48, 64), base=base, noisy=True)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
        assert any(message in note for note in VideoFile(path).notes)
    path = video(tmp_path / "a.mp4", LONG)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="index is missing: the file is cut short"):
        VideoFile(path)


TRUNCATED = {
    ".ts": "libx264", ".m2ts": "mpeg2video", ".mpg": "mpeg2video", ".vob": "mpeg2video", ".wmv": "wmv2",
    ".gif": "gif", ".y4m": "rawvideo", ".mjpeg": "mjpeg", ".nut": "mpeg4", ".mkv": "libx264", ".avi": "mpeg4",
}  # fmt: skip


@pytest.mark.parametrize("suffix", TRUNCATED)
def test_end_is_checked_in_every_container(tmp_path, suffix):
    """The last tenth is missing, which is too little to be noticed by the length in a header."""
    codec, pixels = TRUNCATED[suffix], {".gif": "rgb8", ".mjpeg": "yuvj420p"}.get(suffix, "yuv420p")
    path, options = tmp_path / f"a{suffix}", {"b": "4000000"} if codec == "mpeg2video" else None
    rate = {"base": Fraction(1, 25), "pixels": pixels, "size": (48, 64), "noisy": True}
    video(path, LONG[:30], codec=codec, options=options, **rate)
    assert len(VideoFile(path)) == 30 and not VideoFile(path).notes
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10 // 188 * 188 + 15])
    read = VideoFile(path)
    assert 24 <= len(read) <= 29 and any("cut short" in note for note in read.notes), read.notes


def test_end_is_checked_in_fragments(tmp_path):
    """Recorders write MP4 in fragments, so that a broken recording can be read: its header gives no length."""
    video(tmp_path / "a.mkv", LONG[:30], size=(48, 64), noisy=True, options=GOP)
    path = tmp_path / "a.mp4"
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    with av.open(str(tmp_path / "a.mkv")) as old, av.open(str(path), "w", container_options=fragments) as new:
        stream = new.add_stream_from_template(old.streams.video[0], opaque=True)
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    content = path.read_bytes()
    path.write_bytes(content + bytes(range(1, 200)))  # bytes after the video are no damage
    assert len(VideoFile(path)) == 30 and not VideoFile(path).notes
    path.write_bytes(content[: content.rindex(b"moof") + 20])
    read = VideoFile(path)
    assert len(read) < 30 and any("cut short" in note for note in read.notes), read.notes


def test_end_of_an_animated_png_is_checked(tmp_path):
    path = tmp_path / "a.apng"
    first, *others = (Image.fromarray(array) for array in pictures(6, size=(16, 24)))
    first.save(path, "PNG", save_all=True, append_images=others, duration=40)
    assert len(VideoFile(path)) == 6 and not VideoFile(path).notes
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"fcTL") - 4])  # between two frames
    read = VideoFile(path)
    assert len(read) == 5 and any("cut short" in note for note in read.notes), read.notes


def test_frames_after_damaged_hevc_are_shown(tmp_path):
    """Frames that refer to a lost one are shown with their errors, as players do, not left out up to the next key frame."""
    options = {"x265-params": "log-level=error:keyint=60:asm=0"}
    path = video(tmp_path / "a.mp4", LONG, codec="libx265", options=options, size=(64, 96))
    with av.open(str(path)) as file:
        spot, size = sorted((p.pos, p.size) for p in file.demux(file.streams.video[0]) if p.size)[20]
    content = bytearray(path.read_bytes())
    content[spot : spot + size] = bytes(size)
    path.write_bytes(content)
    read = VideoFile(path)
    assert len(read) >= 58 and read.times[-1] == pytest.approx(59 / 25, abs=1e-3)
    assert any(note.startswith("damaged frames") for note in read.notes)


@pytest.mark.parametrize("name", ["12:30:05.mp4", "http:127.0.0.1:9?x.mp4", "concat:a|b.mp4", "%03d.mp4"])
def test_file_names_are_not_parsed_as_urls(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    video(Path("made.mp4")).rename(name)
    assert len(VideoFile(name)) == 15
    with pytest.raises(InputError, match="no such file"):
        VideoFile("https:example")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.m3u8", "#EXTM3U\n#EXTINF:1,\nmade.mp4\n"),
        ("a.mp4", "#EXTM3U\n#EXTINF:1,\nmade.mp4\n"),
        ("a.mkv", "ffconcat version 1.0\nfile made.mp4\n"),
        ("a.sdp", "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n"),
        ("a.mpd", '<?xml version="1.0"?><MPD></MPD>'),
    ],
)
def test_playlists_are_refused(tmp_path, name, content):
    video(tmp_path / "made.mp4")
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match="is a playlist"):
        VideoFile(tmp_path / name)


def test_formats_that_name_other_files_are_not_opened(tmp_path):
    (tmp_path / "a.mp4").write_text("mpegts\nfile made.mp4\n")
    with pytest.raises(InputError):
        VideoFile(tmp_path / "a.mp4")
    with pytest.raises(av.error.FFmpegError), open_input(tmp_path / "a.mp4"):
        pass


def test_interlaced_frames_are_made_progressive(tmp_path):
    """An interlaced moving bar: even rows at one time, odd rows half a frame later."""
    path, size = tmp_path / "a.mkv", (64, 96)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg2video", rate=25, options={"flags": "+ildct+ilme", "top": "1", "qscale": "2"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.bit_rate = 4_000_000
        graph = av.filter.Graph()
        source = graph.add_buffer(width=96, height=64, format=av.VideoFormat("yuv420p"), time_base=Fraction(1, 25))
        graph.link_nodes(source, graph.add("setfield", "tff"), graph.add("buffersink")).configure()
        for k in range(12):
            array = np.full((*size, 3), 40, np.uint8)
            array[0::2, 6 * k : 6 * k + 12] = 220
            array[1::2, 6 * k + 3 : 6 * k + 15] = 220
            frame = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            graph.push(frame)
            file.mux(stream.encode(graph.pull()))
        file.mux(stream.encode(None))

    def comb(array: np.ndarray) -> float:
        luma = array[..., 1].astype(float)
        return float(np.abs(luma[1:-1] - (luma[:-2] + luma[2:]) / 2).mean())

    read, kept = VideoFile(path), VideoFile(path, deinterlace=False)
    assert len(read) == len(kept) == 12
    assert comb(read.array(5)) < 0.35 * comb(kept.array(5))
    assert "deinterlaced" in read.notes[-1] and "not deinterlaced" in kept.notes[-1]
    again = VideoFile(path).array(7)  # independent of the frames read before
    assert np.array_equal(again, read.array(7)) and np.array_equal(VideoFile(path).array(0), read.array(0))


@pytest.mark.parametrize("order, noted", [("tt", True), ("progressive", False)])
def test_header_that_says_interlaced_of_frames_that_do_not_is_noted(tmp_path, order, noted):
    path = video(tmp_path / "a.mkv", LONG[:3], codec="libx264", options={"field_order": order})
    with av.open(str(path)) as file:
        assert (int(file.streams.video[0].codec_context.field_order) > 1) is noted
    assert any("header says interlaced" in note for note in VideoFile(path).notes) is noted


def test_default_video_stream_is_read_not_the_first(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as file:
        streams = [file.add_stream("libx264", rate=25) for _ in range(2)]
        for stream, side, default in zip(streams, (16, 32), (0, 1), strict=True):
            stream.height, stream.width, stream.pix_fmt = side, side, "yuv420p"
            stream.disposition = default
        for k in range(5):
            for stream in streams:
                array = np.full((stream.height, stream.width, 3), 60, np.uint8)
                frame = av.VideoFrame.from_ndarray(array, format="rgb24")
                frame.pts = k
                file.mux(stream.encode(frame))
        for stream in streams:
            file.mux(stream.encode(None))
    assert VideoFile(path).info.size == (32, 32)


def test_stream_without_times_has_the_rate_of_its_header(tmp_path):
    path = video(tmp_path / "a.h264", LONG[:10], options={"bf": "0"})
    assert VideoFile(path).times == pytest.approx(LONG[:10], abs=1e-6)


@pytest.mark.parametrize("flip", ["hflip", "vflip"])
@pytest.mark.parametrize("turn", [0, 90, 270])
def test_mirroring_and_rotation_flags(tmp_path, turn, flip):
    path, size = tmp_path / "a.mp4", (32, 48)
    array = np.zeros((*size, 3), np.uint8)
    array[:16, :12] = 200
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.set_display_rotation(turn, **{flip: True})
        file.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        file.mux(stream.encode(None))
    expected = np.rot90(array, turn // 90)
    expected = expected[:, ::-1] if flip == "hflip" else expected[::-1]
    read = VideoFile(path).array(0)
    assert read.shape == expected.shape and np.abs(read.astype(int) - expected).mean() < 3


@pytest.mark.parametrize(("orientation", "quarters"), [(1, 0), (6, -1)])
def test_exif_in_the_frames_of_a_video(tmp_path, orientation, quarters):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", orientation
    content = io.BytesIO()
    for array in pictures(3):
        Image.fromarray(array).save(content, "JPEG", quality=100, exif=exif)
    (tmp_path / "camera.mjpeg").write_bytes(content.getvalue())
    file = VideoFile(tmp_path / "camera.mjpeg")
    for k, array in enumerate(pictures(3)):
        assert np.abs(file.array(k) - np.rot90(array, quarters).astype(float)).max() <= 4


def test_quick_reading_equals_thorough_reading(tmp_path):
    path = video(tmp_path / "a.mp4", [0.0, 0.02, 0.1, 0.14, 0.18, 0.26])
    thorough, quick = VideoFile(path), VideoFile(path, quick=True)
    assert quick.table.threads == 0 and thorough.table.threads > 0
    assert quick.times == thorough.times and quick.last_shown == thorough.last_shown
    assert all(np.array_equal(quick.array(k), thorough.array(k)) for k in range(6))


def test_frames_are_those_of_the_source(tmp_path):
    assert same_frames(VideoFile(video(tmp_path / "a.mkv", LONG[:12])), decoded(tmp_path / "a.mkv"))
    assert len(pictures(3)) == 3


@pytest.mark.parametrize(("opacity", "noted"), [(255, False), (100, True)])
def test_transparency_that_is_left_out_is_named(tmp_path, opacity, noted):
    with av.open(str(tmp_path / "a.mov"), "w") as file:
        stream = file.add_stream("qtrle", rate=25)
        stream.height, stream.width, stream.pix_fmt = 16, 24, "argb"
        array = np.full((16, 24, 4), 200, np.uint8)
        array[..., 3] = opacity
        file.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgba").reformat(format="argb")))
        file.mux(stream.encode(None))
    read = VideoFile(tmp_path / "a.mov")
    assert any("transparency" in note for note in read.notes) is noted
    assert (read.array(0) == 200).all()


def test_a_stream_that_begins_in_the_middle(tmp_path):
    path = video(
        tmp_path / "a.flv",
        [k / 25 for k in range(120)],
        base=Fraction(1, 1000),
        sound=["libmp3lame"],
        options={"bf": "2"},
    )
    frames = len(VideoFile(path))
    tag = bytes((8, 0, 0, 5, 0, 4, 0, 0, 0, 0, 0)) + bytes((0x3E, 1, 2, 3, 4))  # sound in another codec
    path.write_bytes(path.read_bytes() + tag + (len(tag)).to_bytes(4, "big"))
    with av.open(str(path)) as file, pytest.raises(IndexError):
        list(file.demux(file.streams.video[0]))
    read = VideoFile(path)
    assert len(read) == frames == 120 and read.array(119).shape == (16, 24, 3)
