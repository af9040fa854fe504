"""Videos whose pixel format or sound changes in mid-stream, and tracks and tags that depend on the part or the rate."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data.video import VideoFile, join, metadata, track_plan
from data.video.containers import timing
from data.video.convert import USUAL_LAYOUTS, _layout
from data.video.encoding import Encoding
from data.video.metadata import later_timecode
from engine.upscale.timeline import by_steps
from engine.upscale.video_target import VideoTarget
from tests.data.video.make import pictures, video
from tests.data.video.test_join import write
from tests.data.video.test_streams import assemble
from tests.media_info import media_info

TIMES = [k / 25 for k in range(15)]
NTSC = Fraction(30000, 1001)


def jpeg(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(array).save(content, "JPEG", quality=95)
    return content.getvalue()


def test_grey_first_frames_do_not_make_all_grey(tmp_path):
    """As of cameras at dawn."""
    colours = np.kron(np.random.default_rng(0).integers(0, 255, (2, 3, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    path = tmp_path / "a.mjpeg"
    path.write_bytes(b"".join([jpeg(colours[..., 0])] * 2 + [jpeg(colours)] * 3))
    read = VideoFile(path)
    assert read.info.channels == 3 and np.ptp(read.array(0), axis=2).max() == 0
    assert np.abs(read.array(4).astype(int) - colours).mean() < 5


def test_deeper_frames_later_keep_their_depth(tmp_path):
    eight = video(tmp_path / "a.ts", TIMES[:5], options={"bf": "0"})
    ten = video(tmp_path / "b.ts", TIMES[:5], pixels="yuv420p10le", options={"bf": "0"})
    (tmp_path / "c.ts").write_bytes(eight.read_bytes() + ten.read_bytes())
    read = VideoFile(tmp_path / "c.ts")
    assert read.info.bits == 10 and read.array(0).dtype == read.array(9).dtype == np.uint16


def broadcast(path: Path, layout: str) -> bytes:
    """A transport stream of 0.8 s with AC-3."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg2video", rate=25)
        stream.height, stream.width, stream.pix_fmt = 16, 32, "yuv420p"
        track = file.add_stream("ac3", rate=48_000, layout=layout)
        for k, array in enumerate(pictures(20, size=(16, 32))):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        for k in range(25):
            channels = len(track.codec_context.layout.channels)
            frame = av.AudioFrame.from_ndarray(np.zeros((channels, 1536), np.float32), format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = 48_000, 1536 * k, Fraction(1, 48_000)
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize(("first", "second"), [("stereo", "5.1"), ("5.1", "stereo")])
def test_sound_that_changes_its_channels_is_converted(tmp_path, first, second):
    path = tmp_path / "a.ts"
    path.write_bytes(broadcast(tmp_path / "1.ts", first) + broadcast(tmp_path / "2.ts", second))
    source = VideoFile(path)
    out = write(tmp_path / "a.webm", source.times, source.info.fps, source)
    with av.open(str(out)) as file:
        length = sum(frame.samples for frame in file.decode(audio=0)) / 48_000
    assert length == pytest.approx(1.6, abs=0.06)


@pytest.mark.parametrize("encoder", USUAL_LAYOUTS)
def test_every_layout_of_loudspeakers_can_be_encoded(encoder):
    for name in (
        "mono",
        "stereo",
        "3.0",
        "4.0",
        "quad",
        "quad(side)",
        "5.0",
        "5.1(side)",
        "6.1",
        "7.1",
        *USUAL_LAYOUTS["aac"],
    ):
        try:
            layout = av.AudioLayout(name)
        except ValueError:  # not known to this version of FFmpeg
            continue
        context = av.CodecContext.create(encoder, "w")
        context.sample_rate, context.format, context.bit_rate = (
            48_000,
            "flt" if encoder == "libopus" else "fltp",
            96_000,
        )
        context.layout = _layout(encoder, layout)
        context.open()
        assert len(context.layout.channels) >= len(layout.channels), name


def test_sound_that_cannot_be_decoded_is_named(tmp_path):
    path, plain = tmp_path / "a.mkv", video(tmp_path / "plain.mkv", TIMES, sound=["flac"])
    with av.open(str(plain)) as source, av.open(str(path), "w") as file:
        streams = [file.add_stream_from_template(stream, opaque=True) for stream in source.streams]
        for packet in source.demux():
            if packet.size:
                made = av.Packet(bytes(packet.size)) if packet.stream_index else packet
                made.pts, made.dts, made.time_base = packet.pts, packet.dts, packet.time_base
                made.stream = streams[packet.stream_index]
                file.mux(made)
    plan = track_plan.plan(path, 0, tmp_path / "a.webm", 0.0)
    assert plan.tracks == () and plan.notes == ("sound stream 1 (flac) is left out: it cannot be decoded",)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_subtitles_of_a_part_are_cut_to_it(tmp_path, suffix):
    """A text that is shown at the begin of the part does not delay the pictures."""
    plain = video(tmp_path / "plain.mkv", TIMES, options={"bf": "0"})
    path = assemble(tmp_path / "a.mkv", [(plain, "video")], [(0, 250, "one"), (250, 580, "two")])
    source, out = VideoFile(path), tmp_path / f"out{suffix}"
    encoding = Encoding("h264").like(source)
    part = join.Source(source, track_plan.plan(path, source.info.stream, out, source.start), begin=0.2, end=0.4)
    join.write_piece(tmp_path / "p.mkv", pictures(15)[5:10], encoding, Fraction(25))
    join.join(out, [tmp_path / "p.mkv"], encoding, timing(out, TIMES[:5], 0.04, Fraction(25)), part)
    assert media_info(out).times[0] == pytest.approx(0, abs=1e-3)
    with av.open(str(out)) as file:
        packets = [packet for packet in file.demux(file.streams.subtitles[0]) if packet.size > 2]
        shown = [(float(p.pts * p.time_base), float((p.pts + p.duration) * p.time_base)) for p in packets]
    assert shown == [pytest.approx((0, 0.05), abs=2e-3), pytest.approx((0.05, 0.2), abs=2e-3)]


@pytest.mark.parametrize(
    ("code", "frames", "fps", "expected"),
    [
        ("01:00:00:10", 40, Fraction(25), "01:00:02:00"),
        ("23:59:59:24", 1, Fraction(25), "00:00:00:00"),
        ("01:00:00;02", 6, NTSC, "01:00:00;08"),
        ("00:00:59;28", 2, NTSC, "00:01:00;02"),
        ("00:09:59;28", 2, NTSC, "00:10:00;00"),
        ("00:00:00;00", 107_892, NTSC, "01:00:00;00"),
        ("00:00:59;59", 1, 2 * NTSC, "00:01:00;04"),
        ("01:02:03:4", 10, Fraction(10), "01:02:04:04"),  # as FFmpeg writes it below 11 frames per second
        ("reel 5", 1, NTSC, None),
    ],
)
def test_later_timecode(code, frames, fps, expected):
    """SMPTE ST 12-1: an hour at 29.97 frames per second has 107,892 frames."""
    assert later_timecode(code, frames, fps) == expected


@pytest.mark.parametrize("suffix", [".mov", ".mkv"])
def test_timecode_is_that_of_the_first_frame_or_left_out(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    with av.open(str(video(tmp_path / "plain.mkv", TIMES))) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0], opaque=True)
        stream.metadata["timecode"] = "10:00:00:20"
        stream.codec_context.framerate = 25
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    source, encoding = VideoFile(path), Encoding("h264")
    assert source.info.timecode == "10:00:00:20"
    origin = join.Source(source, begin=0.2)
    join.write_piece(tmp_path / "p.mkv", pictures(10), encoding, Fraction(25))
    out = tmp_path / f"out{suffix}"
    join.join(out, [tmp_path / "p.mkv"], encoding, timing(out, TIMES[:10], 0.04, Fraction(25)), origin)
    assert VideoFile(out).info.timecode == "10:00:01:00"
    same, dense = by_steps(TIMES, (), 0.04, Fraction(25)), by_steps(TIMES, (0.5,), 0.04, Fraction(25))
    target = VideoTarget(out, encoding, join.Source(source))
    assert target.notes(same) == () and target.notes(dense) == ("left out (the frame rate changes): the timecode",)
    in_avi = replace(target, path=tmp_path / "a.avi").notes(same)
    assert in_avi == ("left out (.avi cannot hold it): the timecode",)


def test_tags_without_their_pictures_are_left_out(tmp_path):
    assert metadata.tags({"alpha_mode": "1", "ALPHA_MODE": "1", "title": "a"}) == {"title": "a"}
    path = tmp_path / "a.mkv"
    with av.open(str(video(tmp_path / "plain.mkv", TIMES[:3]))) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0], opaque=True)
        stream.metadata["stereo_mode"] = "left_right"
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    source, line = VideoFile(path), by_steps(TIMES[:3], (), 0.04, Fraction(25))
    with av.open(str(write(tmp_path / "b.mkv", TIMES[:3], Fraction(25), source))) as file:
        assert file.streams.video[0].metadata["stereo_mode"] == "left_right"
    notes = {s: VideoTarget(Path(f"b{s}"), Encoding("h264"), join.Source(source)).notes(line) for s in (".mkv", ".mp4")}
    assert notes == {".mkv": (), ".mp4": ("left out (h264 cannot carry it): the 3D layout",)}
