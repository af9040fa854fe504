"""Deinterlace frames that are stored as two fields with FFmpeg's bwdif filter (one output frame per input frame)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
from av.filter import Graph


def deinterlaced(frames: Sequence[Any], position: int) -> Any:
    """Deinterlace the frame at `position` of up to three consecutive frames.

    bwdif uses the previous and the next frame, which are converted if they have another size or format. A new graph for each
    frame makes the result independent of the position where reading began.
    """
    first = frames[position]
    shape = {"width": first.width, "height": first.height, "format": first.format.name}
    frames = [frame if _is(frame, shape) else frame.reformat(**shape) for frame in frames]
    graph = Graph()
    source = graph.add_buffer(
        width=first.width, height=first.height, format=first.format, time_base=Fraction(1, 1), name="in"
    )
    filtered = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
    graph.link_nodes(source, filtered, graph.add("buffersink")).configure()
    found: list[Any] = []
    stamps = [(frame.pts, frame.time_base) for frame in frames]
    for number, frame in enumerate(frames):
        frame.pts, frame.time_base = number, Fraction(1, 1)
        graph.push(frame)
        found += _pull(graph)
    graph.push(None)
    found += _pull(graph)
    for frame, stamp in zip(frames, stamps, strict=True):
        frame.pts, frame.time_base = stamp
    result = found[position]
    result.colorspace, result.color_range = first.colorspace, first.color_range
    return result


def _is(frame: Any, shape: dict[str, Any]) -> bool:
    return {"width": frame.width, "height": frame.height, "format": frame.format.name} == shape


def _pull(graph: Any) -> list[Any]:
    found = []
    while True:
        try:
            found.append(graph.pull())
        except (av.error.BlockingIOError, av.error.EOFError):
            return found
