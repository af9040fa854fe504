"""Open the clip in a file or a folder of frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data import frame_writer, tiff
from data.clips import Clip, FolderClip, VideoClip, WebPClip
from data.clips.animation import is_animated_webp
from data.clips.files import TiffStackClip
from data.files import is_file
from data.media import IMAGE_SUFFIXES, RASTER_SUFFIXES, UNREAD_SUFFIXES, holds_tiff, is_image, probe, read_measured
from data.raster import JPEG_2000_SUFFIXES, is_jpeg_2000
from data.validity import fill_note, undeclared_fill
from data.video.containers import OUTPUT_SUFFIXES
from data.video.opening import VIDEO_SUFFIXES
from engine import distributed
from engine.distributed import say
from engine.upscale import targets
from engine.upscale.failures import Failures
from engine.upscale.members import split_pictures
from engine.upscale.request import Request
from errors import InputError

# Suffixes of files that are not written here: nobody names a folder of frames so.
NO_FOLDERS = UNREAD_SUFFIXES | {".m4a", ".mp3", ".wav", ".zip", *JPEG_2000_SUFFIXES}
LARGE_VIDEO = 200_000_000  # bytes of a source from which one decoding is slow enough to be announced


def open_clip(path: Path, out: Path, request: Request, failures: Failures) -> Clip:
    """The clip in a file or a folder of frames for the output `out`, in [0, 1]. InputError for one that cannot be used."""
    clip = open_folder(path, out, request, failures) if path.is_dir() else open_file(path, request)
    return stretched(clip, out, request)


def open_folder(path: Path, out: Path, request: Request, failures: Failures) -> Clip:
    """The frames in a folder, as stored."""
    try:
        pictures, _ = split_pictures(path, stills=False)
        return open_frames(pictures or path, path.resolve().name, out, request, failures)
    except InputError as error:
        advice = "" if "cannot be read" in str(error) else " (single pictures: --stills)"
        raise InputError(str(error).replace(", or set allow_gaps", "") + advice) from None


def open_frames(
    frames: Path | Sequence[Path], name: str, out: Path, request: Request, failures: Failures
) -> FolderClip:
    """Files as frames of one clip. Unreadable ones are left out of a folder of frames, and an error for other outputs, which have
    no place for a missing frame.
    """
    clip = FolderClip(frames, name, fps=request.input_fps, bands=request.stretch())
    bad = distributed.broadcast(unreadable(clip.paths) if distributed.is_main() else {})
    good = [path for path in clip.paths if path not in bad]
    if bad and (not good or request.fps or request.times or request.compare or not is_folder_name(out)):
        first = next(iter(bad.values()))
        raise InputError(first if len(bad) == 1 else f"{first}; {len(bad)} of {len(clip)} frames cannot be read")
    if bad:
        failures.leave_out(bad)
        clip = FolderClip(good, name, fps=request.input_fps, bands=request.stretch(), allow_gaps=True)
    clip.examine()
    return clip


def unreadable(paths: Sequence[Path]) -> dict[Path, str]:
    """The files that cannot be read as an image, and why."""
    bad = {}
    for path in paths:
        try:
            read_measured(path)
        except InputError as error:
            bad[path] = str(error)
    return bad


def stretched(clip: Clip, out: Path, request: Request) -> Clip:
    """The clip with its values in [0, 1]. InputError for more bands than colours, unless the request chooses some or the output
    `out` is TIFF, which holds all.
    """
    if not isinstance(clip, FolderClip | TiffStackClip):
        return clip
    if (count := clip.colourless_bands) and request.bands is None:
        into_tiff = is_folder_name(out) and image_suffix(clip, request) == ".tif"
        if not (into_tiff or out.suffix.lower() in frame_writer.STACK_SUFFIXES):
            raise InputError(
                f"{clip.source(0)}: has {count} bands, and a picture or video shows one or three: choose them, for example --bands "
                f"{'3,2,1' if count > 2 else '1'}, or write .tif, which holds all"
            )
        clip.take_all_bands()
    if clip.from_tiff and (path := clip.file(0)) is not None and tiff.has_palette(path):
        say(f"'{path.name}': its palette is converted to RGB")
    if message := clip.stretch_by_default():
        say(message)
    path = clip.paths[0] if isinstance(clip, FolderClip) else clip.path
    if clip.from_tiff and not tiff.nodata_text(path) and (holes := clip.holes(0)) is not None:
        fill = undeclared_fill(holes[0], None)
        if fill is not None:
            say(fill_note(path.name, fill))
    return clip


def open_file(path: Path, request: Request) -> Clip:
    """The clip in a file, as stored."""
    if path.suffix.lower() in frame_writer.STACK_SUFFIXES and (holds_tiff(path) or not is_image(path)):
        stack = TiffStackClip(path, fps=request.input_fps, bands=request.stretch())
        stack.examine()
        return stack
    if is_jpeg_2000(path):
        raise InputError(
            f"'{path}': JPEG 2000 is read with rasterio (pip install -r requirements-geo.txt) and becomes a GeoTIFF: name the "
            "output .tif or a folder"
        )
    if path.suffix.lower() in UNREAD_SUFFIXES or is_envi(path):
        raise InputError(f"'{path}': {path.suffix or 'such'} files are not read; {remedy(path)}")
    named = path.suffix.lower() in IMAGE_SUFFIXES
    if (named or (path.suffix.lower() not in VIDEO_SUFFIXES and is_image(path))) and probe(path).pages == 1:
        clip = FolderClip([path], name=path.stem, fps=request.input_fps, bands=request.stretch())
        clip.examine()
        return clip
    if request.stretch():
        raise InputError(f"'{path}' is a video: --bands, --limits and --percentiles are for TIFF and other images")
    if is_animated_webp(path):
        return WebPClip(path, fps=request.input_fps)
    if path.is_file() and path.stat().st_size > LARGE_VIDEO:
        say(f"'{path.name}': scanning the video once for frames, damage and scene cuts")
    return VideoClip(path, fps=request.input_fps, deinterlace=request.deinterlace)


def is_envi(path: Path) -> bool:
    """Whether a file has the name of an ENVI raster: any suffix or none, with a header `.hdr` next to it, which is no HDR picture."""
    known, header = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES), path.with_suffix(".hdr")
    if path.suffix.lower() in known or path.suffix == ".hdr" or not is_file(header):
        return False
    with header.open("rb") as file:
        return file.read(4) == b"ENVI"


def remedy(path: Path) -> str:
    """How to convert a file of a kind that is not read."""
    if path.suffix.lower() in RASTER_SUFFIXES or is_envi(path):
        return f"convert it to GeoTIFF first: gdal_translate '{path.name}' '{path.stem}.tif'"
    return "convert it first, for example to PNG or TIFF"


def is_folder_name(out: Path) -> bool:
    """Whether an output is a folder of frames by its name: `large`, but also `large.v2`."""
    known = (*OUTPUT_SUFFIXES, *IMAGE_SUFFIXES, *VIDEO_SUFFIXES, *NO_FOLDERS)
    return str(out) != "-" and out.suffix.lower() not in known


def image_suffix(clip: Clip, request: Request) -> str:
    """Suffix of single frames: the requested one; TIFF if the source is TIFF or has floats; else PNG."""
    if request.image_format:
        return f".{request.image_format}"
    base = targets.base_of(clip)
    first = base.paths[0].suffix.lower() if isinstance(base, FolderClip) else ""
    tiff = first in frame_writer.STACK_SUFFIXES or isinstance(base, TiffStackClip) or clip.bit_depth == 32
    return ".tif" if tiff else ".png"
