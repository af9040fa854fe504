"""`main.py --cost`: parameters, multiplications, seconds and memory of networks at one size, as a table of a paper."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dcn
import models
from data.clips import ArrayClip
from data.files import write_texts
from engine import distributed
from engine.config import config_from_mapping, config_to_mapping, load_config
from engine.report import provenance
from engine.report.cost import gmac_per_frame
from engine.report.latex import document
from engine.report.tables import Table
from engine.report.text import csv_text, markdown_table, plain_table
from engine.restore import restore
from engine.restore.timing import Clock
from errors import InputError

OUT = Path("runs/cost")
FRAMES = 4  # frames of the timed clip, after one warm-up run
MAX_SIDE = 4096  # LR pixels
HEADINGS = ("network", "parameters", "GMAC a frame", "seconds a frame", "peak memory, MB")


def report_cost(size: str, config: str | None, words: Sequence[str], out: Path = OUT) -> list[dict[str, Any]]:
    """Measure the networks of the config files, print the table and write it to `out` (Markdown, LaTeX, CSV).

    size: LR frames as WIDTHxHEIGHT. words: further config files, and `key.sub=value` overrides for all of them. Every
    network runs in a separate process, so that its peak memory is measured separately.
    """
    width, height = parse_size(size)
    files = [*([config] if config else []), *(word for word in words if word.endswith((".yaml", ".yml")))]
    overrides = [word for word in words if word not in files]
    if not files:
        raise InputError("--cost: name the config files, such as configs/mtdo_s.yaml configs/stno_s.yaml")
    mappings = [config_to_mapping(load_config(path, overrides)) for path in files]
    dcn.ensure_built()
    context = multiprocessing.get_context("spawn")
    rows = []
    for path, mapping in zip(files, mappings, strict=True):
        with ProcessPoolExecutor(1, mp_context=context) as process:
            rows.append({"config": path, **process.submit(measure, mapping, height, width).result()})
    write_cost(rows, width, height, out)
    return rows


def parse_size(text: str) -> tuple[int, int]:
    """`WIDTHxHEIGHT` -> (width, height)."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 16 <= min(width, height) <= max(width, height) <= MAX_SIDE:
        raise InputError(
            f"--cost '{text}': expected the size of low resolution frames, such as 320x180 (16 to {MAX_SIDE})"
        )
    return width, height


def measure(mapping: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """One network with initial weights: its cost does not depend on the weights."""
    config = config_from_mapping(mapping)
    device = distributed.choose_device(config.device)
    dcn.set_backend(config.dcn)
    torch.manual_seed(0)
    network = models.build(config.network).eval().to(device)
    random = np.random.default_rng(0)
    clip = ArrayClip("random", random.integers(0, 256, (FRAMES + 1, height, width, 3), np.uint8))
    list(restore(network, clip, device=device, frames=range(2)))
    clock = Clock()
    list(restore(network, clip, device=device, clock=clock))
    seconds, made = clock.reading()
    memory = provenance.peak_memory_mb(device)  # before counting, which needs more memory
    return {
        "network": config.name,
        "kind": config.network.name,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "gmac_per_frame": gmac_per_frame(network, height, width),
        "seconds_per_frame": seconds / made,
        "peak_memory_mb": memory,
        "device": provenance.machine()["gpu"] if device.type == "cuda" else provenance.processor(),
        "threads": torch.get_num_threads(),
    }


def cost_table(rows: Sequence[dict[str, Any]], width: int, height: int) -> Table:
    """The table of measured networks; rows as `measure` returns them."""
    table = Table(f"Cost on frames of {width}x{height}", [("", heading) for heading in HEADINGS])
    for row in rows:
        table.rows.append(
            [
                f"{row['network']} ({row['kind'].upper()})",
                f"{row['parameters'] / 1e6:.3f} M",
                f"{row['gmac_per_frame']:,.1f}",
                f"{row['seconds_per_frame']:.3g}",
                f"{row['peak_memory_mb']:,.0f}",
            ]
        )
    threads = rows[0]["threads"]
    where = f"{rows[0]['device']}, {threads} thread{'s' if threads > 1 else ''}"
    table.note = f"Seconds and memory (of the process, or of the GPU) on {where}."
    return table


def write_cost(rows: Sequence[dict[str, Any]], width: int, height: int, out: Path) -> None:
    """Print the table and write cost.md, .tex and .csv to `out`."""
    table = cost_table(rows, width, height)
    print(f"{table.title}\n{plain_table(table)}")
    texts = (f"{markdown_table(table)}\n\n{table.note}\n", document([table]), csv_text(rows))
    write_texts({out / f"cost{suffix}": text for suffix, text in zip((".md", ".tex", ".csv"), texts, strict=True)})
    print(f"written: {out}/cost.md, .tex, .csv")
