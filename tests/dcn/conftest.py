"""Build the compiled operator once per session; without a compiler its tests are skipped and the reason is shown."""

from __future__ import annotations

import pytest

import dcn


@pytest.fixture(scope="session")
def compiled() -> None:
    messages: list[str] = []
    if not dcn.ensure_built(messages.append):
        pytest.skip(f"no compiled operator here: {' '.join(messages)}")


@pytest.fixture(autouse=True)
def own_choice(monkeypatch: pytest.MonkeyPatch):
    """The choice of backend does not pass from the environment."""
    monkeypatch.delenv("DCN_BACKEND", raising=False)


@pytest.fixture(params=["plain", "compiled", "torchvision"])
def backend(request: pytest.FixtureRequest):
    """Run the test with each available implementation."""
    if request.param == "compiled":
        request.getfixturevalue("compiled")
    elif request.param not in dcn.backends():
        pytest.skip("torchvision does not import here")
    dcn.set_backend(request.param)
    return request.param
