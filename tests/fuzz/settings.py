"""Random configs, overrides and options of upscale.py."""

from __future__ import annotations

import contextlib
import io
import re
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import torch

import models
import upscale
from engine.config import config_from_mapping, load_config
from engine.config.keys import keys
from engine.train.loop import Trainer
from engine.upscale import Request
from tests.engine.conftest import NETWORK, tiny_mapping
from tests.engine.small import SMALL_STNO
from tests.fuzz.values import EXTREMES, WORDS

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def all_keys() -> dict[str, str]:
    """Every key of a config, with the description of its type."""
    result = {key.name.replace("[]", ".0"): key.kind for key in keys(type(config_from_mapping({"network": NETWORK})))}
    for entry in models.NETWORKS.values():
        result |= {key.name: key.kind for key in keys(entry.config, "network.")}
    return result


KINDS = all_keys()
KEYS = [*KINDS, "x", "data", "train", "network", "data.train", "a.b", ".", "data..", "=", "train.stages.steps"]


def overrides(random: Random, folder: Path) -> None:
    """Apply up to three overrides, with any key and any value, to a shipped config."""
    words = [f"{random.choice(KEYS)}={random.choice(WORDS)}" for _ in range(random.randint(1, 3))]
    load_config(random.choice(CONFIGS), words)


def config_files(random: Random, folder: Path) -> None:
    """Read a shipped config with changed lines and bytes."""
    lines = random.choice(CONFIGS).read_text(encoding="utf-8").splitlines()
    for _ in range(random.randint(1, 4)):
        place = random.randrange(len(lines))
        change = random.randrange(4)
        if change == 0:
            lines.insert(place, f"{' ' * random.randrange(5)}{random.choice(WORDS)}")
        elif change == 1:
            lines[place] = f"{lines[place].partition(':')[0]}: {random.choice(WORDS)}"
        elif change == 2:
            lines.insert(place, random.choice(lines))
        else:
            del lines[place]
            lines = lines or ["a"]
    content = bytearray("\n".join(lines).encode("utf-8", "surrogatepass"))
    if random.random() < 0.3 and content:
        content[random.randrange(len(content))] = random.randrange(256)
    (folder / "a.yaml").write_bytes(bytes(content))
    load_config(folder / "a.yaml")


def extreme_of(kind: str, random: Random) -> Any:
    """A value at the limits of a key's type, or just beyond."""
    if " | " in kind:
        return random.choice(kind.split(" | "))
    if kind.startswith("true"):
        return random.random() < 0.5
    if kind.startswith("a list, each "):
        return [extreme_of(kind.removeprefix("a list, each "), random) for _ in range(random.randint(0, 4))]
    if " values, each " in kind:
        count, _, inner = kind.partition(" values, each ")
        return [extreme_of(inner, random) for _ in range(int(count))]
    limits = re.search(r"from (\S+) to (\S+)", kind)
    ends = [float(end) for end in limits.groups()] if limits else [0.0, 1.0]
    values: list[Any] = [*ends, ends[0] - 1, ends[1] + 1, ends[0] + 1, 0, 1, 2, 3, 5, 8, 16, -1]
    values += [] if "integer" in kind else [0.5, 0.1, 1e-30, 1.5]
    return int(value) if (value := random.choice(values)) == int(value) else value


HEAVY = 64  # larger values may need too much memory or time: they are read, but no training step is taken


def extremes(random: Random, folder: Path) -> None:
    """Set one key to an extreme value, then take one training step if the config is accepted."""
    mapping = deepcopy(tiny_mapping(folder / "runs", steps=1))
    if random.random() < 0.4:
        mapping["network"] = deepcopy(SMALL_STNO)
        mapping["data"]["patch"] = 8
        for part in ("train", "val"):
            mapping["data"][part]["simulate"] = {**mapping["data"][part]["simulate"], "frames": 9}
    elif random.random() < 0.8:  # most keys do not concern the transformer, which is slow
        mapping["network"] |= {"reconstruction": "residual", "reconstruction_blocks": 1}
    mapping["data"]["train"]["simulate"] = {**mapping["data"]["train"]["simulate"], "clips": 1}
    key = random.choice([name for name in KINDS if not name.startswith(("data.also", "name", "runs"))])
    odd = random.choice(EXTREMES["number" if random.random() < 0.7 else "other"])
    value = extreme_of(KINDS[key], random) if random.random() < 0.8 and key in KINDS else odd
    target: Any = mapping
    *groups, last = key.split(".")
    for group in groups:
        target = target.setdefault(group, {}) if isinstance(target, dict) else {}
    if isinstance(target, dict):
        target[last] = value
    config = config_from_mapping(mapping)
    numbers = value if isinstance(value, list) else [value]
    if any(isinstance(number, (int, float)) and abs(number) > HEAVY for number in numbers) or last in (
        "compile",
        "cache",
    ):
        return
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        Trainer(config, folder / "run", torch.device("cpu")).fit()


def upscale_options(random: Random, folder: Path) -> None:
    """Parse random options of upscale.py with odd values."""
    flags = [action.option_strings[-1] for action in upscale.arguments()._actions if action.option_strings]
    flags.remove("--help")
    values = [
        *WORDS,
        "x2",
        "x0",
        "xnan",
        "60",
        "30000/1001",
        "1/0",
        "1920x1080",
        "x1080",
        "0x0",
        "5M",
        "5s",
        "0,2047",
        "1,2,3",
        "1:2:3",
        "a=b",
    ]
    words = ["in.mp4", "out.mp4"]
    for _ in range(random.randint(1, 4)):
        words.append(random.choice(flags))
        if random.random() < 0.8:
            words.append(random.choice(values))
    random.shuffle(words) if random.random() < 0.1 else None
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        Request(**upscale.parse([word for word in words if "\0" not in word]))
