"""Perceptual metrics from optional packages: LPIPS and DISTS (torchmetrics), FSIM and VIF (piq).

Nothing is downloaded. torchmetrics includes the learned weights of LPIPS and DISTS, but not those of their ImageNet network:
its file is read from PyTorch's cache folder, or an error tells the user where to put it. FSIM and VIF need no weights.
All metrics use RGB rounded to 8 bits, as `standard` does.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from errors import InputError
from metrics.planes import check_frames, planes

INSTALL = "pip install torchmetrics piq"


class _Backbone(NamedTuple):
    """An ImageNet network of torchvision: its file, and the address that torchvision documents for it."""

    file: str
    address: str


ALEXNET = _Backbone("alexnet-owt-7be5be79.pth", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth")
VGG16 = _Backbone("vgg16-397923af.pth", "https://download.pytorch.org/models/vgg16-397923af.pth")
BACKBONES = {"lpips": ALEXNET, "dists": VGG16}
PACKAGES = {"lpips": "torchmetrics", "dists": "torchmetrics", "fsim": "piq", "vif": "piq"}
SMALLEST = {"lpips": 64, "dists": 64, "fsim": 32, "vif": 41}  # minimum pixels a side for the networks and windows
PERCEPTUAL = tuple(PACKAGES)

Distance = Callable[[Tensor, Tensor], Tensor]


class Perceptual:
    """The metrics `names` (of `PERCEPTUAL`), loaded once. lpips, dists: lower is better; fsim, vif: higher, 1 is equal.

    Raises InputError with instructions if a package or a weights file is missing.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.distances: dict[str, Distance] = {name: _load(name) for name in names}

    def __call__(self, pred: Tensor, gt: Tensor) -> dict[str, float]:
        """Frames (3, H, W) in [0, 1] -> the value of every metric."""
        check_frames(pred, gt)
        if not self.distances:
            return {}
        needed = max(SMALLEST[name] for name in self.distances)
        if min(gt.shape[-2:]) < needed:
            raise InputError(f"metrics: frames of {gt.shape[-2]}x{gt.shape[-1]} are too small; these take {needed}")
        shown, truth = ((planes(frame, channel="rgb") / 255).float()[None] for frame in (pred, gt))
        with torch.no_grad():
            return {name: float(distance(shown, truth)) for name, distance in self.distances.items()}


class PerceptualFlicker:
    """tLPIPS (Chu et al., TecoGAN, 2020): |LPIPS(pred_t, pred_t+1) - LPIPS(gt_t, gt_t+1)|, times 100, per method."""

    def __init__(self) -> None:
        self._lpips = Perceptual(["lpips"])
        self._last: dict[str, Tensor] | None = None
        self._index: int | None = None

    def add(self, shown: Mapping[str, Tensor], gt: Tensor, index: int | None = None) -> dict[str, float] | None:
        """Frames (3, H, W) by method -> the value of the gap before them; None for the first frame of a clip.

        index: as in `MotionMeter`.
        """
        now, follows = {**shown, "": gt}, index is None or index - 1 == self._index
        before, self._last, self._index = self._last, now, index
        if before is None or not follows:
            return None
        change = {name: self._lpips(frame, before[name])["lpips"] for name, frame in now.items()}
        return {name: 100 * abs(change[name] - change[""]) for name in shown}


def _load(name: str) -> Distance:
    if name not in PACKAGES:
        raise InputError(f"metrics: unknown perceptual metric '{name}'; choose one of: {', '.join(PERCEPTUAL)}")
    if importlib.util.find_spec(PACKAGES[name]) is None:
        raise InputError(f"metric '{name}' needs the package {PACKAGES[name]}, which is not installed: {INSTALL}")
    if name in BACKBONES:
        _check_backbone(name)
    _torchvision()
    if name == "lpips":
        lpips = _module("torchmetrics.functional.image.lpips", name)
        network: Any = lpips._LPIPS(pretrained=True, net="alex").eval()
        return lambda a, b: network(a, b, normalize=True)
    if name == "dists":
        return _module("torchmetrics.functional.image.dists", name).DISTSNetwork().eval()
    piq = _module("piq", name)
    return piq.fsim if name == "fsim" else piq.vif_p


def _check_backbone(name: str) -> None:
    """Require the network's file: torchvision would download it otherwise."""
    backbone, folder = BACKBONES[name], Path(torch.hub.get_dir()) / "checkpoints"
    if not (folder / backbone.file).is_file():
        raise InputError(
            f"metric '{name}' needs '{backbone.file}', which is not downloaded automatically: put "
            f"{backbone.address} into '{folder}'"
        )


def _module(module: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError, AttributeError) as error:
        raise InputError(f"metric '{name}': {module} cannot be imported ({error}): {INSTALL}") from None


_schemas: list[Any] = []  # keep a reference: an operator exists as long as its library object


def _torchvision() -> None:
    """Allow the import of torchvision's Python part if its compiled part does not load (PyTorch's CPU builds).

    Its networks are plain PyTorch; the import only registers two operators that are never called here.
    """
    try:
        importlib.import_module("torchvision")
    except ImportError:
        raise InputError(
            f"perceptual metrics need torchvision, which is not installed: {INSTALL} torchvision"
        ) from None
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _schemas.append(library)
        _module("torchvision", "lpips")
