"""Run a network on the tiles of a scene."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from data.clips import ArrayClip
from data.degrade import imresize
from engine.restore import Options, restore, tiles
from engine.restore.memory import SHARE, bytes_per_pixel
from engine.restore.work import key_network
from engine.upscale.scene import Enlarge, SceneJob
from models.base import Network

NETWORK_MEMORY = 2**30  # memory of the network for one tile, bytes
ROW_MEMORY = 2**28  # bytes of the finished part of a row of tiles


def choose_tile(job: SceneJob, network: Network, free: float) -> int | None:
    """Tile side in LR pixels, limited by the memory of the network and of one row of tiles. free: bytes of memory."""
    key_frames_by = key_network(network, job.clip.size, job.network_size, job.settings["temporal_filter"])
    needed = bytes_per_pixel(network, key_frames=2, key_network=key_frames_by)
    scale = job.size[1] / job.clip.size[1]
    side = (min(NETWORK_MEMORY, SHARE * free) / needed) ** 0.5
    row = ROW_MEMORY / (4 * len(job.scene.groups[0]) * job.size[1] * scale)
    tile = int(min(side, max(row, 2 * tiles.SMALLEST))) // job.multiple * job.multiple
    return None if tile >= max(job.clip.size) else max(tile, tiles.SMALLEST)


def still(network: Network, name: str, frame: np.ndarray) -> ArrayClip:
    """A single frame as a clip: STNO needs two key frames, so the frame is repeated."""
    return ArrayClip(name, [frame] * (2 if network.space_time else 1))


def enlarger(job: SceneJob, network: Network, options: Options, device: torch.device) -> Enlarge:
    """A function that runs the network on one tile."""

    def enlarge(window: list[np.ndarray], centre: int, size: tuple[int, int]) -> np.ndarray:
        part = window[centre]
        clip = ArrayClip(job.clip.name, window) if len(window) > 1 else still(network, job.clip.name, part)
        made = [
            round(side * out / lr) for side, out, lr in zip(part.shape, job.network_size, job.clip.size, strict=False)
        ]
        frames = restore(
            network,
            clip,
            device=device,
            padding=job.settings.get("padding"),
            temporal_filter=job.settings["temporal_filter"],
            frames=range(centre, centre + 1),
            times=(),
            size=(made[0], made[1]),
            options=options,
        )
        frame = next(frames)
        frame = frame if tuple(frame.shape[-2:]) == size else imresize(frame, size=size)
        return frame.numpy() if part.shape[-1] == 3 else frame.mean(0, keepdim=True).numpy()

    return enlarge


def middle(job: SceneJob, network: Network, side: int) -> ArrayClip:
    """A crop of at most `side` x `side` pixels of the scene, for measurements."""
    rows, columns = (slice((n - min(n, side)) // 2, (n - min(n, side)) // 2 + min(n, side)) for n in job.clip.size)
    return still(network, job.clip.name, job.scene.part(0, rows, columns))


def make_pieces(
    job: SceneJob, numbers: list[int], network: Network, options: Options, device: torch.device, bar: Any
) -> None:
    """Restore rows of tiles in sequence."""
    enlarge = enlarger(job, network, options, device)
    for number in numbers:
        job.make_piece(number, enlarge, bar.set_postfix_str)
        bar.update()
