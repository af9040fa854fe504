"""What a clip is: frames in order, read one by one when asked, with a name, a size, times and a bit depth.

One clip object serves training, evaluation and upscaling. Nothing is decoded before it is asked for, and no clip holds
more than a few frames, however long the film.
"""

from data.clips.base import PADDINGS, Clip, neighbours
from data.clips.derived import ArrayClip, CroppedClip, DegradedClip, RegionClip, SubClip
from data.clips.files import FolderClip, TiffStackClip, VideoClip, frame_numbers, image_files

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
    "frame_numbers",
    "image_files",
    "neighbours",
]
