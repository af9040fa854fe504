"""What upscale.py is asked to do: the request, and from its words to networks, clips and jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from data import frame_writer, video_join
from data.bands import Bands
from data.clips import Clip, FolderClip, VideoClip
from data.clips.files import TiffStackClip, image_files
from data.files import sha256
from data.media import IMAGE_SUFFIXES, probe
from data.naming import natural_key
from engine.checkpoint import DEFAULT_SCALE, RELEASED_MTDO, load_network, released
from engine.restore import output_size
from engine.restore.spacing import set_spacing
from engine.upscale import comparison
from engine.upscale.job import ClipJob
from engine.upscale.places import check_places
from errors import InputError

FILMS = frozenset(
    (*video_join.VIDEO_SUFFIXES, ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".wmv", ".flv", ".y4m", ".ogv", ".3gp")
)
CONTEXT = 4  # key frames that a chunk of a space-time network sees beyond its ends


@dataclass(frozen=True)
class Request:
    """What the user asked for; names as upscale.py's options."""

    source: Path
    out: Path
    weight: Path | None = None
    scale: float | None = None
    fps: str | None = None  # "x2": twice as many; a number: frames per second, a whole multiple of the source's
    times: tuple[float, ...] = ()
    precision: str = "auto"
    tile: int | None = None
    exact: bool = False
    ensemble: bool = False
    compile: bool = False
    device: str = "auto"
    padding: str = "reflect"
    spacing: int | Literal["auto"] | None = None  # None: as the weights say
    context: int = CONTEXT
    input_fps: float | None = None
    bands: tuple[int, ...] | None = None  # one or three, from 1
    limits: tuple[float, float] | None = None  # stored values that become 0 and 1
    percentiles: tuple[float, float] | None = None
    image_format: str | None = None
    codec: str | None = None
    crf: int = 16
    lossless: bool = False
    compare: bool = False
    preview: int | None = None
    resume: bool = False
    overwrite: bool = False

    def stretch(self) -> Bands | None:
        """How stored bands become colours, where it was said."""
        asked = Bands(self.bands, self.percentiles, self.limits)
        return None if asked == Bands() else asked


def open_network(request: Request) -> tuple[Any, Path]:
    """The network and the file it came from: the weights asked for, or the small released ones that fit the job.

    Those are MTDO's of the scale, and STNO's for other scales and for frames in between.
    """
    space_time = bool(request.fps or request.times)
    scale = DEFAULT_SCALE if request.scale is None else request.scale
    path = request.weight or released("stno" if space_time or scale not in RELEASED_MTDO else "mtdo", scale)
    network: Any = load_network(path)
    if space_time and network.config.name == "mtdo":
        raise InputError(
            f"'{path}' holds MTDO weights, which make no frames in between: leave --fps and --times out, or take STNO"
        )
    if request.spacing is not None:
        set_spacing(network, request.spacing, path)
    if network.config.name == "mtdo" and request.scale not in (None, network.config.scale):
        raise InputError(
            f"'{path}' is for scale {network.config.scale}, asked for is {request.scale:g}: "
            f"say --scale {network.config.scale} or take other weights (STNO takes any scale)"
        )
    return network, path


def in_between(request: Request, network: Any, clip: Clip) -> tuple[float, ...]:
    """Times of the new frames in each gap; empty if there are none."""
    if request.times:
        if list(request.times) != sorted(set(request.times)) or not all(0 < time < 1 for time in request.times):
            raise InputError("--times: expected rising numbers between 0 and 1, such as 0.25,0.5,0.75")
        return request.times
    if not request.fps:
        return ()
    try:
        factor = Fraction(request.fps.removeprefix("x"))
        factor = factor if request.fps.startswith("x") else factor / Fraction(source_fps(clip, request))
    except (ValueError, ZeroDivisionError):
        raise InputError(f"--fps '{request.fps}': expected a multiple such as x2, or frames per second") from None
    whole = round(factor)
    if whole < 1 or abs(factor - whole) > 1e-3:
        raise InputError(
            f"--fps {request.fps} is {float(factor):.3f} times the source's: whole multiples work, such as x2"
        )
    return tuple(k / whole for k in range(1, whole))


def source_fps(clip: Clip, request: Request) -> Fraction:
    if isinstance(clip, VideoClip):
        return clip.film.info.fps
    return Fraction(request.input_fps or clip.fps or 25).limit_denominator(1001)


def open_clips(request: Request) -> list[tuple[Clip, Path]]:
    """The clip in the source, or all clips of a folder of clips, each with its output."""
    source, out = request.source, request.out
    if not source.exists():
        raise InputError(f"'{source}' does not exist: expected a video, a TIFF stack, a folder of frames or of clips")
    check_places([out], inputs(request))
    if source.is_file() or image_files(source):
        return [(open_clip(source, request), out)]
    members = sorted((path for path in source.iterdir() if is_clip(path)), key=lambda path: natural_key(path.name))
    if not members:
        raise InputError(f"'{source}' holds no frames, videos or folders of frames")
    if out.suffix.lower() in (*video_join.VIDEO_SUFFIXES, *frame_writer.STACK_SUFFIXES):
        raise InputError(f"'{source}' holds {len(members)} clips: the output must be a folder, not '{out.name}'")
    check_members(source, members, request.compare)
    return [(open_clip(path, request), out / member_name(path)) for path in members]


def inputs(request: Request) -> list[Path]:
    """What is read and must stay as it is."""
    return [request.source, *([request.weight] if request.weight else [])]


def check_members(source: Path, members: Sequence[Path], compare: bool) -> None:
    """Raises InputError if two clips of a folder would be written to one file."""
    owners: dict[Path, Path] = {}
    for path in members:
        name = Path(member_name(path))
        for written in (name, comparison.comparison_path(name)) if compare else (name,):
            if written in owners:
                raise InputError(
                    f"'{source}': '{owners[written].name}' and '{path.name}' would both be written to '{written}': "
                    "rename one of them, or upscale them one by one"
                )
            owners[written] = path


def is_clip(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    return bool(image_files(path)) if path.is_dir() else path.suffix.lower() in (*FILMS, *frame_writer.STACK_SUFFIXES)


def member_name(path: Path) -> str:
    """The output of one clip of many: of the same kind as the source."""
    if path.is_dir() or path.suffix.lower() in (*video_join.VIDEO_SUFFIXES, *frame_writer.STACK_SUFFIXES):
        return path.name
    return f"{path.stem}.mp4"


def open_clip(path: Path, request: Request) -> Clip:
    if path.is_dir():
        return FolderClip(path, fps=request.input_fps, bands=request.stretch())
    if path.suffix.lower() in frame_writer.STACK_SUFFIXES:
        return TiffStackClip(path, fps=request.input_fps, bands=request.stretch())
    if path.suffix.lower() in IMAGE_SUFFIXES and probe(path).pages == 1:
        return FolderClip([path], fps=request.input_fps, bands=request.stretch())
    if request.stretch():
        raise InputError(f"'{path}' is a film: bands, limits and percentiles are for TIFF and other images")
    return VideoClip(path)


def make_job(clip: Clip, out: Path, request: Request, network: Any, times: Sequence[float], weights: Path) -> ClipJob:
    """What is to be made of `clip`. Unusable clips are found here, before any work."""
    suffix = out.suffix.lower()
    kind = (
        "film"
        if suffix in video_join.VIDEO_SUFFIXES
        else "stack"
        if suffix in frame_writer.STACK_SUFFIXES
        else "frames"
    )
    if kind == "frames" and suffix in IMAGE_SUFFIXES | FILMS:
        known = ", ".join((*video_join.VIDEO_SUFFIXES, ".tif"))
        raise InputError(f"'{out}': cannot write {suffix} here: expected a folder, or a file as {known}")
    check_sizes(clip)
    wanted = None
    if network.config.name == "stno":
        scale = DEFAULT_SCALE if request.scale is None else request.scale
        wanted = (round(scale * clip.size[0]), round(scale * clip.size[1]))
        if min(wanted) < 1:
            raise InputError(
                f"scale {scale:g} leaves nothing of {clip.size[1]}x{clip.size[0]} pixels: take a larger one"
            )
    facts = {
        "weights": sha256(weights),
        "padding": request.padding,
        "spacing": getattr(network.config, "spacing", None),
        "context": request.context,
        "ensemble": request.ensemble,
    }
    codec = request.codec or ("vp9" if suffix == ".webm" else "h264")
    return ClipJob(
        clip=clip,
        out=out,
        kind=kind,
        size=output_size(network, clip.size, wanted),
        times=tuple(times),
        image_suffix=image_suffix(clip, request),
        compare=request.compare,
        codec=codec,
        crf=request.crf,
        lossless=request.lossless,
        fps=source_fps(clip, request) * (len(times) + 1),
        facts=facts,
    )


def check_sizes(clip: Clip) -> None:
    """Raises InputError if an image of a folder has another size or a damaged header: in the middle it would be late."""
    for path in clip.paths if isinstance(clip, FolderClip) else ():
        height, width = probe(path).size
        if (height, width) != clip.size:
            raise InputError(
                f"{path}: {width}x{height} pixels, the clip's first frame has {clip.size[1]}x{clip.size[0]}; all frames "
                "of a clip must have one size"
            )


def image_suffix(clip: Clip, request: Request) -> str:
    """How single frames are written: as asked for; TIFF where the source is one or has floats; else PNG."""
    if request.image_format:
        return f".{request.image_format}"
    first = clip.paths[0].suffix.lower() if isinstance(clip, FolderClip) else ""
    tiff = first in frame_writer.STACK_SUFFIXES or isinstance(clip, TiffStackClip) or clip.bit_depth == 32
    return ".tif" if tiff else ".png"


def finished(job: ClipJob, request: Request) -> bool:
    """With --resume, an output without a work folder is complete."""
    return request.resume and job.out.exists() and not job.work.exists()
