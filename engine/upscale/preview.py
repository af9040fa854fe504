"""One frame as a preview before a long run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from data.baseline import Bicubic
from data.clips import Clip
from data.frame_writer import check_free
from data.media import from_tensor, write_image
from engine.distributed import say
from engine.restore import Options, restore
from engine.upscale.inputs import input_paths
from engine.upscale.new_job import make_job
from engine.upscale.output_paths import check_places
from engine.upscale.outputs import fitted
from engine.upscale.plan import choose_tile
from engine.upscale.request import Request
from errors import InputError
from models.base import Network


def preview(
    network: Network,
    weights: Path,
    clip_and_out: tuple[Clip, Path],
    request: Request,
    device: torch.device,
) -> Path:
    """Write one frame, bicubic and ours side by side, as PNG: a preview before a long run."""
    clip, out = clip_and_out
    index = request.preview if request.preview is not None and request.preview >= 0 else len(clip) // 2
    if index >= len(clip):
        raise InputError(f"--preview {index}: clip '{clip.name}' has frames 0 to {len(clip) - 1}")
    job = make_job(clip, out.with_suffix(""), replace(request, compare=False), network, weights)
    path = out if out.suffix.lower() == ".png" else out.with_name(f"{out.stem or out.name}_preview.png")
    check_places([path], input_paths(request))
    check_free(path, "preview", request.overwrite)
    name = "fp32" if request.precision == "auto" else request.precision
    options = Options(
        name, choose_tile(job, network, request, device), ensemble=request.ensemble, context=request.context
    )
    ours = next(restore(network, clip, device=device, padding=request.padding, frames=range(index, index + 1),
                        times=(), size=job.network_size, options=options, note=say))  # fmt: skip
    ours = fitted(ours, job.size)
    bicubic = Bicubic(clip, job.size)(index, 0.0)
    write_image(path, from_tensor(torch.cat([bicubic, ours], dim=-1), np.dtype(np.uint8)))
    return path
