"""Optional packages that tests compare with; torchvision's Python part is enough for them."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

import pytest

from metrics import perceptual


def package(name: str) -> ModuleType:
    """An optional package; the test is skipped where it is not installed."""
    if not all(importlib.util.find_spec(needed) for needed in (name, "torchvision")):
        pytest.skip(f"{name} is not installed")
    perceptual._torchvision()
    return importlib.import_module(name)
