"""Every container keeps times, sound and other tracks of a video, or is refused before work starts."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data.video import VideoFile, join, track_plan
from data.video.containers import CONTAINERS, TOLERANCE, default_codec, timing
from data.video.encoding import Encoding
from errors import InputError
from tests.data.video.make import FLASH, flash_time, pictures, video
from tests.media_info import media_info, onset, probe_times

RATES = {
    "23.976": Fraction(24_000, 1001),
    "25": Fraction(25),
    "29.97": Fraction(30_000, 1001),
    "59.94": Fraction(60_000, 1001),
    "long fraction": Fraction(10_000_000, 333_667),
    "odd": Fraction(19_997, 667),
}
VARIABLE = [0.0, 0.02, 0.1, 0.14, 0.18, 0.26, 0.28, 0.3, 0.38, 0.5]


def write(
    out: Path, times: list[float], rate: Fraction, source: VideoFile | None = None, last: float | None = None
) -> Path:
    """A video of two pieces with frames at `times`, white from FLASH on, with the tracks of `source`; the last is shown `last`
    seconds."""
    codec = default_codec(out, 8, False)
    encoding = Encoding(codec, b_frames=not CONTAINERS[out.suffix].constant).like(source)
    last = last or times[-1] - times[-2]
    origin = (
        join.Source(source, track_plan.plan(source.path, source.info.stream, out, source.start)) if source else None
    )
    shown = timing(out, times, last, rate, source.info.time_base if source else None)
    join.rehearse(out, encoding, (16, 24), origin)
    frames = pictures(len(times), next((k for k, time in enumerate(times) if time >= FLASH - 1e-9), None))
    half = len(times) // 2
    pieces = [out.with_name("0.mkv"), out.with_name("1.mkv")]
    for piece, part in zip(pieces, (frames[:half], frames[half:]), strict=True):
        join.write_piece(piece, part, encoding, rate)
    join.join(out, pieces, encoding, shown, origin)
    return out


@pytest.mark.parametrize("count", [1, 2])
def test_short_pieces_do_not_depend_on_the_encoders_decoding_times(tmp_path, count):
    with join._Piece(tmp_path / "a.mkv", Encoding("h265"), Fraction(25)) as piece:
        for _ in range(count):
            piece.write(np.full((64, 96, 3), 80, np.uint8))
        packets = piece._stream.encode(None)
        for packet in packets:
            packet.dts = 2**60  # x265: uninitialised memory
        piece._stream = SimpleNamespace(encode=lambda _: packets)  # the end of the piece writes them
    seen = [(packet.pts, packet.dts) for packet in packets]
    assert [pts for pts, _ in seen] == [10 * number for number in range(count)] and all(dts < pts for pts, dts in seen)


def test_rounded_times_of_a_constant_rate_become_exact():
    """Matroska's milliseconds; editors take anything but equal steps for a variable rate."""
    rate = Fraction(24000, 1001)
    rounded = [round(k * 1001 / 24000, 3) for k in range(48)]
    exact = timing("a.mp4", rounded, 0.042, rate, Fraction(1, 1000))
    assert [stamp * exact.tick for stamp in exact.stamps] == [k / rate for k in range(48)]
    assert exact.fps == rate and exact.last * exact.tick == 1 / rate
    assert timing("a.mkv", rounded, 0.042, rate, Fraction(1, 1000)).fps == rate
    variable = timing("a.mp4", [0.0, 0.04, 0.12], 0.04, Fraction(25), Fraction(1, 1000))
    assert [float(stamp * variable.tick) for stamp in variable.stamps] == [0.0, 0.04, 0.12]
    assert variable.fps == Fraction(2, 1) / Fraction("0.12")


@pytest.mark.parametrize("per_gap", [1, 2])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("suffix", CONTAINERS)
def test_times_of_constant_rates(tmp_path, suffix, rate, per_gap):
    fps = RATES[rate] * per_gap
    times = [float(k / fps) for k in range(9)]
    out = write(tmp_path / f"out{suffix}", times, fps)
    assert media_info(out).from_first == pytest.approx(times, abs=TOLERANCE)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_times_of_variable_rates(tmp_path, suffix):
    out = write(tmp_path / f"out{suffix}", VARIABLE, Fraction(20))
    found = media_info(out)
    assert found.from_first == pytest.approx(VARIABLE, abs=TOLERANCE)
    assert found.duration == pytest.approx(VARIABLE[-1] + 0.12, abs=0.045)
    probed = probe_times(out)
    if probed:
        assert [time - probed[0] for time in probed] == pytest.approx(VARIABLE, abs=TOLERANCE)


def test_times_that_a_container_cannot_keep_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"\.avi keeps one constant frame rate.*write \.mp4"):
        timing(tmp_path / "a.avi", VARIABLE, 0.04, Fraction(20))
    close = [k * 0.0004 for k in range(20)]
    for suffix in (".mkv", ".webm"):
        with pytest.raises(InputError, match=r"counts milliseconds.*write \.mp4"):
            timing(tmp_path / f"a{suffix}", close, 0.0004, Fraction(2500))
    shown = timing(tmp_path / "a.mp4", close, 0.0004, Fraction(2500))
    assert [float(stamp * shown.tick) for stamp in shown.stamps] == pytest.approx(close, abs=1e-6)


def test_frames_half_a_millisecond_apart_keep_an_order(tmp_path):
    times = [0.0, 0.0104, 0.0108, 0.05]
    shown = timing(tmp_path / "a.mkv", times, 0.04, Fraction(60))
    assert shown.stamps == sorted(set(shown.stamps))
    assert [float(stamp * shown.tick) for stamp in shown.stamps] == pytest.approx(times, abs=TOLERANCE)


SOURCES = {  # sound codec -> suffix of a container that supports it
    "aac": "in.mp4", "libopus": "in.mkv", "libmp3lame": "in.mp4", "pcm_s16le": "in.mov", "wmav2": "in.wmv", "ac3": "in.mkv",
    "flac": "in.mkv", "tta": "in.mkv",
}  # fmt: skip


@pytest.mark.parametrize("sound", SOURCES)
@pytest.mark.parametrize("suffix", CONTAINERS)
def test_sound_is_in_sync(tmp_path, suffix, sound):
    how = {"codec": "wmv2", "base": Fraction(1, 1000)} if sound == "wmav2" else {}
    source = VideoFile(video(tmp_path / SOURCES[sound], sound=[sound], **how))
    assert onset(source.path) == pytest.approx(flash_time(source.path), abs=0.03)
    out = write(tmp_path / f"out{suffix}", source.times, source.info.fps, source)
    assert onset(out) == pytest.approx(flash_time(out), abs=0.03)


def test_copied_sound_keeps_its_bytes(tmp_path):
    import av

    def packets(path: Path) -> list[bytes]:
        with av.open(str(path)) as file:
            return [bytes(packet) for packet in file.demux(audio=0) if packet.size]

    source = VideoFile(video(tmp_path / "in.mp4", sound=["aac"]))
    for suffix in (".mp4", ".mov", ".mkv"):
        out = write(tmp_path / f"out{suffix}", source.times, source.info.fps, source)
        assert packets(out) == packets(source.path)


def test_converted_and_omitted_tracks_are_reported(tmp_path):
    source = VideoFile(video(tmp_path / "in.mkv", sound=["pcm_s16le", "flac"]))
    plan = track_plan.plan(source.path, 0, tmp_path / "out.mp4", source.start)
    assert [track.to for track in plan.tracks] == ["aac", None]
    assert len(plan.notes) == 1 and "pcm_s16le" in plan.notes[0] and "AAC" in plan.notes[0]
    plan = track_plan.plan(source.path, 0, tmp_path / "out.mkv", source.start, sound=False)
    assert not plan.tracks and "speed" in plan.notes[0]


@pytest.mark.parametrize(("codec", "suffix"), [("h265", ".webm"), ("h264", ".webm"), ("vp9", ".mov"), ("h265", ".avi")])
def test_codecs_that_a_container_does_not_support_are_refused(tmp_path, codec, suffix):
    from data.video.containers import check_codec

    with pytest.raises(InputError, match=rf"\{suffix} cannot hold {codec}.*--codec"):
        check_codec(tmp_path / f"a{suffix}", codec, 8, False)


def test_sizes_beyond_the_limits_of_the_encoder_are_refused(tmp_path):
    from data.video.containers import check_size

    with pytest.raises(InputError, match=r"too large for h264.*--codec vp9"):
        check_size(tmp_path / "a.mp4", "h264", (32, 16_400))
    check_size(tmp_path / "a.mp4", "vp9", (32, 16_400))


def test_encoder_options_are_checked(tmp_path):
    with pytest.raises(InputError, match="-e presset"):
        join.rehearse(tmp_path / "a.mp4", Encoding("h264", options=(("presset", "slow"),)), (16, 24), None)
    with pytest.raises(InputError, match="check the values of -e"):
        join.rehearse(tmp_path / "a.mp4", Encoding("h264", options=(("preset", "nonsense"),)), (16, 24), None)
    with pytest.raises(InputError, match="--pix-fmt 'yuv411p'"):
        join.rehearse(tmp_path / "a.mp4", Encoding("h264", pix_fmt="yuv411p"), (16, 24), None)
    with pytest.raises(InputError, match=r"odd size"):
        join.rehearse(tmp_path / "a.mp4", Encoding("h264", pix_fmt="yuv420p"), (17, 24), None)
    join.rehearse(
        tmp_path / "a.mp4", Encoding("h264", options=(("preset", "slow"),), pix_fmt="yuv444p"), (17, 25), None
    )


def test_hevc_is_hvc1_and_the_default_for_ten_bits(tmp_path):
    assert [default_codec(f"a{suffix}", 10, False) for suffix in (".mp4", ".mov", ".mkv")] == ["h265"] * 3
    with pytest.raises(InputError, match=r"\.mp4 cannot hold 10 bits without loss: write \.mkv"):
        default_codec("a.mp4", 10, True)
    encoding, times = Encoding("h265", bits=10), [0.0, 0.04, 0.08]
    for suffix in (".mp4", ".mov"):
        out = tmp_path / f"a{suffix}"
        deep = [frame.astype(np.uint16) * 257 for frame in pictures(3)]
        join.write_piece(tmp_path / "p.mkv", deep, encoding, Fraction(25))
        join.join(out, [tmp_path / "p.mkv"], encoding, timing(out, times, 0.04, Fraction(25)), None)
        found = media_info(out)
        assert (found.codec, found.tag, found.pixels) == ("hevc", "hvc1", "yuv420p10le")
