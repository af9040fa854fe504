"""Open video files with FFmpeg, without access to anything but files.

FFmpeg takes a name such as `12:30.mp4` or `http:x` for a URL and follows playlists to other files. So every path gets
the prefix `file:`, only the file protocol is allowed, and only formats that hold their own content are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import av

from data.files import named_errors
from data.foreign import VIDEOS, kind_of_file
from data.video.ending import top_boxes
from errors import InputError

VIDEO_SUFFIXES = frozenset(
    {
        ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".divx", ".mpg", ".mpeg", ".m2v", ".vob",
        ".ts", ".mts", ".m2ts", ".wmv", ".asf", ".flv", ".f4v", ".ogv", ".y4m", ".mxf", ".nut", ".dv", ".ivf", ".rm",
        ".h264", ".264", ".avc", ".h265", ".265", ".hevc", ".obu", ".mjpeg", ".mjpg",
    }
)  # fmt: skip
RAW_SUFFIXES = frozenset((".yuv", ".rgb", ".raw", ".nv12"))  # of values without a header
PLAYLISTS = frozenset((".m3u8", ".m3u", ".ffconcat", ".concat", ".sdp", ".mpd", ".pls", ".asx"))
# FFmpeg's names of the formats that hold their content in one file: no playlists, no image patterns, no devices.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegtsraw,mpegvideo,asf,flv,live_flv,ogg,yuv4mpegpipe,"
    "mxf,nut,dv,ivf,rm,gxf,wtv,h261,h263,h264,hevc,m4v,mjpeg,mjpeg_2000,obu,av1,vc1,vc1test,dirac,cavsvideo,avs2,avs3,"
    "vvc,bink,smk,roq,nsv,rpl,thp,amv,ea,film_cpk,flic,gif,apng,c93,vivo,xmv,swf,lmlm4,mvi,pva,nuv,ty,yop"
)
MOST_BOXES = 1000
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": FORMATS}


def url(path: str | Path) -> str:
    """The path for FFmpeg, with a prefix that prevents its use as a URL."""
    return f"file:{path}"


def open_input(path: str | Path) -> Any:
    """An open PyAV container. Raises InputError for playlists, pipes and devices, FFmpeg's own errors for the rest."""
    if Path(path).exists() and not Path(path).is_file():
        raise InputError(f"{path}: is not a regular file; expected a video file")
    refuse_playlist(path)
    format = "mjpeg" if Path(path).suffix.lower() in (".mjpeg", ".mjpg") else None  # else taken for a single JPEG
    return av.open(url(path), format=format, options=dict(OPTIONS), metadata_errors="replace")


def open_named(path: str | Path) -> Any:
    """`open_input` with InputError, which names the file, for every fault."""
    with naming(path):
        return open_input(path)


def is_cover(stream: Any) -> bool:
    """Whether a stream is a single picture attached to the file."""
    return stream.type == "video" and bool(int(stream.disposition) & int(av.stream.Disposition.attached_pic))


def refuse_playlist(path: str | Path) -> None:
    """Raises InputError if the file lists other files or streams in place of holding a video."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(512).lstrip(b"\xef\xbb\xbf \r\n\t")
    except OSError:
        return  # opening it will report the reason
    listed = head.startswith((b"#EXTM3U", b"ffconcat version", b"[playlist]", b"v=0\r\n", b"v=0\n", b"<asx", b"<ASX"))
    dash = head.startswith(b"<?xml") and b"<MPD" in head
    if listed or dash or path.suffix.lower() in PLAYLISTS:
        raise InputError(
            f"'{path}' is a playlist, which names other files or addresses: give the video itself, or make one file "
            "first (ffmpeg -i PLAYLIST -c copy video.mkv)"
        )


def _index_missing(path: str | Path) -> bool:
    """Whether an MP4 or MOV has no `moov` box among its top boxes."""
    try:
        with Path(path).open("rb") as file:
            kinds = {kind for kind, _ in islice(top_boxes(file), MOST_BOXES)}
    except OSError:
        return False
    return b"ftyp" in kinds and b"moov" not in kinds


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Convert FFmpeg's errors to one line that names the file."""
    try:
        with named_errors(path, "a video file"):
            yield
    except InputError:
        raise
    except Exception as error:
        if _index_missing(path):
            raise InputError(f"{path}: its index is missing: the file is cut short or still being written") from error
        if not Path(path).stat().st_size:
            raise InputError(f"{path}: cannot be read as a video: the file is empty") from error
        if Path(path).suffix.lower() in RAW_SUFFIXES:
            raise InputError(
                f"{path}: holds values without their size and format: convert it first, for example with "
                f"ffmpeg -f rawvideo -video_size 640x360 -pixel_format yuv420p -i IN{Path(path).suffix} OUT.y4m"
            ) from error
        if kind := kind_of_file(path, VIDEOS):
            raise InputError(f"{path}: cannot be read as a video: its content is of another kind {kind}") from error
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0] or type(error).__name__
        hint = "it is damaged, cut short or of another kind"
        raise InputError(f"{path}: cannot be read as a video ({reason}); {hint}") from error
