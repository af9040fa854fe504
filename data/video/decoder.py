"""Decode the frames of one stream in the decoder's order, past damaged packets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import av

CUT = 1000  # number of packets at the beginning that are searched for undecodable ones
REORDERED = 16  # packets, at most, by which codecs reorder frames


class Decoder:
    """Frames of one stream in the decoder's order; packets that cannot be decoded are skipped, and so are broken frames before
    the first key frame, which a cut left without their references.

    errors: time stamps of packets that the decoder refused.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self.container, self.stream = container, stream
        self.errors: list[int | None] = []
        self.stamps: list[int | None] = []  # presentation times of the first packets to be displayed
        self.first: int | None = None  # decoding time of the first packet
        self.corrupt, self.broken_off = False, False
        self.others_corrupt = 0  # damaged packets of sound and subtitles
        self._begun, self._jumped, self._latest = False, False, -(2**63)
        self.count = 0  # packets with content
        self.position = 0  # in the file, after the last packet
        self.ends: dict[int, float] = {}  # stream index -> end of its last packet, in seconds

    def __iter__(self) -> Iterator[Any]:
        yield from self.frames((self.stream,))

    def frames(self, streams: Sequence[Any]) -> Iterator[Any]:
        for packet in self._packets(streams):
            self._note_end(packet)
            self.position = max(self.position, (packet.pos or 0) + packet.size)
            self.others_corrupt += packet.is_corrupt and packet.stream.index != self.stream.index
            if packet.stream.index != self.stream.index:  # `packet.stream_index` is 0 where PyAV flushes a decoder
                continue
            self.count += packet.size > 0
            if packet.size == 0 and packet.dts is not None:
                continue  # AVI repeats the previous frame; the decoder would take the empty packet for the end of the stream
            self._note_stamp(packet)
            if packet.size and self.first is None:
                self.first = packet.dts
            self.corrupt = self.corrupt or packet.is_corrupt
            self.broken_off = packet.is_corrupt if packet.size else self.broken_off
            try:
                found = packet.decode()
            except av.error.FFmpegError:
                self.errors.append(packet.dts if packet.dts is not None else packet.pts)
                continue
            for frame in found:
                self._begun = self._begun or frame.key_frame or not frame.is_corrupt
                if self._begun:
                    yield frame

    def _packets(self, streams: Sequence[Any]) -> Iterator[Any]:
        packets = self.container.demux(*streams)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:  # the file ends in the middle of a packet
                self.corrupt = self.broken_off = True
                with suppress(av.error.FFmpegError):
                    yield from (_Flush(self.stream, frame) for frame in self.stream.codec_context.decode(None))
                return
            except IndexError:  # a stream began in the middle of the file; the others are flushed before
                return
            if packet is None:
                return
            yield packet

    def before(self, pts: int | None) -> int:
        """Number of the first packets whose presentation time is before `pts`, the first frame's time."""
        if pts is None or all(stamp is None for stamp in self.stamps):
            return 0
        reached = next((k for k, stamp in enumerate(self.stamps) if stamp is not None and stamp >= pts), 0)
        first = [stamp is None or stamp < pts for stamp in self.stamps[: reached + REORDERED]]
        return sum(first) if sum(first) < len(first) / 2 or len(first) < CUT else 0

    def _note_stamp(self, packet: Any) -> None:
        """Keep the presentation time of one of the first packets, up to a jump of the clock."""
        if not packet.size or len(self.stamps) >= CUT:
            return
        self._jumped = self._jumped or (packet.dts or 0) < self._latest
        self._latest = packet.dts or self._latest
        if not packet.is_discard and not self._jumped:
            self.stamps.append(packet.pts)

    def _note_end(self, packet: Any) -> None:
        stamp = packet.dts if packet.pts is None else packet.pts
        if packet.size and stamp is not None:
            end = float((stamp + (packet.duration or 0)) * packet.time_base)
            self.ends[packet.stream_index] = max(end, self.ends.get(packet.stream_index, end))


class _Flush:
    """A frame that was still in the decoder at the end of a truncated file, in the form of a packet."""

    size, dts, pts, is_corrupt, duration, pos = 0, None, None, False, 0, None

    def __init__(self, stream: Any, frame: Any) -> None:
        self.stream, self._frame = stream, frame

    def decode(self) -> list[Any]:
        return [self._frame]
