"""Irregular clocks: repeated times, jitter, late and early tracks, edit lists, frames without content."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from data.video import VideoFile, track_plan
from data.video.clock import shown_at
from tests.data.video.make import FLASH, flash_time, video
from tests.data.video.test_join import write
from tests.media_info import media_info, onset

MS = Fraction(1, 1000)
PLAIN = {"bf": "0"}


def remux(source: Path, out: Path, change: Callable[[Any], Any]) -> Path:
    """Copy a video, with every packet replaced by the result of `change` (None: omitted)."""
    with av.open(str(source)) as old, av.open(str(out), "w") as new:
        streams = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        for packet in old.demux():
            if packet.size and (packet := change(packet)) is not None:
                packet.stream = streams[packet.stream_index]
                new.mux(packet)
    return out


def late(kind: str, seconds: float) -> Callable[[Any], Any]:
    """Shift the packets of the tracks of one kind."""

    def change(packet: Any) -> Any:
        if packet.stream.type == kind:
            units = round(seconds / packet.time_base)
            packet.pts, packet.dts = packet.pts + units, packet.dts + units
        return packet

    return change


def with_stamps(path: Path, stamps: list[int]) -> Path:
    """A .mkv whose frames have these times in milliseconds, in this order."""
    plain = video(path.with_name("plain.mkv"), [k / 25 for k in range(len(stamps))], options=PLAIN)
    order = iter(range(len(stamps)))

    def change(packet: Any) -> Any:
        number = next(order)
        packet.time_base = MS
        packet.pts, packet.dts = stamps[number], min(stamps[number:])
        return packet

    return remux(plain, path, change)


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([0, 40, 40, 80, 120, 160], [0, 40, 40.5, 80, 120, 160]),  # a repeated time
        ([0, 40, 80, 75, 120, 160], [0, 40, 80, 80.5, 120, 160]),  # jitter
        ([0, 40, 40, 40, 41, 80], [0, 40, 40.33, 40.67, 41, 80]),
    ],
)
def test_repeated_times_do_not_move_later_frames(tmp_path, stamps, expected):
    read = VideoFile(with_stamps(tmp_path / "a.mkv", stamps))
    assert [time * 1000 for time in read.times] == pytest.approx(expected, abs=0.1)
    assert not any("jump" in note for note in read.notes)


def test_constant_clock_has_the_rate_of_the_header(tmp_path):
    read = VideoFile(with_stamps(tmp_path / "a.mkv", [0] * 6))
    assert read.times == pytest.approx([k / 25 for k in range(6)], abs=1e-3)


@pytest.mark.parametrize("result", [".mp4", ".mov", ".mkv", ".webm", ".avi"])
def test_sound_before_the_first_frame_is_kept(tmp_path, result):
    plain = video(tmp_path / "plain.mkv", sound=["aac"], options=PLAIN)
    read = VideoFile(remux(plain, tmp_path / "in.mkv", late("video", 0.2)))
    assert read.start == pytest.approx(0.2, abs=1e-3) and not read.notes
    out = write(tmp_path / f"out{result}", read.times, read.info.fps, read)
    # The picture turns white 0.2 s after the tone begins, as in the source.
    assert flash_time(out) - onset(out) == pytest.approx(0.2, abs=0.03)
    if result != ".avi":  # has no start times: the early sound is cut
        assert onset(out) == pytest.approx(FLASH, abs=0.03)
        assert media_info(out).times[0] == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("result", [".mp4", ".mkv", ".webm"])
def test_sound_hidden_by_an_edit_list_stays_hidden(tmp_path, result):
    plain = video(tmp_path / "plain.mp4", sound=["aac"], options=PLAIN)
    cut = remux(plain, tmp_path / "in.mp4", late("audio", -0.3))  # MP4 hides packets before zero by an edit list
    with av.open(str(cut)) as file:
        assert any(packet.is_discard for packet in file.demux(audio=0))
    read = VideoFile(cut)
    out = write(tmp_path / f"out{result}", read.times, read.info.fps, read)
    assert flash_time(out) - onset(out) == pytest.approx(0.3, abs=0.03)
    assert media_info(out).times[0] < 0.1  # Matroska keeps the packets that the decoder needs before the picture


def test_late_start_in_matroska_is_not_damage(tmp_path):
    plain = video(tmp_path / "plain.mkv", sound=["aac"], options=PLAIN)

    def change(packet: Any) -> Any:
        return late("video", 2.0)(late("audio", 2.0)(packet))

    assert VideoFile(remux(plain, tmp_path / "in.mkv", change)).notes == []


def test_empty_packets_in_avi_are_not_damage(tmp_path):
    plain = video(tmp_path / "plain.avi", base=Fraction(1, 25), codec="mpeg4")
    numbers = iter(range(15))

    def change(packet: Any) -> Any:
        return None if next(numbers) in (4, 5, 9) else packet  # the muxer fills the gaps with empty packets

    read = VideoFile(remux(plain, tmp_path / "in.avi", change))
    assert read.notes == []
    assert read.times == pytest.approx([k / 25 for k in range(15) if k not in (4, 5, 9)], abs=1e-6)


def test_codec_delay_is_not_early_sound(tmp_path):
    source = video(tmp_path / "a.mp4", sound=["aac"])
    assert track_plan.plan(source, 0, tmp_path / "b.mp4", 0.0).lead == 0.0


@pytest.mark.parametrize("result", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("origin", [".mp4", ".mkv"])
@pytest.mark.parametrize("steps", [[1, 3, 3, 3, 3, 3, 3, 1], [1, 1, 1, 1, 3, 7, 1, 1], [1, 1, 1, 1, 1, 1, 3, 1]])
def test_variable_rate_with_b_frames_keeps_the_end(tmp_path, steps, origin, result):
    times = [sum(steps[:k]) / 25 for k in range(len(steps) + 1)]
    params = {"bf": "3", "x264-params": "b-adapt=0"}
    read = VideoFile(video(tmp_path / f"in{origin}", times, options=params, base=Fraction(1, 1000)))
    last = read.last_shown or times[-1] - times[-2]
    out = write(tmp_path / f"out{result}", read.times, read.info.fps, read, last)
    end = times[-1] + last
    assert media_info(out).from_first == pytest.approx(times, abs=1e-3)
    assert media_info(out).duration == pytest.approx(end, abs=2e-3)
    with av.open(str(out)) as file:
        track = file.streams.video[0]
        if track.duration is not None:
            assert float(track.duration * track.time_base) == pytest.approx(end, abs=2e-3)


def test_decoding_times_are_shifted_to_the_first_frame():
    """Presentation times that damage has put out of order give way to decoding times, which begin two frames before zero."""
    dts = [-80, -40, 0, 40, 80]
    assert shown_at([0, 120, 40, 30, 20], dts, -80, 40) == [0, 40, 80, 120, 160]
    assert shown_at([0, 40, 80, 120, 160], dts, -80, 40) == [0, 40, 80, 120, 160]
