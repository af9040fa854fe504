"""Files with several streams: choice of the video stream, titles, flags, cover pictures, overlapping subtitles."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from data.video import VideoFile, join, track_plan
from data.video.containers import CONTAINERS, timing
from data.video.encoding import Encoding
from engine.upscale.timeline import by_steps
from engine.upscale.video_target import VideoTarget
from errors import InputError
from tests.data.video.make import pictures, video
from tests.data.video.test_join import write
from tests.media_info import media_info

Disposition = av.stream.Disposition
TIMES = [k / 25 for k in range(15)]


def assemble(path: Path, parts: Sequence[tuple[Path, str]], texts: Sequence[tuple[int, int, str]] = ()) -> Path:
    """Write a file with one stream of each part, in this order, and subtitles (begin, end, text) in milliseconds."""
    with av.open(str(path), "w") as file:
        sources = [av.open(str(part)) for part, _ in parts]
        origins = [getattr(source.streams, kind)[0] for source, (_, kind) in zip(sources, parts, strict=True)]
        streams = [file.add_stream_from_template(origin, opaque=True) for origin in origins]
        text: Any = None
        if texts:
            text = file.add_stream("srt")
            text.codec_context.subtitle_header = b"[Script Info]\n\n[Events]\n"
            text.time_base = text.codec_context.time_base = Fraction(1, 1000)
            text.metadata.update({"title": "signs", "language": "fra"})
            text.disposition = Disposition.default | Disposition.forced
        for stream in streams[1:]:
            stream.metadata["title"] = "a talk"
        file.start_encoding()
        for begin, end, words in texts:
            packet = av.Packet(words.encode())
            packet.pts, packet.dts, packet.duration = begin, begin, end - begin
            packet.time_base, packet.stream = Fraction(1, 1000), text
            file.mux(packet)
        for source, origin, stream in zip(sources, origins, streams, strict=True):
            for packet in source.demux(origin):
                if packet.size:
                    packet.stream = stream
                    file.mux(packet)
            source.close()
    return path


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_no_frame_is_lost_if_the_video_is_not_the_first_stream(tmp_path, suffix):
    plain = video(tmp_path / "plain.mkv", TIMES, sound=["aac"])  # with B-frames the decoder delays some frames
    read = VideoFile(assemble(tmp_path / f"in{suffix}", [(plain, "audio"), (plain, "video")]))
    assert read.info.stream == 1 and len(read) == 15
    last = VideoFile(plain).array(14).astype(int)
    assert np.abs(read.array(14) - last).max() == 0


def test_other_video_stream_is_named(tmp_path):
    small, large = video(tmp_path / "a.mkv", TIMES), video(tmp_path / "b.mkv", TIMES, size=(32, 48))
    with av.open(str(assemble(tmp_path / "in.mkv", [(small, "video"), (large, "video")]))) as file:
        chosen = file.streams.best("video").index
    read = VideoFile(tmp_path / "in.mkv")
    assert read.info.stream == chosen and len(read) == 15
    notes = track_plan.plan(read.path, chosen, tmp_path / "out.mkv", read.start).notes
    assert notes == (
        f"video stream {1 - chosen} (h264) is left out: one video stream is upscaled, the one that players choose",
    )


def subtitles(path: Path) -> list[tuple[float, float, str]]:
    """(begin, end, text) of the first track, without the empty packets of MP4."""
    found = []
    with av.open(str(path)) as file:
        for packet in file.demux(file.streams.subtitles[0]):
            begin, length = (float((units or 0) * packet.time_base) for units in (packet.pts, packet.duration))
            words = bytes(packet)[2:] if path.suffix in (".mp4", ".mov") else bytes(packet)
            found += [(begin, begin + length, words.decode())] if words else []
    return found


@pytest.mark.parametrize("result", [".mp4", ".mov", ".webm", ".mkv"])
def test_overlapping_subtitles_keep_their_times(tmp_path, result):
    texts = [(0, 400, "one"), (200, 500, "two"), (500, 550, "three"), (500, 600, "four")]
    source = VideoFile(assemble(tmp_path / "in.mkv", [(video(tmp_path / "a.mkv", TIMES), "video")], texts))
    out = write(tmp_path / f"out{result}", source.times, source.info.fps, source)
    joined = [(0, 200, "one"), (200, 400, "one\ntwo"), (400, 500, "two"), (500, 550, "three\nfour"), (550, 600, "four")]
    expected = joined if result in (".mp4", ".mov") else texts
    assert subtitles(out) == [(pytest.approx(a / 1000), pytest.approx(b / 1000), words) for a, b, words in expected]


def with_titles(path: Path) -> Path:
    """A video with sound and forced subtitles that have titles."""
    plain = video(path.with_name("plain.mkv"), TIMES, sound=["aac"])
    return assemble(path, [(plain, "video"), (plain, "audio")], [(0, 400, "one")])


def dispositions(path: Path) -> list[int]:
    with av.open(str(path)) as file:
        return [int(stream.disposition) for stream in file.streams]


def titles(path: Path) -> list[str]:
    with av.open(str(path)) as file:
        found = [stream.metadata for stream in file.streams][1:]
    return [tags.get("title", tags.get("handler_name", "")) for tags in found]


@pytest.mark.parametrize("result", [".mp4", ".mov", ".mkv"])
def test_titles_of_tracks_are_kept(tmp_path, result):
    source = VideoFile(with_titles(tmp_path / "in.mkv"))
    out = write(tmp_path / f"out{result}", source.times, source.info.fps, source)
    assert sorted(titles(out)) == ["a talk", "signs"]
    again = VideoFile(out)
    back = write(tmp_path / "back.mkv", again.times, again.info.fps, again)
    assert sorted(titles(back)) == ["a talk", "signs"]


def test_flags_are_kept_or_named(tmp_path):
    source = VideoFile(assemble(tmp_path / "in.mkv", [(video(tmp_path / "a.mkv", TIMES), "video")], [(0, 400, "one")]))
    for suffix, kept in ((".mp4", True), (".mkv", True), (".webm", True), (".mov", False)):
        out = write(tmp_path / f"out{suffix}", source.times, source.info.fps, source)
        with av.open(str(out)) as file:
            assert bool(file.streams.subtitles[0].disposition & Disposition.forced) is kept
        notes = track_plan.plan(source.path, 0, out, source.start).notes
        assert any("the flag forced of subtitles stream 1 (srt, fra)" in note for note in notes) is not kept


def with_cover(path: Path) -> bytes:
    """Make a video with a cover picture. Returns the picture, a PNG file."""
    plain, cover = video(path.with_name("plain.mkv"), TIMES), path.with_name("cover.png")
    with av.open(str(cover), "w", format="image2") as file:
        stream = file.add_stream("png", rate=1)
        stream.height, stream.width, stream.pix_fmt = 8, 8, "rgb24"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(pictures(1, size=(8, 8))[0], format="rgb24")))
        file.mux(stream.encode(None))
    with av.open(str(plain)) as old, av.open(str(path), "w") as new:
        shown = new.add_stream_from_template(old.streams.video[0], opaque=True)
        if path.suffix == ".mkv":
            new.add_attachment("cover.png", "image/png", cover.read_bytes())
        else:
            with av.open(str(cover)) as file:
                stream = new.add_stream_from_template(file.streams.video[0], opaque=True)
                stream.disposition = int(Disposition.attached_pic)
                packet = next(file.demux(video=0))
                packet.stream = stream
                new.mux(packet)
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = shown
                new.mux(packet)
    return cover.read_bytes()


def covers(path: Path) -> list[bytes]:
    with av.open(str(path)) as file:
        found = [stream for stream in file.streams if int(stream.disposition) & int(Disposition.attached_pic)]
        return [bytes(next(file.demux(stream))) for stream in found]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_with_a_cover_picture_is_no_video(tmp_path, suffix):
    with_cover(tmp_path / "covered.mp4")
    with av.open(str(tmp_path / "covered.mp4")) as old, av.open(str(tmp_path / f"song{suffix}"), "w") as song:
        sound = song.add_stream("aac", rate=48000)
        if suffix == ".mkv":
            song.add_attachment("cover.png", "image/png", (tmp_path / "cover.png").read_bytes())
        else:
            cover = next(stream for stream in old.streams if int(stream.disposition) & int(Disposition.attached_pic))
            copied = song.add_stream_from_template(cover, opaque=True)
            copied.disposition = cover.disposition
            packet = next(old.demux(cover))
            packet.stream = copied
            song.mux(packet)
        quiet = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        quiet.sample_rate = 48000
        song.mux([*sound.encode(quiet), *sound.encode(None)])
    with pytest.raises(InputError, match=r"song.*: holds no video stream, only sound with a cover picture"):
        VideoFile(tmp_path / f"song{suffix}")


@pytest.mark.parametrize("result", [".mp4", ".mkv", ".mov", ".webm"])
@pytest.mark.parametrize("origin", [".mp4", ".mkv"])
def test_cover_pictures_are_kept_or_named(tmp_path, origin, result):
    picture = with_cover(tmp_path / f"in{origin}")
    source = VideoFile(tmp_path / f"in{origin}")
    out = write(tmp_path / f"out{result}", source.times, source.info.fps, source)
    assert len(media_info(out).times) == 15
    assert covers(out) == ([picture] if result in (".mp4", ".mkv") else [])
    notes = track_plan.plan(source.path, 0, out, source.start).notes
    assert any("cover picture" in note for note in notes) is (not covers(out))


SHAPES = [(suffix, codec) for suffix, container in CONTAINERS.items() for codec in container.codecs]


@pytest.mark.parametrize(("suffix", "codec"), SHAPES)
def test_pixel_shape_is_kept_or_named(tmp_path, suffix, codec):
    """The header that stores it remains valid for a second reader: all frames, tracks and languages."""
    path = video(tmp_path / "in.mkv", TIMES, sound=["aac", "aac"], languages=["deu", "jpn"])
    source, out = VideoFile(path), tmp_path / f"out{suffix}"
    encoding = Encoding(codec, aspect=Fraction(16, 15), b_frames=suffix != ".avi")
    origin = join.Source(source, track_plan.plan(path, source.info.stream, out, source.start))
    join.rehearse(out, encoding, (64, 96), origin)
    join.write_piece(tmp_path / "0.mkv", pictures(15, size=(64, 96)), encoding, Fraction(25))
    join.join(out, [tmp_path / "0.mkv"], encoding, timing(out, source.times, 0.04, Fraction(25)), origin)
    found = media_info(out)
    assert len(found.times) == 15 and found.size == (64, 96)
    assert [track[2] for track in found.streams[1:3]] == ([""] * 2 if suffix == ".avi" else ["deu", "jpn"])
    lost = (f"left out ({codec} cannot carry it): the pixel shape 16:15",)
    is_lost = suffix == ".avi" and codec != "h264"
    assert (found.aspect == pytest.approx(16 / 15, abs=1e-3)) is not is_lost
    line = by_steps(source.times, (), 0.04, Fraction(25))
    assert VideoTarget(out, encoding, join.Source(source)).notes(line) == (lost if is_lost else ())


@pytest.mark.parametrize(
    ("pixels", "bits", "expected"), [("yuv444p12le", 10, 12), ("yuv444p12le", 8, 12), ("yuv420p", 8, 0)]
)
def test_depth_that_is_lost_is_named(tmp_path, pixels, bits, expected):
    source = VideoFile(video(tmp_path / "a.mkv", TIMES[:2], codec="ffv1", pixels=pixels, options={"strict": "-2"}))
    line = by_steps(source.times, (), 0.04, Fraction(25))
    notes = VideoTarget(tmp_path / "a.mp4", Encoding("h265", bits=bits), join.Source(source)).notes(line)
    assert notes == ((f"{expected} bits of each value become {bits}",) if expected else ())


@pytest.mark.parametrize("result", [".mp4", ".mov", ".mkv", ".webm", ".avi"])
def test_every_flag_of_sound_is_kept_or_named(tmp_path, result):
    plain = video(tmp_path / "plain.mkv", TIMES, sound=["aac"] * 6)
    flags = list(track_plan.FLAGS)
    path = tmp_path / "in.mkv"
    with av.open(str(plain)) as old, av.open(str(path), "w") as new:
        streams = [new.add_stream_from_template(stream, opaque=True) for stream in old.streams]
        for stream, flag in zip(streams[1:], flags, strict=True):
            stream.disposition = int(track_plan.FLAGS[flag])
        for packet in old.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                new.mux(packet)
    before = dispositions(path)
    source = VideoFile(path)
    out = write(tmp_path / f"out{result}", source.times, source.info.fps, source)
    notes = " ".join(track_plan.plan(source.path, 0, out, source.start).notes)
    for number, flag in enumerate(flags, 1):
        if before[number] & int(track_plan.FLAGS[flag]):  # Matroska has no flag for dubbed sound
            kept = bool(dispositions(out)[number] & int(track_plan.FLAGS[flag]))
            assert (f"the flag {flag} of sound stream {number}" in notes) is not kept, flag
