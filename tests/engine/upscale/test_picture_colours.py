"""Pictures with wide-gamut profiles: all bits and the profile stay in pictures, and videos get the tags."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import ImageCms

from data.details import Details
from data.media import read_details, read_image
from data.png_details import with_chunks
from engine.upscale.request import Request
from engine.upscale.run import upscale
from tests.engine.small import moving_clip

# red, green and blue of Display P3, adapted to D50
P3 = {b"rXYZ": (0.51512, 0.24120, -0.00105), b"gXYZ": (0.29198, 0.69225, 0.04189), b"bXYZ": (0.15710, 0.06657, 0.78407)}


def profile(name: str) -> bytes:
    """An RGB profile of this name with Display P3's primaries; sRGB's own for "sRGB"."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    if name == "sRGB":
        return bytes(content)
    for number in range(struct.unpack(">I", content[128:132])[0]):
        tag, place, size = struct.unpack(">4sII", content[132 + 12 * number : 144 + 12 * number])
        if tag in P3:
            content[place + 8 : place + 20] = struct.pack(">3i", *(round(value * 65536) for value in P3[tag]))
        if tag == b"desc":
            text = name.encode("utf-16-be")
            described = b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, len(text), 28) + text
            content[place : place + size] = described.ljust(size, b"\0")[:size]
    return bytes(content)


def picture(bands: int = 3) -> np.ndarray:
    """uint16 whose low byte differs from the high byte."""
    colours = moving_clip(1, 16, 24).array(0).astype(np.uint16) * 257 + 3
    return np.concatenate([colours, np.full((16, 24, 1), 65535, np.uint16)], axis=-1)[..., :bands].copy()


def save(path: Path, details: Details, bands: int = 3) -> Path:
    if path.suffix == ".png":
        path.write_bytes(with_chunks(bytes(imagecodecs.png_encode(picture(bands))), details))
    else:
        extra = ["unassalpha"] if bands == 4 else None
        tifffile.imwrite(path, picture(bands), photometric="rgb", iccprofile=details.profile, extrasamples=extra)
    return path


@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("out", ["out.png", "out.tif", "out"])
def test_sixteen_bits_and_the_profile_stay(weight, tmp_path, bands, suffix, out):
    details = Details(profile=profile("Display P3"))
    source = save(tmp_path / f"in{suffix}", details, bands)
    upscale(Request(source, tmp_path / out, weight, precision="fp32"))
    path = tmp_path / out if "." in out else tmp_path / "out" / f"in{suffix}"
    made = read_image(path)
    assert made.dtype == np.uint16 and made.shape == (32, 48, bands) and len(np.unique(made[..., :3] % 257)) > 200
    assert read_details(path).profile == details.profile and details.profile_name == "Display P3"
    assert np.abs(made[::2, ::2, :3].astype(int) - picture()).mean() < 3000


def tags(path: Path) -> tuple[int, int, int]:
    with av.open(str(path)) as file:
        context = file.streams.video[0].codec_context
        return context.color_primaries, context.color_trc, context.colorspace


CICP = ((b"cICP", bytes((9, 16, 0, 1))),)  # BT.2020, PQ


@pytest.mark.parametrize(("details", "expected", "named"), [
    (Details(profile=profile("Display P3")), (12, 13, 1), ""), (Details(colours=CICP), (9, 16, 9), ""),
    (Details(profile=profile("sRGB")), (2, 2, 6), ""), (Details(profile=profile("Wide")), (2, 2, 6), "ICC profile (Wide)"),
    (Details(colours=((b"cICP", bytes((200, 1, 0, 1))),)), (2, 2, 6), ""),
])  # fmt: skip
def test_videos_of_pictures_have_their_colours(weight, tmp_path, capsys, details, expected, named):
    save(tmp_path / "in.png", details)
    upscale(Request(tmp_path / "in.png", tmp_path / "out.mp4", weight, precision="fp32"))
    assert tags(tmp_path / "out.mp4") == expected
    said = [line for line in capsys.readouterr().out.splitlines() if "profile" in line]
    assert bool(said) == bool(named) and all(named in line for line in said)


def test_several_profiles_in_a_video_of_pictures_are_named(weight, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for number, name in enumerate(("sRGB", "Display P3", "", "Wide")):
        save(tmp_path / "in" / f"{number}.png", Details(profile=profile(name) if name else None))
    upscale(Request(tmp_path / "in", tmp_path / "out.mp4", weight, precision="fp32"))
    assert "several colour spaces ('sRGB', 'Display P3', 'Wide')" in capsys.readouterr().out
    for number in (1, 3):
        (tmp_path / "in" / f"{number}.png").write_bytes((tmp_path / "in" / "0.png").read_bytes())
    upscale(Request(tmp_path / "in", tmp_path / "same.mp4", weight, precision="fp32"))
    assert "colour space" not in capsys.readouterr().out
