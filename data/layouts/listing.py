"""Entries returned by finders, and the listing of folders."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.bands import Bands
from data.clips import Clip, FolderClip, TiffStackClip, VideoClip, WebPClip, image_files
from data.clips.animation import is_animated_webp
from data.files import named_errors
from data.naming import is_hidden, natural_key
from data.tiff_pages import is_tiff
from errors import InputError

Source = Path | Sequence[Path]  # a folder of frames, a video, or a list of files


@dataclass(frozen=True)
class ClipQuery:
    """The request. scale: None if it is not an integer (LR files are then ignored)."""

    scale: int | None
    split: str | None


@dataclass(frozen=True)
class ClipFiles:
    """Where one clip's files are; `label` is the class of its boxes where the box file has none."""

    name: str
    gt: Source | None
    lr: Source | None = None
    boxes: Path | None = None
    label: str = "object"
    fps: float | None = None

    def renamed(self, name: str) -> ClipFiles:
        return replace(self, name=name)

    def open_gt(self, allow_gaps: bool = False, bands: Bands | None = None) -> Clip | None:
        return None if self.gt is None else self._open(self.gt, allow_gaps, bands)

    def open_lr(self, allow_gaps: bool = False, bands: Bands | None = None) -> Clip | None:
        return None if self.lr is None else self._open(self.lr, allow_gaps, bands)

    def stems(self) -> Sequence[str]:
        """Names of the frames, as list files have them."""
        clip = self.open_gt(allow_gaps=True) or self.open_lr(allow_gaps=True)
        assert clip is not None
        return clip.frame_names

    def _open(self, source: Source, allow_gaps: bool, bands: Bands | None) -> Clip:
        if isinstance(source, Path) and source.is_file():
            if is_animated_webp(source):
                return WebPClip(source, name=self.name)
            with named_errors(source, "a video or a TIFF stack"), source.open("rb") as file:
                stack = is_tiff(file.read(4)) or source.suffix.lower() in (".tif", ".tiff")
            if stack:
                return TiffStackClip(source, name=self.name, fps=self.fps, bands=bands)
            return VideoClip(source, name=self.name, quick=True, strict=True)
        return FolderClip(source, name=self.name, fps=self.fps, allow_gaps=allow_gaps, bands=bands)


Found = tuple[list[ClipFiles], str] | None  # the clips of a finder and its reason; None: another layout


def folders(root: Path) -> list[Path]:
    """Sub-folders in natural order, without hidden ones. InputError for a broken or circular link."""
    found = []
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if entry.is_symlink() and not Path(entry.path).exists():
                    raise InputError(f"{entry.path}: a link that leads nowhere; remove or repair it")
                if entry.is_dir():
                    found.append(root / entry.name)
    except OSError as error:
        raise InputError(f"{root}: cannot be listed ({error.strerror})") from None
    return sorted(found, key=lambda path: natural_key(path.name))


def files_with(root: Path, suffixes: frozenset[str]) -> list[Path]:
    """Files of a folder with one of `suffixes`, without hidden ones, in natural order."""
    found = [path for path in root.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    return sorted((path for path in found if path.is_file()), key=lambda path: natural_key(path.name))


def named(root: Path, names: Sequence[str]) -> Path | None:
    """The first sub-folder whose case-insensitive name is one of `names` (in their order)."""
    present = {path.name.lower(): path for path in folders(root)}
    return next((present[name] for name in names if name in present), None)


LR_FORMS = ("lr{}x", "lrx{}", "lr{}", "lrbicubicx{}", "lqx{}", "lq{}x", "bix{}", "bdx{}", "x{}", "input{}")


def lr_folder(root: Path, scale: int | None) -> Path | None:
    """LR4x, LRx4, LR_x4, BIx4, X4, LR, LQ, LR_bicubic/X4, LR/X4: the folder of low resolution for this scale, next to the ground
    truth.
    """
    if scale is None:
        return None
    present = {re.sub(r"[_\-]", "", path.name.lower()): path for path in folders(root)}
    found = next((present[name] for form in LR_FORMS if (name := form.format(scale)) in present), None)
    above = next((present[name] for name in ("lr", "lq", "lrbicubic") if name in present), None)
    if found or above is None:
        return found
    return lr_folder(above, scale) or (above if above.name.lower() in ("lr", "lq") else None)


def other_scales(root: Path) -> list[str]:
    return [path.name for path in folders(root) if re.fullmatch(r"(lr|bi|bd)_?x?\d+x?|x\d+", path.name.lower())]


def clip_folders(root: Path) -> list[Path]:
    """Sub-folders that hold frames. A sub-folder without images is an error, so that empty clips do not go unnoticed."""
    found = folders(root)
    filled = [path for path in found if image_files(path)]
    if filled and len(filled) < len(found):
        empty = next(path for path in found if path not in filled)
        if any(image_files(path) for path in folders(empty)):
            raise InputError(f"{empty}: holds folders of frames, {filled[0]} frames; choose one of the two as root")
        raise InputError(f"{empty}: the clip is empty (no image files); remove the folder or fill it")
    return filled


def read_lines(path: Path, what: str) -> list[str]:
    """Lines of a text file in UTF-8, or in UTF-16 with a byte-order mark, as PowerShell writes; InputError names the file and its
    expected content.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is not a regular file; expected {what}")
    try:
        content = path.read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if wide else "utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read as {what} ({error}); save it in UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read as {what} ({error})") from None


def if_file(path: Path) -> Path | None:
    return path if path.is_file() else None
