"""The documentation: Python examples run, and links point to existing files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]


def test_python_example_of_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(code.replace("PATH/TO/THIS/FOLDER", str(ROOT)), names)
    shapes = {name: value.shape for name, value in names.items() if isinstance(value, np.ndarray)}
    assert shapes == {"frames": (5, 48, 64, 3), "large": (5, 192, 256, 3), "dense": (9, 120, 160, 3)}


def sections(page: Path) -> set[str]:
    """The addresses of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"(?m)^#+ (.+)$", text)}


def test_links_point_to_existing_files_and_sections() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("experiments/*.md")]
    pages += [ROOT / "checkpoints" / "README.md", ROOT / "data" / "samples" / "README.md"]
    broken = []
    for page in pages:
        for target in re.findall(r"\]\((?!http)([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path, _, section = target.partition("#")
            file = page.parent / path if path else page
            if not file.exists() or (section and section not in sections(file)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert len(pages) > 15 and not broken


def test_network_of_the_architecture_page() -> None:
    (code,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), re.DOTALL
    )
    names: dict[str, Any] = {"__name__": "models.three"}
    exec(compile(code, "docs/architecture.md", "exec", dont_inherit=True), names)
    network, frames = names["Three"](names["ThreeConfig"](scale=2)), torch.rand(2, 3, 3, 8, 10)
    assert network(frames).shape == (2, 3, 16, 20)
    assert network.stream().restore([0, 0, 1], lambda index: frames[:, index]).shape == (2, 3, 16, 20)
