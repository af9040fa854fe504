"""`--trust`: maps of the uncertainty of each output pixel, written next to the output, for measured data.

Every key frame is restored from its eight flips and rotations. A small spread of the eight results means that the input
determines the pixel; a large spread means that the network guesses it. The result is also downscaled and compared with its
input. A difference there shows that the network changed measured values instead of adding detail.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import metrics
from data.clips import Clip, SubClip
from data.clips.derived import Derived
from data.degrade import imresize
from data.files import UNFINISHED, remove_unfinished, write_texts
from data.frame_writer import check_free, write_frame
from data.media import to_uint8
from data.naming import check_names
from engine.compare.measure import agreement
from engine.report.page.document import assemble, html_table
from engine.report.page.markup import Markup, element, together
from engine.report.page.pictures import embedded
from engine.report.tables import Table, number
from engine.report.text import csv_text
from engine.restore import Options, restore
from engine.restore.jobs import inverse_transform, transform
from engine.upscale.job import ClipJob
from engine.upscale.outputs import fitted
from engine.upscale.request import Request
from errors import InputError, one_line
from models.base import Network

TRANSFORMS = 8  # flips and rotations of the self-ensemble
SHOWN = 16  # times that doubt is amplified in pictures: 16 grey levels are white
ROWS = 40  # frames in the page's table
SIDE = 640  # pixels of the page's pictures
WHOLE = "width:100%;image-rendering:pixelated"


class TransformedClip(Derived):
    """A clip with flipped or rotated frames; `orientation` as in `engine.restore.jobs.transform`."""

    def __init__(self, clip: Clip, orientation: int) -> None:
        super().__init__(clip)
        self.orientation = orientation

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.clip.size
        return (width, height) if self.orientation % 2 else (height, width)

    def frame(self, index: int) -> Tensor:
        return transform(self.clip.frame(index), self.orientation).contiguous()

    def array(self, index: int) -> np.ndarray:
        return (
            transform(torch.from_numpy(np.moveaxis(self.clip.array(index), -1, 0).copy()), self.orientation)
            .movedim(0, -1)
            .numpy()
        )


def trust_folder(out: Path) -> Path:
    """Folder of the maps of an output."""
    return out.with_name(f"{out.stem if out.suffix else out.name}_trust")


def check_trust(job: ClipJob, request: Request) -> None:
    """Raises InputError, before the work, for a scene, which is processed in pieces, and if a map exists already."""
    if job.kind == "scene":
        raise InputError(f"'{job.out}': --trust is for videos and frames, not for a large scene: leave it out")
    if len(job.parts) > 1:
        raise InputError(f"'{job.out}': --trust is for one or three bands: choose them, for example --bands 3,2,1")
    names = {
        f"{job.clip.frame_names[index]}_doubt{suffix}" for index in range(len(job.clip)) for suffix in (".tif", ".png")
    }
    check_names(trust_folder(job.out), sorted(names))
    folder, names = trust_folder(job.out), names | {"trust.csv", "trust.html"}
    begun = request.resume and job.work.exists()
    if begun and folder.is_dir():
        names |= {path.name for path in folder.iterdir() if UNFINISHED.fullmatch(path.name)}
    check_free(folder, "frames", request.overwrite or begun, names)


def write_trust(job: ClipJob, network: Network, request: Request, device: torch.device) -> Path:
    """Maps, `trust.csv` and `trust.html` for the key frames of a finished job.

    FRAME_doubt.tif: float32, the spread over the eight versions (mean over bands) in grey levels of 255, or in the
    units of the source if its bands are stretched; georeferenced as the output. FRAME_doubt.png: the same map, amplified
    16 times for display. trust.csv: per frame its mean and 99th percentile, consistency and bias per band.
    """
    folder, rows, shown = trust_folder(job.out), list[dict[str, Any]](), dict[str, np.ndarray]()
    middle = len(job.clip) // 2
    remove_unfinished(folder)
    with tqdm(total=len(job.clip), unit="frame", desc=f"trust of {one_line(job.clip.name)}", leave=False) as bar:
        for index, versions in enumerate(eight_versions(job, network, request, device)):
            result = versions.mean(0) if request.ensemble else versions[0]
            spread = metrics.doubt(versions).mean(0)
            name = job.clip.frame_names[index]
            exact = (spread * levels(job.clip)).numpy().astype(np.float32)[..., None]
            geo = job.clip.geo(index)
            (height, width), (low_height, low_width) = job.size, job.clip.size
            write_frame(folder / f"{name}_doubt.tif", exact, geo and geo.scaled(height / low_height, width / low_width))
            picture = to_uint8((spread * SHOWN).clamp(0, 1).expand(3, -1, -1))
            write_frame(folder / f"{name}_doubt.png", picture, None)
            row = {"frame": name, "doubt": float(exact.mean()), "doubt_p99": float(np.quantile(exact, 0.99))}
            rows.append(row | agreement(result, job.clip, index, None))
            if index == middle:
                shown = pictures(job.clip.frame(index), result, picture)
            bar.update()
    write_texts({folder / "trust.csv": csv_text(rows), folder / "trust.html": trust_page(job, rows, shown)})
    return folder


def levels(clip: Clip) -> float:
    """Stored values in the range 0 to 1: 255 grey levels, or the mean range of stretched bands."""
    bands = clip.band_map
    return 255.0 if bands is None or bands.low is None or bands.high is None else float((bands.high - bands.low).mean())


def eight_versions(job: ClipJob, network: Network, request: Request, device: torch.device) -> Iterator[Tensor]:
    """Restore every key frame from its eight versions and invert the transforms: (8, 3, H, W), scene by scene."""
    start = 0
    while start < len(job.clip):
        scene = job.timeline.scene(start)
        clip = SubClip(job.clip, scene)
        versions = [
            _restored(TransformedClip(deepcopy(clip), orientation), orientation, job, network, request, device)
            for orientation in range(TRANSFORMS)
        ]
        for frames in zip(*versions, strict=True):
            yield torch.stack(
                [fitted(inverse_transform(frame, orientation), job.size) for orientation, frame in enumerate(frames)]
            )
        start = scene[-1] + 1


def _restored(
    clip: TransformedClip, orientation: int, job: ClipJob, network: Network, request: Request, device: torch.device
) -> Iterator[Tensor]:
    height, width = job.network_size
    size = (width, height) if orientation % 2 else (height, width)
    options = Options(job.settings["precision"], job.settings["tile"], context=request.context, workers=1)
    padding: Any = request.padding
    return restore(network, clip, device=device, padding=padding, times=(), size=size, options=options)


def pictures(low: Tensor, result: Tensor, doubt: np.ndarray) -> dict[str, np.ndarray]:
    """The page's pictures of one frame: bicubic, result, doubt, and the difference of the downscaled result from the input."""
    size = (result.shape[-2], result.shape[-1])
    difference = (imresize(result, size=(low.shape[-2], low.shape[-1])) - low).abs().mean(0, keepdim=True) * SHOWN
    shown = {
        "bicubic": to_uint8(imresize(low, size=size).clamp(0, 1)),
        "result": to_uint8(result.clamp(0, 1)),
        f"doubt, {SHOWN} times": doubt,
        f"difference to the input at low resolution, {SHOWN} times": to_uint8(difference.clamp(0, 1).expand(3, -1, -1)),
    }
    return {name: _reduced(picture) for name, picture in shown.items()}


def _reduced(picture: np.ndarray) -> np.ndarray:
    scale = SIDE / max(picture.shape[:2])
    if scale >= 1:
        return picture
    return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


def trust_page(job: ClipJob, rows: list[dict[str, Any]], shown: dict[str, np.ndarray]) -> str:
    """One HTML file: the middle frame's pictures and a table of all frames (the first `ROWS`)."""
    keys = [key for key in rows[0] if key != "frame"]
    table = Table("Per frame", [("", "frame"), *(("", key.replace("_", " ")) for key in keys)])
    table.rows = [[row["frame"], *(number(row[key], ".3f") for key in keys)] for row in rows[:ROWS]]
    table.note = (
        "Doubt: spread of a pixel over the eight rotated and mirrored versions of the input, mean and 99th percentile of the "
        "frame. Consistency (dB) and bias: the result at low resolution against its input. trust.csv has all frames."
    )
    panels = [
        element(
            "figure", element("img", src=embedded(picture, 400_000), alt=name, style=WHOLE), element("figcaption", name)
        )
        for name, picture in shown.items()
    ]
    style = "display:grid;grid-template-columns:repeat(auto-fit,minmax(20rem,1fr));gap:1rem"
    sections: dict[str, Markup | None] = {
        "Middle frame": element("div", panels, style=style),
        "All frames": together([html_table(table)]),
    }
    return assemble(f"How far {job.clip.name} can be trusted", None, sections)
