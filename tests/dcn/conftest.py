"""Builds the compiled operator once if a compiler is there; its tests say why they are skipped where none is."""

from __future__ import annotations

import pytest

import dcn


@pytest.fixture(scope="session")
def compiled() -> None:
    messages: list[str] = []
    if not dcn.ensure_built(messages.append):
        pytest.skip(f"no compiled operator here: {' '.join(messages)}")


@pytest.fixture(params=["plain", "compiled", "torchvision"])
def backend(request: pytest.FixtureRequest):
    """Runs a test with each implementation that is there."""
    if request.param == "compiled":
        request.getfixturevalue("compiled")
    elif request.param not in dcn.backends():
        pytest.skip("torchvision does not import here")
    dcn.set_backend(request.param)
    yield request.param
    dcn.set_backend(None)
