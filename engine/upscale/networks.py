"""The network of a request: the requested weights, or the released ones for the job."""

from __future__ import annotations

from pathlib import Path

from engine.checkpoint import load_key_networks_, load_network, set_setting
from engine.distributed import say
from engine.released import for_lossy, released_for
from engine.restore.work import key_network
from engine.upscale import targets
from engine.upscale.job import ClipJob
from engine.upscale.request import Request
from errors import InputError
from models.base import Network, SpaceTimeNetwork


def open_network(request: Request, lr: tuple[int, int] | None = None, lossy: bool = False) -> tuple[Network, Path]:
    """The network and its file: the requested weights, or the small released ones for the job.

    These are MTDO's, whose frames are resized for scales without weights, and STNO's for intermediate frames.
    lr: (h, w) of the smallest clip, for `--size`. lossy: whether the source is compressed.
    """
    intermediate = bool(request.fps or request.times)
    if request.size and request.scale is not None:
        raise InputError("--size and --scale both set the output size: give one of them")
    requested = targets.needed_scale(request, lr)
    path = request.weight or released_for(requested, space_time=True if intermediate else None, lossy=lossy)
    network = load_network(path, key_networks=False)
    if intermediate and not network.space_time:
        raise InputError(
            f"'{path}' holds {network.config.name.upper()} weights, which make no intermediate frames: leave --fps and "
            "--times out, or use STNO weights"
        )
    for key in ("spacing", "temporal_filter", "key_weights"):
        if getattr(request, key) is not None:
            set_setting(network, key, getattr(request, key), path)
    open_key_networks_(network, path, lossy and not request.weight and request.key_weights is None)
    if not (request.weight or network.space_time or requested in (None, network.config.scale)):
        say(
            f"no weights for x{requested:.3g}: frames are restored at x{network.config.scale} with '{path.name}' and resized"
        )
    return network, path


def open_key_networks_(network: Network, path: Path, lossy: bool) -> None:
    """Load the networks that restore the key frames of a space-time network. lossy: those for compressed sources."""
    if isinstance(network, SpaceTimeNetwork) and network.key_weights:
        if lossy:
            network.set_restore_settings({"key_weights": [for_lossy(name) for name in network.key_weights]})
        load_key_networks_(network, path)


def key_weights_of(job: ClipJob, network: Network) -> str | None:
    """The file of the network that restores the key frames of a job, if there is one."""
    used = key_network(network, job.clip.size, job.network_size, job.settings["temporal_filter"])
    if used is None or not isinstance(network, SpaceTimeNetwork):
        return None
    names = zip(network.key_weights, network.key_networks, strict=True)
    return next(name for name, each in names if each is used)
