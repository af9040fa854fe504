"""Compare how containers preserve a source's tracks: python benchmarks/containers.py [--out containers.md]

Makes small videos with sound of many codecs, subtitles, chapters and several frame rates, writes each to every container
without a network, reads the results back and prints tables in Markdown: kept (copied), converted (with the new codec),
refused (before the work) or left out.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import av

import cli
from data.video import VideoFile, track_plan
from data.video.containers import CONTAINERS, LIMITS, check_codec, default_codec
from errors import InputError
from tests.data.video.make import video
from tests.data.video.test_join import RATES, SOURCES, VARIABLE, write
from tests.data.video.test_streams import covers, dispositions, titles, with_cover, with_titles
from tests.data.video.test_tracks import with_everything
from tests.media_info import media_info, onset

CLOSE = [k * 0.0004 for k in range(12)]  # frames less than a millisecond apart


def table(title: str, rows: dict[str, Callable[[str, Path], str]]) -> str:
    """One row for each case, one column for each container."""
    lines = [f"| {title} | {' | '.join(CONTAINERS)} |", "|" + "---|" * (len(CONTAINERS) + 1)]
    for name, attempt in rows.items():
        cells = []
        for suffix in CONTAINERS:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    cells.append(attempt(suffix, Path(folder)))
                except InputError:
                    cells.append("refused")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def codec_case(codec: str) -> Callable[[str, Path], str]:
    def attempt(suffix: str, folder: Path) -> str:
        check_codec(folder / f"a{suffix}", codec, 8, False)
        default = codec == default_codec(f"a{suffix}", 8, False)
        return "default" if default else "kept"

    return attempt


def depth_case(bits: int, lossless: bool) -> Callable[[str, Path], str]:
    return lambda suffix, folder: default_codec(folder / f"a{suffix}", bits, lossless)


def rate_case(times: list[float], rate: Fraction) -> Callable[[str, Path], str]:
    def attempt(suffix: str, folder: Path) -> str:
        found = media_info(write(folder / f"a{suffix}", times, rate)).from_first
        worst = max(abs(a - b) for a, b in zip(found, times, strict=True))
        return f"{1000 * worst:.2f} ms"

    return attempt


def sound_case(sound: str) -> Callable[[str, Path], str]:
    def attempt(suffix: str, folder: Path) -> str:
        how = {"codec": "wmv2", "base": Fraction(1, 1000)} if sound == "wmav2" else {}
        source = VideoFile(video(folder / SOURCES[sound], sound=[sound], **how))
        out = folder / f"out{suffix}"
        plan = track_plan.plan(source.path, source.info.stream, out, source.start)
        write(out, source.times, source.info.fps, source)
        late = round(
            1000 * abs(onset(out) - media_info(out).times[0] - (onset(source.path) - media_info(source.path).times[0]))
        )
        return f"{'kept' if plan.tracks[0].to is None else plan.tracks[0].to} ({late} ms)"

    return attempt


def stream_case(kind: str) -> Callable[[str, Path], str]:
    def attempt(suffix: str, folder: Path) -> str:
        source = VideoFile(with_everything(folder / "in.mkv"))
        out = folder / f"out{suffix}"
        plan = track_plan.plan(source.path, source.info.stream, out, source.start)
        before, after = media_info(source.path), media_info(write(out, source.times, source.info.fps, source))
        if kind == "chapters":
            return "kept" if len(after.chapters) == len(before.chapters) else "left out"
        if kind == "title and place":
            has = {key.lower() for key in after.metadata}
            return "kept" if {"title", "location"} <= has else "title" if "title" in has else "left out"
        chosen = [track for track in plan.tracks if track.kind == kind]
        if not chosen:
            return "left out"
        same = [s[2:] for s in before.streams if s[0] == kind] == [s[2:] for s in after.streams if s[0] == kind]
        return (chosen[0].to or "kept") + ("" if same or kind == "subtitle" else ", without language")

    return attempt


def cover_case(suffix: str, folder: Path) -> str:
    with_cover(folder / "in.mkv")
    source = VideoFile(folder / "in.mkv")
    return "kept" if covers(write(folder / f"out{suffix}", source.times, source.info.fps, source)) else "left out"


def title_case(suffix: str, folder: Path) -> str:
    source = VideoFile(with_titles(folder / "in.mkv"))
    out = write(folder / f"out{suffix}", source.times, source.info.fps, source)
    forced = any(flags & int(av.stream.Disposition.forced) for flags in dispositions(out))
    return "left out" if "a talk" not in titles(out) else "kept" if forced else "titles"


def tables() -> str:
    rates: dict[str, Callable[[str, Path], str]] = {
        f"{name} frames/s": rate_case([float(k / rate) for k in range(9)], rate) for name, rate in RATES.items()
    }
    rates |= {
        "variable": rate_case(VARIABLE, Fraction(20)),
        "frames 0.4 ms apart": rate_case(CLOSE, Fraction(2500)),
    }
    depths = {"8 bits, lossless": (8, True), "10 bits": (10, False), "10 bits, lossless": (10, True)}
    return "\n\n".join(
        (
            table("video codec", {codec: codec_case(codec) for codec in LIMITS}),
            table("depth", {name: depth_case(*case) for name, case in depths.items()}),
            table("frame times: largest error", rates),
            table("sound (error of its start)", {name: sound_case(name) for name in SOURCES}),
            table(
                "of an .mkv",
                {
                    "two sound tracks, languages, default": stream_case("audio"),
                    "SubRip subtitles": stream_case("subtitle"),
                    "chapters": stream_case("chapters"),
                    "title and place": stream_case("title and place"),
                    "titles of tracks, forced flag": title_case,
                    "cover picture": cover_case,
                },
            ),
        )
    )


def main() -> None:
    parser = cli.Parser(description="Compare how video containers preserve the tracks of a source.")
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    options = parser.parse_args()
    text = tables()
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
