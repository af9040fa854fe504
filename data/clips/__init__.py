"""Clips: ordered frames with a name, a size, times and a bit depth, decoded on demand.

Training, evaluation and upscaling use the same clip objects. A clip decodes a frame when it is requested and keeps only a
few frames in memory, however long the video.
"""

from data.clips.animation import WebPClip
from data.clips.base import PADDINGS, Clip, neighbours
from data.clips.derived import ArrayClip, CroppedClip, DegradedClip, RegionClip, SubClip
from data.clips.files import FolderClip, TiffStackClip, alike, are_dates, frame_numbers, image_files, without_numbers
from data.clips.video import VideoClip

__all__ = [
    "PADDINGS",
    "ArrayClip",
    "Clip",
    "CroppedClip",
    "DegradedClip",
    "FolderClip",
    "RegionClip",
    "SubClip",
    "TiffStackClip",
    "VideoClip",
    "WebPClip",
    "alike",
    "are_dates",
    "frame_numbers",
    "image_files",
    "neighbours",
    "without_numbers",
]
