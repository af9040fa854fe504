"""Read and write videos with PyAV (FFmpeg).

`VideoFile` gives random access to the frames of a file; `VideoWriter` writes frames; `join` joins pieces and adds the
sound, subtitles and metadata of the source; `containers` lists the codecs and tracks that each container supports.
"""

from data.video.file import VideoFile
from data.video.info import VideoInfo

__all__ = ["VideoFile", "VideoInfo"]
