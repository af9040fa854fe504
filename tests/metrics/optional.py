"""Optional packages used as references by tests; they need only torchvision's Python code."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

import pytest

from metrics import perceptual


def package(name: str) -> ModuleType:
    """Import an optional package; skip the test if it is not installed."""
    if not all(importlib.util.find_spec(needed) for needed in (name, "torchvision")):
        pytest.skip(f"{name} is not installed")
    perceptual._torchvision()
    return importlib.import_module(name)
