"""Metadata of pictures: ICC profile, EXIF, XMP, resolution, texts and the colour chunks of PNG.

`data.media.read_details` reads them, `Details.enlarged` adapts them to a picture of another size that is upright, and
`data.media.write_image` writes them as far as the format can hold them; `lost` names the rest.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

ORIENTATION = 0x0112  # EXIF and TIFF
JPEG_SEGMENT = 65_000  # bytes of EXIF or XMP in a JPEG, whose segments end at 65,533
METRES_PER_INCH = 0.0254
SOFTWARE = 305  # tag of TIFF
EXIF_IFD, GPS_IFD, RESOLUTION_UNIT = 0x8769, 0x8825, 0x0128
# EXIF tags of sizes in pixels -> axis (0: width); of resolutions -> axis
EXIF_SIZES = {0x0100: 0, 0x0101: 1, 0xA002: 0, 0xA003: 1}
EXIF_RESOLUTIONS = {0x011A: 0, 0x011B: 1, 0xA20E: 0, 0xA20F: 1}
TIFF_TEXTS = {270: "Description", 271: "Make", 272: "Model", 305: "Software", 306: "Creation Time", 315: "Author",
              33432: "Copyright"}  # fmt: skip
CARRIED = {
    ".png": {"profile", "exif", "xmp", "dpi", "texts", "colours"},
    ".jpg": {"profile", "exif", "xmp", "dpi"},
    ".webp": {"profile", "exif", "xmp"},
    ".bmp": {"dpi"},
    ".tif": {"profile", "xmp", "dpi"},
}
NAMES = {"profile": "ICC profile", "exif": "EXIF", "xmp": "XMP", "dpi": "resolution", "texts": "texts",
         "colours": "gamma and colour chunks", "further": "further pictures (previews, gain map, depth)"}  # fmt: skip
GAIN_MAP = rb"\s+(?:hdrgm|HDRGainMap):\w+\s*=\s*(?:\"[^\"]*\"|'[^']*')"  # attributes of XMP on the HDR rendition


@dataclass(frozen=True)
class Details:
    """profile: ICC.   exif: without the header "Exif".   dpi: pixels per inch (x, y).   texts: by keyword.
    colours: chunks of a PNG by kind.   further: number of other pictures in the file (JPEG), which no output has.
    inks: whether the colours are stored as CMYK, which is read as RGB.
    """

    profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    texts: tuple[tuple[str, str], ...] = ()
    colours: tuple[tuple[bytes, bytes], ...] = ()
    further: int = 0
    inks: bool = False

    def enlarged(self, size: tuple[int, int], scale: tuple[float, float]) -> Details:
        """For the upright picture of `size` (H, W) that has `scale` (y, x) times as many pixels: the resolution grows, so that the
        print keeps its size, and the orientation is removed.
        """
        turned = exif_orientation(self.exif) > 4
        dpi = self.dpi
        if dpi is not None and not all(map(math.isfinite, dpi)):
            dpi = None
        if dpi is not None:
            x, y = dpi[::-1] if turned else dpi
            dpi = x * scale[1], y * scale[0]
        exif = None if self.exif is None else _enlarged_exif(self.exif, size, scale, turned)
        return replace(self, dpi=dpi, exif=exif, xmp=None if self.xmp is None else _upright_xmp(self.xmp))

    @property
    def profile_colours(self) -> str:
        """The colours that the ICC profile describes: gray, RGB, CMYK, Lab ..."""
        space = (self.profile or b"")[16:20].decode("latin-1").strip()
        return {"GRAY": "gray"}.get(space, space or "no known colours")

    @property
    def profile_name(self) -> str:
        """The description in the ICC profile, such as "Display P3"; empty for none or a damaged one."""
        with suppress(Exception):  # littlecms is optional in Pillow
            from PIL import ImageCms

            return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(self.profile or b""))).strip()
        return ""

    def holdable(self, suffix: str) -> Details:
        """The part that a file with this suffix can hold. Texts are left to the writers."""
        suffix = _usual(suffix)
        held = CARRIED.get(suffix, set()) | {"texts"}
        kept = {field: getattr(self, field) for field in NAMES if field in held}
        if suffix == ".jpg":
            kept |= {field: None for field in ("exif", "xmp") if len(kept[field] or b"") > JPEG_SEGMENT}
        return Details(**kept)

    def lost(self, suffix: str) -> list[str]:
        """Names of the metadata that a file with this suffix cannot hold."""
        suffix, part = _usual(suffix), self.holdable(suffix)
        held = CARRIED.get(suffix, set())
        lost = [name for field, name in NAMES.items() if getattr(self, field) and not getattr(part, field)]
        lost += [NAMES["texts"]] if self.texts and "texts" not in held else []
        if "texts" in lost:
            kept = {".jpg": {"Comment"}, ".tif": {*TIFF_TEXTS.values(), "Comment"}}.get(suffix, set())
            left = [key for key, _ in self.texts if key not in kept]
            lost.remove("texts")
            lost += [f"texts ({', '.join(left[:4])})"] if left else []
        return lost

    def text(self, *keys: str) -> str | None:
        """The first text with one of these keywords."""
        return next((value for wanted in keys for key, value in self.texts if key == wanted), None)


def _usual(suffix: str) -> str:
    return {".jpeg": ".jpg", ".tiff": ".tif"}.get(suffix.lower(), suffix.lower())


# --- EXIF and XMP -----------------------------------------------------------------------------------------------------


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Pillow's warnings about damaged tags."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _loaded(exif: bytes) -> Image.Exif:
    found = Image.Exif()
    found.load(exif)
    return found


def exif_orientation(exif: bytes | None) -> int:
    """The orientation, 1 to 8; 1 for missing or damaged EXIF."""
    with suppress(Exception), _quiet():  # damaged EXIF: Pillow raises nearly any exception
        value = _loaded(exif).get(ORIENTATION, 1) if exif else 1
        return value if value in range(1, 9) else 1
    return 1


def _enlarged_exif(exif: bytes, size: tuple[int, int], scale: tuple[float, float], turned: bool) -> bytes | None:
    """EXIF of the new picture: without orientation and preview, with its size and resolution. None for damaged EXIF."""
    try:
        with _quiet():
            return _changed_exif(_loaded(exif), size, scale, turned)
    except Exception:
        return None


def _changed_exif(found: Image.Exif, size: tuple[int, int], scale: tuple[float, float], turned: bool) -> bytes:
    found.pop(ORIENTATION, None)
    for tags in (found, found.get_ifd(EXIF_IFD)):
        for code, axis in EXIF_SIZES.items():
            if code in tags:
                tags[code] = size[1 - axis]
        if turned:
            for x, y in ((0x011A, 0x011B), (0xA20E, 0xA20F)):
                if x in tags and y in tags:
                    tags[x], tags[y] = tags[y], tags[x]
        for code, axis in EXIF_RESOLUTIONS.items():
            if code in tags:
                tags[code] = float(tags[code]) * scale[1 - axis]
    content = found.tobytes()
    return content[6:] if content.startswith(b"Exif\0\0") else content


def _upright_xmp(xmp: bytes) -> bytes:
    """XMP with tiff:Orientation 1, and without the description of a gain map, which the output does not have."""
    xmp = re.sub(GAIN_MAP, b"", xmp)
    return re.sub(rb"(tiff:Orientation(?:\s*=\s*[\"']|>\s*))[2-8]", rb"\g<1>1", xmp)


def exif_of_tiff(path: Any) -> bytes | None:
    """EXIF and GPS tags of a TIFF; None if it has neither or Pillow cannot read it."""
    with suppress(Exception), _quiet(), Image.open(path, formats=("TIFF",)) as image:
        tags, found = image.getexif(), Image.Exif()
        for ifd in (EXIF_IFD, GPS_IFD):
            if inner := tags.get_ifd(ifd):
                found.get_ifd(ifd).update(inner)
                found[ifd] = dict(inner)
        if not found:
            return None
        for code in TIFF_TEXTS:
            if code in tags:
                found[code] = tags[code]
        return found.tobytes()[6:]
    return None


# --- reading ----------------------------------------------------------------------------------------------------------


def of_pillow(image: Image.Image) -> Details:
    """Details of an open JPEG, WebP, BMP or other picture."""
    info = image.info
    exif, comment = info.get("exif"), info.get("comment")
    if isinstance(exif, bytes) and exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    if isinstance(comment, bytes):
        comment = comment.decode("utf-8", "replace").strip("\0")
    only_aspect = image.format == "JPEG" and not info.get("jfif_unit", 1)  # unit 0: an aspect ratio, no resolution
    dpi = None if only_aspect else info.get("dpi")
    with suppress(TypeError, ValueError):
        dpi = (float(dpi[0]), float(dpi[1])) if dpi and min(dpi) > 0 else None
    return Details(
        profile=info.get("icc_profile") or None,
        exif=exif or None,
        xmp=info.get("xmp") or None,
        dpi=dpi,
        texts=(("Comment", comment),) if comment else (),
        further=_further_pictures(image),
        inks=image.mode == "CMYK",
    )


def _further_pictures(image: Image.Image) -> int:
    """Number of pictures in a JPEG after the first: of its index (MPF), or the gain map that only XMP describes."""
    listed = getattr(image, "n_frames", 1) - 1 if image.format == "MPO" else 0
    return listed or int(image.format in ("JPEG", "MPO") and b"hdrgm:Version" in (image.info.get("xmp") or b""))


# --- writing ----------------------------------------------------------------------------------------------------------


def pillow_options(details: Details, suffix: str) -> dict[str, Any]:
    """Arguments of Pillow's `save` for JPEG, WebP and BMP."""
    kept, options = details.holdable(suffix), dict[str, Any]()
    if kept.profile:
        options["icc_profile"] = kept.profile
    if kept.exif:
        options["exif"] = b"Exif\0\0" + kept.exif
    if kept.xmp:
        options["xmp"] = kept.xmp
    if kept.dpi:
        options["dpi"] = tuple(min(dots, 65535) for dots in kept.dpi)
    if _usual(suffix) == ".jpg" and (comment := kept.text("Comment")) and len(comment.encode()) <= JPEG_SEGMENT:
        options["comment"] = comment
    return options


def tiff_options(details: Details) -> dict[str, Any]:
    """Arguments of tifffile's `write`; `extratags` is a list to which others can be added."""
    tags: list[tuple] = []
    for code, key in TIFF_TEXTS.items():
        text = details.text(key, "Comment") if code == 270 else details.text(key)
        if text and code != SOFTWARE:
            content = text.encode() + b"\0"
            tags.append((code, 2, len(content), content, True))
    if details.xmp:
        tags.append((700, 1, len(details.xmp), details.xmp, True))
    software = details.text("Software") or ""
    options: dict[str, Any] = {"iccprofile": details.profile, "extratags": tags, "software": software.encode() or None}
    if details.dpi:
        options |= {"resolution": details.dpi, "resolutionunit": "INCH"}
    return options
