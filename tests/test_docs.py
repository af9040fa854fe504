"""The documentation: its Python examples run, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def test_python_example_of_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(code.replace("PATH/TO/THIS/FOLDER", str(ROOT)), names)
    shapes = {name: value.shape for name, value in names.items() if isinstance(value, np.ndarray)}
    assert shapes == {"frames": (5, 48, 64, 3), "large": (5, 192, 256, 3), "dense": (9, 120, 160, 3)}
