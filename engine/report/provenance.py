"""Provenance of a report: commit, machine, memory."""

from __future__ import annotations

import dataclasses
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import torch

import dcn


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
    """Processor, GPU and versions of the machine."""
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
    """The processor's name: Linux gives it only in a file, other systems through `platform`."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory so far: of the GPU's allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 2**20
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def evaluation_settings(config: Any, *, restores: bool = True) -> dict[str, str]:
    """Describe settings that restrict or change an evaluation: skipped data, padding, degradation, stretch.

    config: `engine.config.Config`. A config file may contain such settings, so the report's first lines show them.
    restores: with the settings of the network; a comparison reads finished frames.
    """
    source, measured = config.data.val, config.eval
    found = {
        "split": source.split,
        "list file": source.list_file,
        "clips": ", ".join(source.clips) if source.clips else None,
        "region": "left {:g}, top {:g}, right {:g}, bottom {:g} of the frame".format(*source.region)
        if source.region
        else None,
        "frames": _frames(measured.frames, source.frames),
        "frame gaps": "allowed" if source.allow_gaps else None,
        "degradation": _changed(source.degradation),
        "bands": _changed(source.bands) if source.bands else None,
        "compression": _changed(source.compression),
    }
    network = {
        "padding": config.data.padding,
        "spacing": f"{config.data.spacing} between the frames of a window" if config.data.spacing != 1 else None,
        "temporal filter": config.data.temporal_filter if config.data.temporal_filter != "none" else None,
        "key frames": f"by the one of {', '.join(config.data.key_weights)} that has the scale of the output"
        if config.data.key_weights and config.data.temporal_filter != "none"
        else None,
        "ensemble": "mean over eight rotated and mirrored versions" if measured.ensemble else None,
    }
    return {label: text for label, text in (found | (network if restores else {})).items() if text}


def _frames(first: int | None, span: tuple[int, int] | None) -> str:
    words = [f"{span[0]} to {span[1] - 1}"] if span else []
    return ", ".join([*words, f"only the first {first} of each clip"] if first else words)


def _changed(settings: Any) -> str:
    """The fields of a dataclass that differ from their defaults, as `name value`."""
    default = type(settings)()
    pairs = [(field.name, getattr(settings, field.name)) for field in dataclasses.fields(settings)]
    return ", ".join(f"{name} {value}" for name, value in pairs if value != getattr(default, name))
