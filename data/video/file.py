"""Read video frames by number, as upright RGB, with exact times.

Only a few decoded frames are kept in memory. Values above 8 bits become uint16 with range 0..65535; `data.video.colour`
decodes colours.
"""

from __future__ import annotations

import gc
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from threading import RLock
from typing import Any

import av
import numpy as np

from data.video import clock, colour, frames, metadata
from data.video.colour import Colour
from data.video.cropping import Border, border_of
from data.video.damage import differences
from data.video.decoder import Decoder
from data.video.deinterlace import deinterlaced
from data.video.hdr import Light
from data.video.info import VideoInfo
from data.video.opening import is_cover, naming, open_input
from errors import InputError

KEPT_FRAMES = 12  # converted frames kept: a sliding window of 7 costs one decode per frame
KEPT_RAW = 4  # decoded frames kept: deinterlacing needs three
THREADS = 4  # of the decoder, at most
PROGRESSIVE = 1  # the order of fields in a header; 0: unknown, above: interlaced


class VideoFile:
    """Random access to the frames of a video file, from the stream that players would choose.

    Args:
        path: the file.
        quick: read the frames' times from packets if these are reliable (MP4, Matroska), instead of decoding the video once.
            Damage and interlaced frames are then not known in advance.
        strict: `array` raises InputError for a damaged frame; else it returns the frame with the decoder's error concealment.
        deinterlace: make interlaced frames progressive.

    times: seconds from the first frame, one per frame (constant or variable rate).
    start: the first frame's time in the file, against which sound is placed.
    notes: messages for the user on skipped, damaged, missing or changed parts.
    """

    def __init__(self, path: str | Path, quick: bool = False, strict: bool = False, deinterlace: bool = True) -> None:
        self.path, self.strict = Path(path), strict
        self._handle: tuple[int, Any, Any] | None = None  # (process id, container, stream)
        self._left: list[Any] = []  # the parent's container after a fork: freeing it would wait for missing threads
        self._decoder: Iterator[Any] | None = None
        self._next = 0
        # Several threads may read. In a child process the lock is replaced, because it may be held at the time of the fork.
        self._reading = (os.getpid(), RLock())
        self._threads = min(THREADS, os.cpu_count() or 1)
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._raw: OrderedDict[int, Any] = OrderedDict()
        with naming(self.path):
            self.table = self._scan(quick)
            self._number = {stamp: number for number, stamp in enumerate(self.table.stamps)}
            self._turn, self.transparent = (False, False, False), False
            self._stored, self._border, self._fields = (0, 0), Border(), False
            self.interlaced = self.table.interlaced if self.table.threads else int(self._find(0).interlaced_frame)
            self.deinterlace = deinterlace and (self.interlaced > 0 or not self.table.threads)  # quick: any may be
            self.info = self._describe()
            self._close()  # a data set has thousands of videos: files stay open only while they are read
        self.start, self.times = self.table.stretches[0].start, self.table.times

    def __len__(self) -> int:
        return len(self.table.stamps)

    def __getstate__(self) -> dict[str, Any]:
        empty: dict[str, Any] = {
            "_handle": None,
            "_reading": None,
            "_decoder": None,
            "_left": [],
            "_kept": OrderedDict(),
            "_raw": OrderedDict(),
        }
        return {**self.__dict__, **empty}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reading = (os.getpid(), RLock())

    def array(self, index: int) -> np.ndarray:
        """(H, W, C) uint8 or uint16, RGB or grey, upright. InputError where the frame cannot be decoded."""
        if self._reading[0] != os.getpid():
            self._reading = (os.getpid(), RLock())
        with self._reading[1]:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
            with naming(self.path):
                frame = self._find(index)
                if self.deinterlace and frame.interlaced_frame:
                    frame = self._progressive(index)
                array = self._to_array(frame)
            _remember(self._kept, index, array, KEPT_FRAMES)
            return array

    @property
    def last_shown(self) -> float | None:
        """Duration of the last frame in seconds; None if the file does not give a plausible one."""
        shown, longest = self.table.last_shown, max(np.diff(self.times), default=0.0)
        return shown if shown and 0 < shown <= max(2 * longest, 1e-9) else None

    @property
    def notes(self) -> list[str]:
        """One line for each difference from an undamaged, progressive file."""
        found = differences(self.table)
        if self.interlaced:
            how = "deinterlaced (--no-deinterlace keeps the fields)" if self.deinterlace else "not deinterlaced"
            part = self.table.threads and self.interlaced < len(self)
            found.append(f"{f'{self.interlaced} of {len(self)} frames are ' if part else ''}interlaced: {how}")
        elif self._fields and self.table.threads:
            found.append("its header says interlaced, its frames do not: not deinterlaced (ffmpeg -vf bwdif does it)")
        if any(self._border):
            width, height = self._stored[::-1]
            found.append(
                f"the border outside {self.info.size[1]}x{self.info.size[0]} of {width}x{height} pixels is cut off, as its header asks"
            )
        if self.transparent:
            found.append("transparency is left out: colours are kept as if every pixel was opaque")
        return found

    # --- finding frames ---

    def _scan(self, quick: bool) -> frames.FrameTable:
        if quick:
            table = frames.quick(*self._open())
            self._close()
            if table:
                return table
        table = frames.decoded(self.path, *self._open(), self._threads)
        self._close()
        if self._threads > 1 and (table is None or table.is_damaged):
            self._threads = 1
            table = frames.decoded(self.path, *self._open(), 1)
            self._close()
        if table is None:
            raise InputError(f"{self.path}: holds no video frames that can be decoded")
        return table

    def _open(self) -> tuple[Any, Any]:
        if self._handle is None or self._handle[0] != os.getpid():
            _spare_inherited_decoders()
            container = open_input(self.path)
            stream = container.streams.best("video")
            if stream is None or stream.codec_context is None:
                raise InputError(f"{self.path}: holds no video stream")
            if is_cover(stream):
                raise InputError(f"{self.path}: holds no video stream, only sound with a cover picture")
            stream.codec_context.thread_type = "AUTO" if self._threads > 1 else "SLICE"
            stream.codec_context.thread_count = self._threads
            flags = (
                av.codec.context.Flags
            )  # `Decoder` drops corrupt frames at the start; `unaligned`: exact left borders
            stream.codec_context.flags |= int(flags.output_corrupt) | int(flags.unaligned)
            self._left += [self._handle, self._decoder] if self._handle else []
            self._handle, self._decoder = (os.getpid(), container, stream), None
        return self._handle[1], self._handle[2]

    def _find(self, index: int) -> Any:
        """The decoded frame. Continue decoding if it is near, else seek to the previous key frame or to the start."""
        if index in self._raw and self._handle and self._handle[0] == os.getpid():
            return self._raw[index]
        self._open()
        key = 0
        if self.table.seekable:
            keys_before = bisect_right(self.table.keys, index)
            key = self.table.keys[keys_before - 1] if keys_before else 0
        if self._decoder is None or index < self._next or key > self._next:
            self._seek(key)
        frame = self._advance(index)
        if frame is None and self.table.seekable:
            self._seek(0)
            frame = self._advance(index)
        if frame is None:
            raise InputError(
                f"{self.path}: frame {index} cannot be decoded; the file is damaged there, repair or cut it"
            )
        return frame

    def _close(self) -> None:
        self._raw.clear()
        if self._handle and self._handle[0] == os.getpid():
            self._decoder = None
            self._handle[1].close()
            self._handle = None

    def _seek(self, number: int) -> None:
        self._close()  # a decoder cannot continue after the end or an error
        container, stream = self._open()
        if number > 0:
            container.seek(self.table.stamps[number], stream=stream, backward=True)
        self._decoder = iter(Decoder(container, stream))
        self._next = number

    def _advance(self, index: int) -> Any | None:
        """Decode until frame `index`; None if the stream skips it or ends. Earlier frames are not converted."""
        assert self._decoder is not None
        for frame in self._decoder:
            number = self._number.get(frame.pts, -1) if self.table.seekable else self._next
            if number < 0:
                continue
            self._next = max(self._next, number + 1)
            _remember(self._raw, number, frame, KEPT_RAW)
            if number >= index:
                return self._checked(frame, index) if number == index else None
        self._decoder = None
        return None

    def _checked(self, frame: Any, index: int) -> Any:
        if self.strict and frame.is_corrupt:
            raise InputError(f"{self.path}: frame {index} is damaged; repair or cut the file")
        return frame

    def _progressive(self, index: int) -> Any:
        around = range(max(index - 1, 0), min(index + 2, len(self)))
        return deinterlaced([self._find(number) for number in around], index - around[0])

    # --- describing ---

    def _describe(self) -> VideoInfo:
        frame = self._find(0)
        container, stream = self._open()
        self._turn = colour.orientation(frame)
        hidden = stream.metadata.get("alpha_mode") == "1"  # WebM: FFmpeg's own VP9 decoder leaves it out
        self.transparent = hidden or self.table.transparent or colour.is_transparent(frame)
        self._stored = (frame.height, frame.width)
        self._fields = int(stream.codec_context.field_order) > PROGRESSIVE
        self._border = border_of(self.path, container, stream)
        size = self._border.size(self._stored)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        if self._turn[0]:
            size, aspect = size[::-1], 1 / aspect
        return VideoInfo(
            size=size,
            bits=max(self.table.bits, colour.bits_of(frame)),
            channels=max(self.table.channels, colour.channels_of(frame)),
            fps=self._rate(stream),
            matrix=colour.matrix_of(frame),
            full_range=colour.full_range(frame),
            is_yuv=colour.is_yuv(frame),
            colour=Colour.of(frame),
            light=Light.of(frame),
            sample_aspect=aspect,
            time_base=Fraction(stream.time_base),
            codec=stream.codec_context.name,
            container=container.format.name,
            stream=stream.index,
            timecode=metadata.timecode(stream.metadata, container.metadata),
        )

    def _rate(self, stream: Any) -> Fraction:
        """The header's rate if the frames' times agree with it, else their mean rate."""
        rate, span = clock.rate_of(stream), self.table.times[-1]
        if not span:
            return rate
        named = [Fraction(r) for r in (stream.average_rate, stream.guessed_rate, rate) if r]
        nearest = min(named, key=lambda r: abs(span * float(r) - (len(self) - 1)))
        if abs(span * float(nearest) - (len(self) - 1)) < 0.1 * len(self) + 1:
            return nearest
        return Fraction((len(self) - 1) / span).limit_denominator(1001)

    def _to_array(self, frame: Any) -> np.ndarray:
        array = self._border.cut(colour.to_rgb(frame, self.info.bits, self.info.channels, self._stored))
        return np.ascontiguousarray(colour.upright(array, self._turn))


def _remember(kept: OrderedDict[int, Any], number: int, value: Any, limit: int) -> None:
    kept[number] = value
    while len(kept) > limit:
        kept.popitem(last=False)


@cache
def _spare_inherited_decoders() -> None:
    """Keep forked processes from collecting inherited decoders: freeing one waits for its threads, which were not forked.

    `_left` keeps files that are still open; this function handles those in a reference cycle, for example after an exception.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=gc.freeze)
