"""Entry points for torch.hub: torch.hub.load(REPOSITORY, "mtdo_s", source="local") from any folder.

Each returns a network in eval mode on the CPU. `engine.api.upscale_array` runs it on an array; the docstrings of
`models.mtdo.network` and `models.stno.network` give the shapes for direct calls.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
PACKAGES = (
    "cli",
    "data",
    "dcn",
    "engine",
    "errors",
    "formulas",
    "losses",
    "metrics",
    "models",
    "settings",
    "strict_yaml",
)


def _make_importable() -> None:
    """Keep this repository's modules importable after torch.hub has removed its folder from the path.

    Raises ImportError if a module of another project already has one of the names.
    """
    for name in PACKAGES:
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), None)  # or a folder
        if file is not None and not Path(file).resolve().is_relative_to(ROOT):
            raise ImportError(
                f"a module '{name}' is already imported from {file}, and this repository has a module of the same name: "
                "load these networks first or in a separate process, or use an ONNX file (python -m engine.export)"
            )
    if str(ROOT) not in sys.path[1:]:  # torch.hub inserted it at the front, and removes that entry afterwards
        sys.path.append(str(ROOT))


_make_importable()

import models  # noqa: E402 (needs the path)
from engine import api  # noqa: E402
from models.base import Network  # noqa: E402

dependencies = ["torch", "numpy", "safetensors", "yaml", "PIL", "cv2", "av", "tifffile", "imagecodecs", "psutil"]


def mtdo_s() -> Network:
    """Small MTDO for x4, released weights: (B, N, 3, h, w) RGB in [0, 1], N = config.frames -> the centre frame (B, 3, 4h, 4w)."""
    return api.load_network("mtdo_s")


def mtdo_s_real() -> Network:
    """Small MTDO for x4 and compressed sources, released weights: as `mtdo_s`."""
    return api.load_network("mtdo_s_real")


def mtdo_s_x2() -> Network:
    """Small MTDO for x2, released weights: (B, N, 3, h, w) RGB in [0, 1], N = config.frames -> the centre frame (B, 3, 2h, 2w)."""
    return api.load_network("mtdo_s_x2")


def mtdo_s_x3() -> Network:
    """Small MTDO for x3, released weights: (B, N, 3, h, w) RGB in [0, 1], N = config.frames -> the centre frame (B, 3, 3h, 3w)."""
    return api.load_network("mtdo_s_x3")


def mtdo_s_free() -> Network:
    """Small MTDO for x4, released weights trained on data of permissive licences only: as `mtdo_s`."""
    return api.load_network("mtdo_s_free")


def stno_s() -> Network:
    """Small STNO, released weights: (B, T, 3, h, w) RGB in [0, 1], `times`, `size=(H, W)` -> all frames in time order."""
    return api.load_network("stno_s")


def mtdo(weights: str | None = None, **config: Any) -> Network:
    """MTDO at the paper's size with random weights, or the network in a weights file (ours or the published one).

    config: keys of `models.mtdo.config.MTDOConfig`, for a network with random weights.
    """
    return _build("mtdo", weights, config)


def stno(weights: str | None = None, **config: Any) -> Network:
    """STNO at the paper's size with random weights, or the network in a weights file (ours or the published one).

    config: keys of `models.stno.config.STNOConfig`, for a network with random weights.
    """
    return _build("stno", weights, config)


def _build(name: str, weights: str | None, config: dict[str, Any]) -> Network:
    if weights is None:
        return models.build({"name": name, **config}).eval()
    if config:
        raise ValueError(f"weights carry their own configuration: leave {', '.join(config)} out")
    network = api.load_network(weights)
    if network.config.name != name:
        raise ValueError(f"'{weights}' holds weights of {network.config.name}, not of {name}")
    return network
