"""Clips: ordered frames with a name, a size, times and a bit depth, decoded on demand.

Training, evaluation and upscaling use the same clip objects. A clip decodes a frame when it is requested and keeps only a
few frames in memory, however long the video.
"""

from data.clips.animation import WebPClip
from data.clips.base import PADDINGS, Clip, neighbours
from data.clips.derived import ArrayClip, CroppedClip, DegradedClip, RegionClip, SubClip
from data.clips.files import FolderClip, TiffStackClip, image_files
from data.clips.frame_names import alike, counted_frames, frame_numbers, without_numbers
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
    "counted_frames",
    "frame_numbers",
    "image_files",
    "neighbours",
    "without_numbers",
]
