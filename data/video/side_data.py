"""Side data of decoded frames."""

from __future__ import annotations

from typing import Any

from av.sidedata.sidedata import Type


def side_data(frame: Any) -> dict[str, bytes]:
    """Contents by the name of their kind, such as DISPLAYMATRIX. Kinds without a name in PyAV have a name too: `UNNAMED_31`.

    PyAV raises ValueError for a frame with such a kind: EXIF, which cameras store in the JPEG frames of videos, and the views of
    stereo videos.
    """
    try:
        found = frame.side_data
    except ValueError:
        Type._missing_ = classmethod(_unnamed)  # type: ignore[method-assign, assignment]
        found = frame.side_data
    return {side.type.name: bytes(side) for side in found}


def _unnamed(kinds: type[Type], number: object) -> Any:
    """A member for a number of FFmpeg's AVFrameSideDataType that the enumeration lacks."""
    member: Any = object.__new__(kinds)
    member._name_, member._value_ = f"UNNAMED_{number}", number
    return member
