"""Weights with random changes, and files that claim to be weights."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import torch

import models
from engine.checkpoint import load_network, save_tensors, save_weights
from tests.engine.conftest import NETWORK
from tests.engine.small import SMALL_STNO
from tests.fuzz.damage import damaged, seeds
from tests.fuzz.settings import KEYS
from tests.fuzz.values import EXTREMES


def _weights(place: Path) -> None:
    torch.manual_seed(0)
    for name, config in (("mtdo", NETWORK), ("stno", SMALL_STNO)):
        save_weights(place / f"{name}.safetensors", models.build(config))


def safetensors(random: Random, folder: Path) -> None:
    """Load weights with changed bytes, and small files whose header claims a network of any size."""
    path = folder / "w.safetensors"
    if random.random() < 0.5:
        path.write_bytes(damaged(random, random.choice(seeds(folder, _weights)).read_bytes()))
    else:
        network: Any = {"name": random.choice(("mtdo", "stno", "x", 3, None))}
        for key in random.sample(KEYS, 3):
            target = network
            *groups, last = key.removeprefix("network.").split(".")
            for group in groups:
                inner = target.setdefault(group, {})
                target = inner if isinstance(inner, dict) else {}
            target[last] = random.choice([*EXTREMES["number"], *EXTREMES["other"]])
        header = {"network": random.choice((network, network, [], None, "x")), "step": 1}
        tensors = {
            random.choice(("a", "network.a", "hat.a", "flownet.a")): torch.zeros(random.choice(((), (1,), (0, 3))))
        }
        save_tensors(path, tensors, json.loads(json.dumps(header)))
    load_network(path)


def _pth(place: Path) -> None:
    state = {
        "module.hat.a": torch.zeros(3),
        "fus.weight": torch.zeros(64, 320, 1, 1),
        "flownet.b": torch.ones(2).half(),
    }
    torch.save({"state_dict": state}, place / "new.pth")
    torch.save(state, place / "old.pth", _use_new_zipfile_serialization=False)


def pth(random: Random, folder: Path) -> None:
    """Load published weights with changed bytes, and pickles of other objects."""
    path = folder / f"w{random.choice(('.pth', '.pt', '.ckpt'))}"
    if random.random() < 0.7:
        path.write_bytes(damaged(random, random.choice(seeds(folder, _pth)).read_bytes()))
    else:
        odd: list[Any] = [
            torch.zeros(1),
            torch.zeros(1).expand(10**9),
            torch.zeros(1, device="meta"),
            torch.zeros(2, 2).to_sparse(),
        ]
        odd += [torch.zeros(1, dtype=torch.complex64), 3, "a", None, [1], {"a": 1}, torch.zeros(0), torch.zeros(())]
        names: list[Any] = ["hat.a", "fus.weight", "flownet.a", "hat.upsample.0.weight", 3, "state_dict", "params", ""]
        state: Any = {random.choice(names): random.choice(odd) for _ in range(random.randint(0, 3))}
        torch.save(random.choice((state, state, {"params": state}, [state], random.choice(odd))), path)
    load_network(path)
