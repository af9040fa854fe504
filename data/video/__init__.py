"""Videos in and out through PyAV (FFmpeg).

`VideoFile` gives random access to the frames of a file; `VideoWriter` writes frames; `join` puts pieces together with
the sound, subtitles and metadata of the source; `containers` says what each kind of file can hold.
"""

from data.video.file import VideoFile, VideoInfo

__all__ = ["VideoFile", "VideoInfo"]
