"""Test setup: one thread, because the tensors are too small to parallelise, a fixed seed per test, and `--shuffle`."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

import dcn

torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """Examples of property tests do not depend on the run, except with `--seed`, nor their results on the machine's speed."""
    fixed = not config.getoption("--seed")
    settings.register_profile(
        "suite", deadline=None, derandomize=fixed, database=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("suite")


@pytest.fixture(autouse=True)
def seeded(request: pytest.FixtureRequest) -> None:
    """Seed the generators from the test's name, so that results do not depend on the order of the tests.

    `--seed` draws other numbers, to find tolerances that are too tight.
    """
    seed = zlib.crc32(f"{request.node.nodeid} {request.config.getoption('--seed', 0)}".encode())
    torch.manual_seed(seed)
    random.seed(seed)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=0, help="use other random numbers in every test")
    parser.addoption("--shuffle", type=int, help="run the tests in a random order, drawn with this seed")
    group = parser.getgroup("fuzz", "random inputs (tests/fuzz)")
    group.addoption("--long", action="store_true", help="10,000 tries per target")
    group.addoption("--tries", type=int, default=0, help="number of tries per target")
    group.addoption("--fuzz-from", type=int, default=0, help="index of the first try, to repeat a failure")


@pytest.fixture(autouse=True)
def own_backend() -> Iterator[None]:
    """The choice of `dcn`, which training sets, does not pass to the next test."""
    yield
    dcn.set_backend(None)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffle all tests with `--shuffle SEED`; every xdist worker draws the same order."""
    seed = config.getoption("--shuffle")
    if seed is not None:
        random.Random(seed).shuffle(items)
