"""What a report says of its surroundings: config, weights, commit, machine, size and cost of the network."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import nn

import dcn
from data.files import sha256
from engine.config import Config, config_to_mapping
from engine.report.cost import SIDE, gmac_per_frame


def describe(network: nn.Module, config: Config, weights: Path | None) -> dict[str, Any]:
    """The part of a report that is known before the first frame."""
    name, ensemble = config.network.name, config.eval.ensemble
    return {
        "title": f"{config.name}: {name.upper()}, x{config.scale:g}{', mean over eight positions' if ensemble else ''}",
        "protocol": config.eval.protocol,
        "scale": config.scale,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "weights": {"path": str(weights), "sha256": sha256(weights)} if weights else {},
        "machine": machine(),
        "network": {
            "name": name,
            "parameters": sum(p.numel() for p in network.parameters()),
            "gmac_per_frame": round(gmac_per_frame(network) * (8 if ensemble else 1), 4),
            "gmac_counted_at": f"{SIDE}x{SIDE} LR",
        },
        "config": config_to_mapping(config),
    }


def commit() -> str:
    """The git commit of this code, with "+" if files differ from it; empty outside a checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return ""


def machine() -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    return {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if cuda else "",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "dcn": dcn.backends()[0],
        "system": f"{platform.system()} {platform.machine()}",
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def peak_memory_mb(device: torch.device) -> float:
    """Largest memory held so far: of the GPU's allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
