"""Subtitles, chapters, locations, HDR metadata and several tracks of a video are preserved."""

from __future__ import annotations

import struct
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from data.video import VideoFile, join, track_plan
from data.video.clock import Stretch
from data.video.containers import default_codec, timing, vp9_is_deep
from data.video.encoding import Encoding
from data.video.hdr import Light, Mastering
from data.video.metadata import Placement
from errors import InputError
from tests.data.video.make import FLASH, flash_time, pictures, video
from tests.data.video.test_join import write
from tests.media_info import differences, media_info, onset, sound


def test_converted_sound_stays_in_sync_after_lost_packets(tmp_path):
    """Each lost packet of 21 ms becomes silence; gaps below FFmpeg's limit of 0.1 s add up otherwise."""
    source = video(tmp_path / "in.mp4", sound=["aac"])
    content = bytearray(source.read_bytes())
    with av.open(str(source)) as file:
        packets = [(packet.pos, packet.size) for packet in file.demux(file.streams.audio[0]) if packet.size]
    for number in (4, 8, 12):
        begin, size = packets[number]
        content[begin : begin + size] = bytes(size)
    source.write_bytes(content)
    out = write(tmp_path / "out.webm", [k / 25 for k in range(15)], Fraction(25), VideoFile(source))
    assert onset(out) - flash_time(out) == pytest.approx(onset(source) - FLASH, abs=2e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi"])
def test_sound_of_avi_is_moved_by_less_than_a_packet(tmp_path, suffix):
    """The picture begins 40 ms late because of B-frames; AVI's times of MP3 are multiples of 24 ms."""
    times = [k / 25 for k in range(15)]
    options = {"bf": "2", "flags": "+bitexact"}
    source = video(
        tmp_path / "in.avi", times, codec="mpeg4", base=Fraction(1, 25), sound=["libmp3lame"], options=options
    )
    out = write(tmp_path / f"out{suffix}", times, Fraction(25), VideoFile(source))
    assert onset(out) - media_info(out).times[0] == pytest.approx(onset(source) - VideoFile(source).start, abs=2e-3)


WORDS = [(0.0, 0.2, "first line"), (0.2, 0.5, "second\nline")]


def with_everything(path: Path) -> Path:
    """Two sound tracks, the second is the default; subtitles in German; chapters; a title and a location."""
    plain = video(path.with_name("plain.mp4"), sound=["aac", "aac"], languages=["deu", "eng"])
    with av.open(str(plain)) as source, av.open(str(path), "w") as file:
        streams = {}
        for stream in source.streams:
            streams[stream.index] = file.add_stream_from_template(stream, opaque=True)
            streams[stream.index].metadata.update(stream.metadata)
        streams[1].disposition, streams[2].disposition = 0, 1
        text = file.add_stream("mov_text" if path.suffix in (".mp4", ".mov") else "srt")
        text.codec_context.subtitle_header = (
            b"[Script Info]\n\n[V4+ Styles]\nFormat: Name\nStyle: Default\n\n[Events]\n"
        )
        text.time_base = text.codec_context.time_base = Fraction(1, 1000)
        text.metadata["language"] = "deu"
        file.metadata.update({"title": "a title", "location": "+47.3769+008.5417/"})
        full = {"id": 0, "start": 0, "end": 300, "time_base": Fraction(1, 1000), "metadata": {"title": "one"}}
        file.set_chapters([full, {**full, "id": 1, "start": 300, "end": 600, "metadata": {"title": "two"}}])
        file.start_encoding()
        for begin, end, words in WORDS:
            payload = words.encode()
            packet = av.Packet(
                len(payload).to_bytes(2, "big") + payload if path.suffix in (".mp4", ".mov") else payload
            )
            packet.pts = packet.dts = round(begin * 1000)
            packet.duration, packet.time_base, packet.stream = round((end - begin) * 1000), Fraction(1, 1000), text
            file.mux(packet)
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                file.mux(packet)
    return path


def subtitles(path: Path) -> list[tuple[float, str]]:
    found = []
    with av.open(str(path)) as file:
        stream = file.streams.subtitles[0]
        for packet in file.demux(stream):
            for sub in packet.decode() if packet.size else ():
                words = sub.dialogue.decode().replace("\\N", "\n").strip()
                found += [(float(packet.pts * packet.time_base), words)] if words else []
    return found


@pytest.mark.parametrize("result", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize("origin", [".mp4", ".mkv"])
def test_tracks_subtitles_chapters_and_location(tmp_path, origin, result):
    source = VideoFile(with_everything(tmp_path / f"in{origin}"))
    out = write(tmp_path / f"out{result}", source.times, source.info.fps, source)
    lost = differences(source.path, out)
    if result in (".mp4", ".mov"):  # players of these formats show the only subtitles of a file by default
        lost = [line for line in lost if not line.startswith("subtitle [('deu', False)], now [('deu', True)]")]
    assert lost == []
    start = media_info(out).times[0]
    assert subtitles(out) == [(pytest.approx(start + begin, abs=0.01), words) for begin, _, words in WORDS]
    assert [chapter[:2] for chapter in media_info(out).chapters] == [(0.0, 0.3), (0.3, 0.6)]


def test_tracks_omitted_from_avi_are_named_in_one_line(tmp_path):
    source = VideoFile(with_everything(tmp_path / "in.mkv"))
    plan = track_plan.plan(source.path, source.info.stream, tmp_path / "a.avi", source.start)
    left = [note for note in plan.notes if note.startswith("left out")]
    assert len(left) == 1 and all(word in left[0] for word in ("subtitles", "chapters", "metadata (LOCATION)"))


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("maker", ["com.apple.quicktime.make", "com.android.manufacturer"])
def test_metadata_of_phones_is_kept_in_mp4_and_mov(tmp_path, maker, suffix):
    found = {maker: "A", "title": "T", "com.apple.quicktime.location.ISO6709": "+47.3769+008.5417/"}
    source = VideoFile(remuxed(video(tmp_path / "plain.mp4"), tmp_path / "in.mov", found))
    out = write(tmp_path / f"out{suffix}", source.times, source.info.fps, source)
    assert track_plan.plan(source.path, 0, out, source.start).notes == ()
    has = media_info(out).metadata
    assert found.items() <= has.items() and has["location"].startswith("+47.3769+008.5417")


def test_metadata_that_a_container_cannot_hold_is_named(tmp_path):
    found = {"title": "T", "PURL": "x", "SYNOPSIS": "s", "DATE_RECORDED": "2020"}
    source = VideoFile(remuxed(video(tmp_path / "plain.mp4"), tmp_path / "in.mkv", found))
    for suffix, lost in (
        (".mkv", []),
        (".mp4", ["purl", "date_recorded"]),
        (".mov", ["purl", "synopsis", "date_recorded"]),
    ):
        plan = track_plan.plan(source.path, 0, tmp_path / f"out{suffix}", source.start)
        named = plan.notes[0].partition("metadata (")[2].rstrip(")").split(", ") if plan.notes else []
        assert sorted(named) == sorted(lost)
        out = write(tmp_path / f"out{suffix}", source.times, source.info.fps, source)
        has = {key.lower() for key in media_info(out).metadata}
        assert {key.lower() for key in found} - has == set(lost)


def remuxed(path: Path, result: Path, metadata: dict[str, str]) -> Path:
    """The video with other metadata; .mov has the keys as phones write them."""
    options = {"movflags": "use_metadata_tags"} if result.suffix == ".mov" else {}
    with av.open(str(path)) as source, av.open(str(result), "w", container_options=options) as file:
        stream = file.add_stream_from_template(source.streams[0], opaque=True)
        file.metadata.update(metadata)
        for packet in source.demux():
            if packet.size:
                packet.stream = stream
                file.mux(packet)
    return result


def test_time_range_of_a_video_has_the_sound_of_that_range(tmp_path):
    source = VideoFile(video(tmp_path / "in.mp4", [k / 25 for k in range(25)], sound=["aac"]))
    encoding = Encoding("h264").like(source)
    for suffix in (".mp4", ".mkv"):
        out = tmp_path / f"out{suffix}"
        plan = track_plan.plan(source.path, 0, out, source.start)
        part = join.Source(source, plan, begin=0.2, end=0.8)
        frames = pictures(25, 10)[5:20]
        join.write_piece(tmp_path / "p.mkv", frames, encoding, Fraction(25))
        shown = timing(out, [k / 25 for k in range(15)], 0.04, Fraction(25))
        join.join(out, [tmp_path / "p.mkv"], encoding, shown, part)
        assert onset(out) - flash_time(out) == pytest.approx(0, abs=0.03)
        assert flash_time(out) == pytest.approx(FLASH - 0.2, abs=0.03)
        assert media_info(out).duration == pytest.approx(0.6, abs=0.05)


def test_sound_of_joined_streams_stays_in_sync(tmp_path):
    one = video(tmp_path / "one.ts", sound=["aac"])
    (tmp_path / "two.ts").write_bytes(one.read_bytes() * 2)
    source = VideoFile(tmp_path / "two.ts")
    assert len(source) == 30
    out = write(tmp_path / "out.mp4", source.times, source.info.fps, source)
    assert onset(out) == pytest.approx(flash_time(out), abs=0.04)
    samples, rate, start = sound(out)
    second = source.times[15]  # start of the second part, which is silent for FLASH seconds
    loud = np.abs(samples[round((second + 0.15 - start) * rate) :]) > 0.1
    assert second + 0.15 + int(np.argmax(loud)) / rate == pytest.approx(second + FLASH, abs=0.06)


def test_placement():
    place = Placement([Stretch(0, 1.5, -1.5), Stretch(10, 0.0, 0.4)], begin=0.2)
    assert place(1.7) == pytest.approx(0.0) and place(0.1, 1) == pytest.approx(0.3)


LIGHT = Light(
    Mastering(
        tuple(Fraction(n, 50_000) for n in (34_000, 16_000, 13_250, 34_500, 7_500, 3_000)),
        (Fraction(15_635, 50_000), Fraction(16_450, 50_000)),
        (Fraction(50, 10_000), Fraction(1_000)),
    ),
    (1000, 400),
)


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_hdr_side_data_is_carried(tmp_path, codec):
    encoding = Encoding(codec, bits=10, light=LIGHT)
    frames = [frame.astype(np.uint16) * 257 for frame in pictures(3, size=(32, 48))]
    for name in ("a.mp4", "a.mkv"):
        join.write_piece(tmp_path / "p.mkv", frames, encoding, Fraction(25))
        shown = timing(tmp_path / name, [0.0, 0.04, 0.08], 0.04, Fraction(25))
        join.join(tmp_path / name, [tmp_path / "p.mkv"], encoding, shown, None)
        read = VideoFile(tmp_path / name).info.light
        assert read == LIGHT
        assert struct.unpack("II", media_info(tmp_path / name).light["CONTENT_LIGHT_LEVEL"][:8]) == (1000, 400)


@pytest.mark.parametrize(("tags", "bits"), [((9, 16, 9, 1), 10), ((9, 18, 9, 1), 10), ((12, 1, 1, 1), 8), ((5, 5, 5, 1), 8),
                                            ((1, 13, 1, 2), 8), ((2, 2, 2, 0), 8)])  # fmt: skip
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_colour_tags_are_those_of_the_source(tmp_path, suffix, tags, bits):
    pixels = "yuv420p10le" if bits == 10 else "yuv420p"
    source = VideoFile(video(tmp_path / "in.mkv", [0.0, 0.04, 0.08], pixels=pixels, colour=tags))
    out = tmp_path / f"out{suffix}"
    if suffix == ".webm" and bits == 10 and not vp9_is_deep():
        with pytest.raises(InputError, match=r"holds 8 bits here.*write \.mkv"):
            default_codec(out, bits, False)
        return
    codec = default_codec(out, bits, False)
    encoding = Encoding(codec, bits=bits).like(source)
    join.write_piece(tmp_path / "p.mkv", [source.array(k) for k in range(3)], encoding, Fraction(25))
    join.join(out, [tmp_path / "p.mkv"], encoding, timing(out, source.times, 0.04, Fraction(25)), join.Source(source))
    assert [line for line in differences(source.path, out) if not line.startswith("times")] == []
    if tags[0] == 2:  # no tag is added if the size implies the same matrix
        assert list(media_info(out).colour.values())[:3] == [2, 2, 2]


def packets_of(path: Path, kind: str = "audio") -> list[bytes]:
    with av.open(str(path)) as file:
        return [bytes(packet) for packet in file.demux(getattr(file.streams, kind)[0]) if packet.size]


def with_tone(path: Path, encoder: str, samples: int) -> Path:
    """A video with a tone of 0.6 s, `samples` in a packet."""
    plain = video(path.with_name("plain.mkv"), options={"bf": "0"})
    with av.open(str(plain)) as source, av.open(str(path), "w") as file:
        pictures_of = file.add_stream_from_template(source.streams.video[0], opaque=True)
        track = file.add_stream(encoder, rate=48_000, layout="stereo")
        track.codec_context.format = "s16"
        graph = av.filter.Graph()
        tone = graph.add("sine", "frequency=600:sample_rate=48000:duration=0.6")
        shape = graph.add("aformat", "sample_fmts=s16:channel_layouts=stereo")
        graph.link_nodes(tone, shape, graph.add("abuffersink")).configure()
        track.open()
        graph.set_audio_frame_size(samples)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = pictures_of
                file.mux(packet)
        with suppress(av.error.EOFError):
            while True:
                file.mux(track.encode(graph.pull()))
        file.mux(track.encode(None))
    return path


def test_packets_that_share_a_millisecond_are_all_copied(tmp_path):
    source = VideoFile(with_tone(tmp_path / "in.mkv", "pcm_s16le", 40))  # 1,200 packets a second, as TrueHD has
    out = write(tmp_path / "out.mkv", source.times, source.info.fps, source)
    assert packets_of(out) == packets_of(source.path)
    assert len(packets_of(out)) > 600


def test_tta_becomes_flac_with_the_same_samples(tmp_path):
    source = VideoFile(with_tone(tmp_path / "in.mkv", "tta", 1024))
    out = write(tmp_path / "out.mkv", source.times, source.info.fps, source)
    assert media_info(out).streams[1][1] == "flac"
    before, after = sound(source.path)[0], sound(out)[0]
    assert np.abs(before).max() > 0.05 and np.array_equal(before, after)


@pytest.mark.parametrize("result", [".mp4", ".webm", ".mkv"])
def test_style_codes_do_not_appear_as_text(tmp_path, result):
    plain = video(tmp_path / "plain.mkv", options={"bf": "0"})
    path = tmp_path / "in.mkv"
    with av.open(str(plain)) as source, av.open(str(path), "w") as file:
        shown = file.add_stream_from_template(source.streams.video[0], opaque=True)
        text = file.add_stream("srt")
        text.codec_context.subtitle_header = b"[Script Info]\n\n[Events]\n"
        text.time_base = text.codec_context.time_base = Fraction(1, 1000)
        file.start_encoding()
        packet = av.Packet(b"{\\an8}<i>up\\hhere</i>\nbelow")
        packet.pts = packet.dts = 0
        packet.duration, packet.time_base, packet.stream = 300, Fraction(1, 1000), text
        file.mux(packet)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = shown
                file.mux(packet)
    source = VideoFile(path)
    out = write(tmp_path / f"out{result}", source.times, source.info.fps, source)
    if result == ".mkv":
        assert packets_of(out, "subtitles") == packets_of(path, "subtitles")
    else:
        stored = packets_of(out, "subtitles")[0]
        assert stored[2 if result == ".mp4" else 0 :].decode().replace("\xa0", " ") == "up here\nbelow"


@pytest.mark.parametrize("result", [".mkv", ".mp4"])
def test_damaged_packets_of_sound_are_left_out(tmp_path, result):
    path = video(tmp_path / "in.ts", [k / 25 for k in range(40)], sound=["aac"])
    content, count = bytearray(path.read_bytes()), len(packets_of(path))
    with av.open(str(path)) as file:
        headers = [bytes(packet)[:7] for packet in file.demux(audio=0) if packet.size]
    place = content.find(headers[20])
    content[place : place + 7] = bytes(7)
    path.write_bytes(content)
    source = VideoFile(path)
    out = write(tmp_path / f"out{result}", source.times, source.info.fps, source)
    assert len(media_info(out).times) == 40
    assert count - 4 <= len(packets_of(out)) < count
    assert onset(out) == pytest.approx(flash_time(out), abs=0.03)


def test_chapter_titles_of_mp4_are_no_lost_stream(tmp_path):
    path = with_everything(tmp_path / "in.mp4")
    with av.open(str(path)) as file:
        assert any(stream.type == "data" for stream in file.streams)
    assert track_plan.plan(path, 0, tmp_path / "out.mp4", 0.0).notes == ()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_sound_without_content_is_left_out_and_named(tmp_path, suffix):
    """A transport stream announces a track of sound whose packets are missing, as recordings of broadcasts do."""
    source = tmp_path / "a.ts"
    with av.open(str(source), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound_stream = file.add_stream("aac", rate=44100)
        for number, picture in enumerate(pictures(4)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:48, :64]))
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        tone.sample_rate, tone.pts = 44100, 0
        file.mux(sound_stream.encode(tone))
        file.mux(sound_stream.encode())
    data = bytearray(source.read_bytes())
    for packet in range(0, len(data), 188):
        if (data[packet + 1] & 0x1F, data[packet + 2]) == (1, 1):  # FFmpeg's second stream
            data[packet + 1 : packet + 3] = b"\x1f\xff"  # padding
    source.write_bytes(data)
    video_file = VideoFile(source)
    found = track_plan.plan(source, video_file.info.stream, tmp_path / f"b{suffix}", video_file.start)
    assert not found.tracks
    assert found.notes == ("sound stream 1 (aac) is left out: it has no content, or its header is damaged",)
