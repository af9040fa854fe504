"""Free memory, and the tiles and batches that fit into it."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import torch

from engine.restore.options import Options
from engine.restore.spacing import widest
from engine.restore.tiles import SMALLEST
from engine.restore.worker_pool import pool_size
from models.base import Network, SpaceTimeNetwork, WindowNetwork

SHARE = 0.5  # share of the free memory for one frame
ENOUGH = 512 * 512  # LR pixels of a batch that keep a GPU busy
MOST_WINDOWS = 16  # windows in one batch
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")  # in messages
GROUP = Path("/sys/fs/cgroup")


def bytes_per_pixel(
    network: Network, key_frames: int = 0, times: int = 0, key_network: WindowNetwork | None = None
) -> float:
    """Memory for each LR pixel: of a window, or of a chunk of `key_frames` with `times` intermediate frames in each gap.

    key_network: the window network that restores the key frames, if there is one (`work.key_network`).
    """
    if isinstance(network, SpaceTimeNetwork):
        of_keys = bytes_per_pixel(key_network) if key_network else 0.0
        if key_network and not times:  # the key network does all the work
            return of_keys
        return network.bytes_per_pixel(key_frames, max(times, 1)) + of_keys
    return network.bytes_per_pixel((network.config.frames - 1) * widest(network.spacing) + 1)


def automatic_tile(
    network: Network,
    size: tuple[int, int],
    device: torch.device,
    key_frames: int,
    times: int,
    key_network: WindowNetwork | None = None,
) -> int | None:
    """Side of the tiles in LR pixels for frames of `size` = (h, w); None if full frames fit into the free memory.

    key_frames, times, key_network: see `bytes_per_pixel`.
    """
    needed = bytes_per_pixel(network, key_frames, times, key_network)
    return largest_tile(size, needed, free_memory(device), network.multiple)


def largest_tile(size: tuple[int, int], pixel_bytes: float, free: float, multiple: int) -> int | None:
    """The largest tile (side in LR pixels) that fits into `SHARE` of `free` bytes; None if the full frame does."""
    affordable = SHARE * free / pixel_bytes
    if size[0] * size[1] <= affordable:
        return None
    return max(int(affordable**0.5) // multiple * multiple, min(SMALLEST, max(size)))


def frames_at_once(network: Network, size: tuple[int, int], options: Options, device: torch.device) -> int:
    """The fastest number of workers for frames of `size` = (h, w) that fits into free memory.

    The rounding of results depends on the number of threads, so a resumable job stores this number.
    """
    if network.space_time or device.type != "cpu":
        return 1
    workers = pool_size(_tile_pixels(size, options.tile), network.pool_work, torch.get_num_threads())
    return max(1, min(workers, _windows_in_memory(network, size, options.tile, device)))


def windows_at_once(network: Network, size: tuple[int, int], options: Options, device: torch.device) -> int:
    """Number of windows of frames of `size` = (h, w) that fill a GPU and fit into `SHARE` of its free memory."""
    if network.space_time:
        return 1
    enough = ENOUGH // _tile_pixels(size, options.tile)
    return max(1, min(MOST_WINDOWS, enough, _windows_in_memory(network, size, options.tile, device)))


def _tile_pixels(size: tuple[int, int], tile: int | None) -> int:
    """LR pixels of the largest tile of a frame."""
    side = tile or max(size)
    return min(size[0], side) * min(size[1], side)


def _windows_in_memory(network: Network, size: tuple[int, int], tile: int | None, device: torch.device) -> int:
    """Number of windows that fit into `SHARE` of the free memory."""
    return int(SHARE * free_memory(device) / (_tile_pixels(size, tile) * bytes_per_pixel(network)))


def free_memory(device: torch.device) -> float:
    """Bytes that this process can still allocate: on the GPU, or of RAM within the limit of its control group."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type == "xpu":
        return float(torch.xpu.mem_get_info(device)[0])
    return min([float(psutil.virtual_memory().available), *_group_limits()]) / max(
        int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1
    )


def _group_limits() -> list[float]:
    """Remaining memory of the control group (container), cgroup v2 and v1. Files that the kernel keeps in memory while there is
    room are counted as used there, although it drops them for a process that needs the memory.
    """
    limits = []
    for limit, used, files in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            values = [int((GROUP / name).read_text(encoding="ascii")) for name in (limit, used)]
        except (OSError, ValueError):  # missing, or "max"
            continue
        limits.append(float(max(values[0] - values[1] + _detail((GROUP / used).with_name("memory.stat"), files), 0)))
    return limits


def _detail(path: Path, name: str) -> int:
    """An entry of a group's memory.stat; 0 if it is missing."""
    try:
        return int(dict(line.split() for line in path.read_text(encoding="ascii").splitlines()).get(name, 0))
    except (OSError, ValueError):
        return 0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means out of memory: PyTorch's `OutOfMemoryError`, and errors of CPUs, of Apple's GPUs and of CUDA's libraries."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in NO_MEMORY)
