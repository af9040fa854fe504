"""Convert sound and text subtitles whose codec the output container does not support."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
from av.filter import Graph

BITS_PER_CHANNEL = {"aac": 128_000, "libopus": 96_000, "libmp3lame": 128_000}  # bits per second
STEREO_AT_MOST = ("libmp3lame",)
# Layouts that Opus and AAC cannot name -> the smallest one that has their loudspeakers. Opus: RFC 7845, section 5.1.1.2.
LARGER = {
    "downmix": "stereo", "2.1": "5.1", "3.0(back)": "quad", "3.1": "5.1", "4.1": "5.1", "6.0": "7.1", "6.0(front)": "7.1",
    "hexagonal": "7.1", "6.1(back)": "7.1", "6.1(front)": "7.1", "7.0": "7.1", "7.0(front)": "7.1", "7.1(wide)": "7.1",
    "7.1(wide-side)": "7.1", "7.1(top)": "7.1", "octagonal": "7.1", "cube": "7.1", "5.1.2": "7.1", "5.1.2(back)": "7.1",
    "3.1.2": "5.1",
}  # fmt: skip
USUAL_LAYOUTS = {"libopus": LARGER | {"4.0": "5.0"}, "aac": LARGER | {"6.1": "7.1"}}
GAP = 0.008  # seconds: a longer gap becomes silence; shorter ones are jitter of the times (FFmpeg's default lets 0.1 s add up)
PRIMING = {"libmp3lame": 1105}  # priming samples of the decoder if no header gives their number
ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+
PlayResX: 384
PlayResY: 288

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


class SoundConverter:
    """Decodes a sound stream and encodes it again at the same times; gaps become silence.

    from_zero: the output has no start times: late sound is padded with silence, early sound is cut.
    """

    def __init__(self, stream: Any, container: Any, encoder: str, from_zero: bool) -> None:
        context = stream.codec_context
        self.encoder, self.from_zero = encoder, from_zero
        self._decoder, self._shift = context, 0.0
        self.rate = _rate(encoder, context.sample_rate)
        self.output = container.add_stream(encoder, rate=self.rate)
        self.output.codec_context.layout = _layout(encoder, context.layout)
        if encoder in BITS_PER_CHANNEL:
            self.output.bit_rate = BITS_PER_CHANNEL[encoder] * len(self.output.codec_context.layout.channels)
        self.output.time_base = self.output.codec_context.time_base = Fraction(1, self.rate)
        self._graph: Any = None
        self._shape: tuple[str, str, int] | None = None  # sample format, layout and rate of the first frame
        self._resampler: tuple[tuple[str, str, int], Any] | None = None

    def __call__(self, packet: Any, shift: float) -> Iterator[Any]:
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            return  # damaged packets become silence
        self._shift = shift
        for frame in frames:
            yield from self._encode(self._placed(frame, shift))

    def finish(self) -> Iterator[Any]:
        """Flush the decoder, the filter and the encoder."""
        with suppress(av.error.FFmpegError):
            for frame in self._decoder.decode(None):
                yield from self._encode(self._placed(frame, self._shift))
        if self._graph is not None:
            self._graph.push(None)
            yield from self._encode(None)
            yield from self.output.encode(None)

    def _placed(self, frame: Any, shift: float) -> Any:
        if frame.pts is not None:
            early = PRIMING.get(self.encoder, 0) / self.rate if self.from_zero else 0.0
            seconds = frame.pts * frame.time_base + Fraction(shift - early)  # AVI counts packets: 24 ms of MP3
            frame.time_base = Fraction(1, frame.sample_rate)
            frame.pts = round(seconds / frame.time_base)
        return frame

    def _encode(self, frame: Any | None) -> Iterator[Any]:
        if frame is not None:
            if self._graph is None:
                self._graph = self._filter(frame)
            for each in self._uniform(frame):
                self._graph.push(each)
        while True:
            try:
                ready = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            yield from self.output.encode(ready)

    def _uniform(self, frame: Any) -> list[Any]:
        """The frame in the sample format, layout and rate of the first one: broadcasts change these, the filter cannot."""
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        self._shape = self._shape or shape
        if shape == self._shape:
            self._resampler = None
            return [frame]
        if self._resampler is None or self._resampler[0] != shape:
            self._resampler = shape, av.AudioResampler(*self._shape)
        made = self._resampler[1].resample(frame)
        for each in made:
            base = Fraction(1, each.sample_rate)
            each.pts, each.time_base = round((each.pts or 0) * Fraction(each.time_base or base) / base), base
        return list(made)

    def _filter(self, frame: Any) -> Any:
        context = self.output.codec_context
        graph = Graph()
        source = graph.add_abuffer(
            sample_rate=frame.sample_rate, format=frame.format, layout=frame.layout, time_base=frame.time_base
        )
        start = ":first_pts=0" if self.from_zero else ""
        resample = graph.add("aresample", f"{self.rate}:async=1:min_hard_comp={GAP}{start}")
        shape = graph.add(
            "aformat",
            f"sample_fmts={context.format.name}:sample_rates={self.rate}:channel_layouts={context.layout.name}",
        )
        graph.link_nodes(source, resample, shape, graph.add("abuffersink")).configure()
        if context.frame_size:
            graph.set_audio_frame_size(context.frame_size)
        return graph


def _rate(encoder: str, rate: int) -> int:
    """The encoder's sample rate nearest to the source's, not below it if possible."""
    offered = sorted(av.Codec(encoder, "w").audio_rates or [])
    return next((r for r in offered if r >= rate), offered[-1]) if offered else rate


def _layout(encoder: str, layout: Any) -> str:
    """The layout to encode: the source's if the encoder and its players know it, else one that has all its loudspeakers."""
    channels, name = len(layout.channels), layout.name.replace("(side)", "")
    if channels > 2 and (encoder in STEREO_AT_MOST or channels > 8):
        return "stereo"
    if "channels" in name:  # without loudspeakers
        return {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}.get(channels, "stereo")
    return name if encoder not in USUAL_LAYOUTS else USUAL_LAYOUTS[encoder].get(name, name)


def _plain(event: str) -> str:
    """The text of an ASS event (eight fields, then the text) without its style codes."""
    text = re.sub(r"\{[^}]*\}", "", event.split(",", 8)[-1])
    return text.replace("\\N", "\n").replace("\\n", "\n").replace("\\h", " ")


class TextConverter:
    """Convert text subtitles to mov_text, SubRip or WebVTT: text and line breaks, without styles.

    Packets of mov_text follow each other, so that texts shown at the same time are joined, one below the other.
    """

    def __init__(self, stream: Any, container: Any, encoder: str) -> None:
        self.encoder = encoder
        self.output = container.add_stream(encoder)
        self.output.codec_context.subtitle_header = ASS_HEADER
        self.output.time_base = self.output.codec_context.time_base = Fraction(1, 1000)
        self._shown: list[tuple[int, int, str]] = []  # (begin, end, text) in milliseconds, of mov_text not yet written

    def __call__(self, packet: Any, shift: float) -> Iterator[Any]:
        try:
            lines = [_plain(sub.ass.decode("utf-8", "replace")) for sub in packet.decode() if hasattr(sub, "ass")]
        except av.error.FFmpegError:
            return
        text = "\n".join(lines).strip()
        if not text:
            return
        begin = round((float(packet.pts * packet.time_base) + shift) * 1000)
        end = begin + max(round(float((packet.duration or 0) * packet.time_base) * 1000), 1)
        if self.encoder != "mov_text":
            yield self._packet(begin, end, text)
            return
        yield from self._until(begin)
        self._shown.append((begin, end, text))

    def finish(self) -> Iterator[Any]:
        """The texts that are still shown."""
        yield from self._until(None)

    def _until(self, time: int | None) -> Iterator[Any]:
        """One packet for each stretch before `time` (None: all) in which the same texts are shown."""
        stop = max((end for _, end, _ in self._shown), default=0) if time is None else time
        marks = sorted({min(mark, stop) for begin, end, _ in self._shown for mark in (begin, end)} | {stop})
        for begin, end in pairwise(marks):
            if texts := [text for first, last, text in self._shown if first <= begin < last]:
                yield self._packet(begin, end, "\n".join(texts))
        self._shown = [(max(begin, stop), end, text) for begin, end, text in self._shown if end > stop]

    def _packet(self, begin: int, end: int, text: str) -> Any:
        payload = text.encode()
        made = av.Packet(len(payload).to_bytes(2, "big") + payload if self.encoder == "mov_text" else payload)
        made.time_base, made.pts, made.dts, made.duration = Fraction(1, 1000), begin, begin, end - begin
        made.stream = self.output
        return made
