"""Copy or convert the tracks of a source video (sound, subtitles, attachments) while the output is written.

`data.video.track_plan` selects the tracks before the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import av

from data.video.clock import JUMP
from data.video.containers import container_of
from data.video.convert import SoundConverter, TextConverter
from data.video.metadata import Placement, copy_stream_tags
from data.video.opening import open_named
from data.video.track_plan import PRIMING, Track, TrackPlan

FINE = 90_000  # units per second, at least, in which copied packets are moved


@dataclass
class _Lane:
    """State of one track: destination of its packets and its clock."""

    source: Any
    output: Any
    send: Callable[[Any, float], Iterator[Any]]  # (packet, seconds to add to its times) -> packets of the output
    finish: Callable[[], Iterator[Any]]
    copied: bool = True  # packets go into the output unchanged
    stretch: int = 0
    last: float | None = None
    written: int | None = None
    early: int | None = None  # units by which the first packet would begin before zero


class Tracks:
    """The planned tracks of a source, interleaved with the pictures.

    Create it before the header is written (it adds the streams); then call `copy(until)` as the pictures advance.
    """

    def __init__(self, path: Path, plan: TrackPlan, output: Any, out: Path, place: Placement) -> None:
        self._source, self._output, self._place = open_named(path), output, place
        self._container, self._path = container_of(out), path
        self._lanes: dict[int, _Lane] = {}
        for track in plan.tracks:
            if track.kind != "cover":
                self._add(track)
        copied = [lane.source for lane in self._lanes.values() if lane.source.type != "attachment"]
        self._packets: Iterator[Any] = self._source.demux(*copied) if copied else iter(())
        self._waiting: tuple[Any, float] | None = None
        self._covers = [self._cover(track.index) for track in plan.tracks if track.kind == "cover"]

    @property
    def source(self) -> Any:
        """The open source container."""
        return self._source

    def close(self) -> None:
        self._source.close()

    def _cover(self, index: int) -> Any:
        """Add a cover picture: an attachment in Matroska, else a stream of one packet, which is returned."""
        with open_named(self._path) as source:
            stream = source.streams[index]
            packet = next(packet for packet in source.demux(stream) if packet.size)
            if self._container.attachments:
                codec = stream.codec_context.name
                kind, suffix = ("jpeg", "jpg") if codec == "mjpeg" else (codec, codec)
                name = stream.metadata.get("filename", f"cover.{suffix}")
                self._output.add_attachment(name, f"image/{kind}", bytes(packet))
                return None
            output = self._output.add_stream_from_template(self._source.streams[index], opaque=True)
            output.disposition = int(av.stream.Disposition.attached_pic)
            packet.stream = output
            return packet

    def _add(self, track: Track) -> None:
        stream = self._source.streams[track.index]
        if track.kind == "attachment":
            name = stream.metadata.get("filename", f"attachment{track.index}")
            mime = stream.metadata.get("mimetype", "application/octet-stream")
            output = self._output.add_attachment(name, mime, stream.data)
            self._lanes[track.index] = _Lane(stream, output, lambda packet, shift: iter(()), lambda: iter(()))
            return
        if track.to is None:
            output = self._output.add_stream_from_template(stream, opaque=True)
            lane = _Lane(stream, output, self._copied(output), lambda: iter(()))
        elif track.kind == "audio":
            sound = SoundConverter(stream, self._output, track.to, from_zero=self._container.constant)
            lane = _Lane(stream, sound.output, sound, sound.finish, copied=False)
        else:
            text = TextConverter(stream, self._output, track.to)
            lane = _Lane(stream, text.output, text, text.finish, copied=False)
        copy_stream_tags(stream, lane.output, self._container.format)
        self._lanes[track.index] = lane

    @staticmethod
    def _copied(output: Any) -> Callable[[Any, float], Iterator[Any]]:
        def send(packet: Any, shift: float) -> Iterator[Any]:
            finer = ceil(packet.time_base * FINE)  # AVI counts sound in packets, which are longer than most shifts
            base = packet.time_base / finer
            pts, dts, duration = packet.pts, packet.dts, packet.duration
            packet.time_base = base
            packet.pts = None if pts is None else pts * finer + round(shift / base)
            packet.dts = packet.pts if dts is None else dts * finer + round(shift / base)
            packet.duration = (duration or 0) * finer
            packet.stream = output
            yield packet

        return send

    def copy(self, until: float) -> None:
        """Write all packets that begin before `until` seconds of the output; infinity: all that remain."""
        while self._covers:
            if (cover := self._covers.pop()) is not None:
                self._output.mux(cover)
        while True:
            held = self._waiting or self._next()
            self._waiting = None
            if held is None:
                break
            packet, shift = held
            begin = _seconds(packet) + shift
            if begin > until:
                self._waiting = held
                return
            length = float((packet.duration or 0) * packet.time_base)
            lane = self._lanes[packet.stream_index]
            if lane.source.type == "subtitle" and length and not self._cut(packet, shift):
                continue
            hidden = packet.is_discard and lane.copied and begin + length < -PRIMING  # before the start of an edit list
            before = lane.source.type != "subtitle" and begin + length / 2 < 0 and self._place.begin > 0
            if hidden or before or self._late(begin):
                continue
            self._mux(lane, lane.send(packet, shift))
        if until == float("inf"):
            for lane in self._lanes.values():
                self._mux(lane, lane.finish())

    def _cut(self, packet: Any, shift: float) -> bool:
        """Cut a subtitle to the time of the output; False if it is shown before or after it only. A negative time would delay
        the pictures.
        """
        base, stop = packet.time_base, float("inf")
        if self._place.end is not None:
            stop = self._place.end - self._place.begin
        begin = _seconds(packet) + shift
        end = min(begin + float(packet.duration * base), stop)
        if begin < 0 or end == stop:
            begin = max(begin, 0.0)
            packet.pts = packet.dts = round((begin - shift) / float(base))
            packet.duration = max(round((end - begin) / float(base)), 0)
        return end > begin

    def _late(self, begin: float) -> bool:
        return self._place.end is not None and begin >= self._place.end - self._place.begin

    def _next(self) -> tuple[Any, float] | None:
        """The next packet and the seconds to add to its times."""
        while True:
            try:
                packet = next(self._packets, None)
            except (av.error.FFmpegError, IndexError):  # cut short; a stream began in the middle (`decoder.Decoder`)
                return None
            if packet is None:
                return None
            if packet.size == 0 or (packet.pts is None and packet.dts is None):
                continue
            lane, seconds = self._lanes[packet.stream_index], _seconds(packet)
            if lane.last is not None and len(self._place.stretches) > 1 and not -0.5 < seconds - lane.last < JUMP:
                lane.stretch += 1  # the clock of a joined stream jumps for the sound too
            lane.last = seconds
            return packet, self._place(0.0, lane.stretch)

    def _mux(self, lane: _Lane, packets: Iterator[Any]) -> None:
        """Make decoding times rise: damaged sources and joints repeat some. Without start times they begin at zero; else the
        muxer would shift the pictures."""
        for packet in packets:
            if self._container.constant and lane.early is None and packet.dts is not None:
                lane.early = max(-packet.dts, 0)
            if lane.early and packet.dts is not None:
                packet.pts, packet.dts = packet.pts + lane.early, packet.dts + lane.early
            if packet.dts is not None and lane.written is not None and packet.dts <= lane.written:
                if packet.dts == lane.written and self._container.tick:  # short packets share a millisecond in Matroska
                    self._write(packet)
                    continue
                if lane.source.type == "audio":
                    continue
                packet.dts = lane.written + 1
                packet.pts = max(packet.pts, packet.dts)
            lane.written = packet.dts
            self._write(packet)

    def _write(self, packet: Any) -> None:
        """Write a packet, except one without a valid header, as of AAC in a damaged transport stream (`VideoFile.notes`)."""
        with suppress(av.error.InvalidDataError):
            self._output.mux(packet)


def _seconds(packet: Any) -> float:
    return float((packet.dts if packet.pts is None else packet.pts) * packet.time_base)
