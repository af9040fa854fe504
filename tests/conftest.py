"""One thread for the tests (their tensors are too small to share out over cores), and a seed for each of them."""

from __future__ import annotations

import random
import zlib

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded(request: pytest.FixtureRequest) -> None:
    """Every test draws the same random numbers in any order of the tests; `--seed` draws others, to look for weak bounds."""
    seed = zlib.crc32(f"{request.node.nodeid} {request.config.getoption('--seed', 0)}".encode())
    torch.manual_seed(seed)
    random.seed(seed)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=0, help="other random numbers in every test")
    group = parser.getgroup("fuzz", "random inputs (tests/fuzz)")
    group.addoption("--long", action="store_true", help="10,000 tries a target")
    group.addoption("--tries", type=int, default=0, help="this many tries a target")
    group.addoption("--fuzz-from", type=int, default=0, help="number of the first try, to repeat one")
