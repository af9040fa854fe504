"""One thread for the tests: their tensors are so small that sharing them out over cores costs more than it saves."""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fuzz", "random inputs (tests/fuzz)")
    group.addoption("--long", action="store_true", help="10,000 tries a target")
    group.addoption("--tries", type=int, default=0, help="this many tries a target")
    group.addoption("--fuzz-from", type=int, default=0, help="number of the first try, to repeat one")
