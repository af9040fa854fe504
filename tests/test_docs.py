"""The documentation: Python examples run, links point to existing files and sections, commands to existing files and options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.files import OWN_FOLDERS

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("experiments/*.md")]
PAGES += [ROOT / "checkpoints" / "README.md", ROOT / "data" / "samples" / "README.md"]
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
COMMAND = re.compile(
    r"\b(?:python3?|pytest|torchrun --nproc_per_node \w+) +(?:-m +(?P<module>[\w.]+)|(?P<path>[\w/]+\.py))(?P<rest>.*)"
)


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
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path, _, section = target.partition("#")
            file = page.parent / path if path else page
            if not file.exists() or (section and section not in sections(file)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert len(PAGES) > 15 and not broken


def test_named_source_files_exist() -> None:
    folders = "engine|data|models|dcn|metrics|losses|tests|benchmarks|experiments"
    made = {"models/three.py"}  # by the reader of docs/architecture.md
    names = [
        (page.name, name)
        for page in PAGES
        for name in re.findall(rf"`((?:{folders})/[\w/.]+)`", page.read_text(encoding="utf-8"))
    ]
    assert len(names) > 30 and [pair for pair in names if pair[1] not in made and not (ROOT / pair[1]).exists()] == []


def test_functions_named_next_to_a_file_exist() -> None:
    """`network.py`: `window_features` (...), `reconstruct` in the table of docs/mtdo.md."""
    rows = re.findall(r"\| `(\w+\.py)`: (.+) \|", (ROOT / "docs" / "mtdo.md").read_text(encoding="utf-8"))
    named = [(file, name) for file, text in rows for name in re.findall(r"`(\w+)`", text)]
    sources = {file: (ROOT / "models" / "mtdo" / file).read_text(encoding="utf-8") for file, _ in named}
    assert named and [(file, name) for file, name in named if f"def {name}(" not in sources[file]] == []


def test_the_readme_names_every_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in ROOT.glob("docs/*.md") if f"(docs/{page.name})" not in text] == []


def commands(page: Path) -> Iterator[tuple[str, str]]:
    """(file, options and arguments) of the commands on a page that run a script, module or test of the repository."""
    text = page.read_text(encoding="utf-8")
    code = [body.replace("\\\n", " ") for language, body in BLOCK.findall(text) if language in ("", "sh")]
    code += [inline.replace("\n", " ") for inline in re.findall(r"`([^`]+)`", BLOCK.sub("", text))]
    for match in COMMAND.finditer("\n".join(code)):
        file = match["path"] or match["module"].replace(".", "/")
        if file not in ("pytest", "pip", "venv"):
            yield file, re.split(r"\s#|[|&;]", match["rest"])[0]


def test_commands_name_existing_files_and_options() -> None:
    files = [*ROOT.glob("*.py"), *(path for name in OWN_FOLDERS for path in (ROOT / name).rglob("*.py"))]
    sources = "\n".join(path.read_text(encoding="utf-8") for path in files)
    made = {"configs/three.yaml"}  # by the reader
    wrong, count = [], 0
    for page in PAGES:
        for file, rest in commands(page):
            count += 1
            found = [name for name in (file, f"{file}.py", f"{file}/__main__.py") if (ROOT / name).is_file()]
            files = set(
                re.findall(r"(?:tests|experiments|configs|checkpoints)/[\w/]+\.(?:py|yaml|safetensors)\b", rest)
            )
            missing = [name for name in files - made if not (ROOT / name).exists()]
            unknown = [word for word in re.findall(r"(?<= )--[a-z][\w-]*", rest) if f'"{word}"' not in sources]
            if missing or unknown or not found:
                wrong.append(f"{page.relative_to(ROOT)}: {file}{rest}")
    assert count > 100 and not wrong


def example(page: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
    return code


def test_network_of_the_architecture_page() -> None:
    code = example("architecture.md")
    names: dict[str, Any] = {"__name__": "models.three"}
    exec(compile(code, "docs/architecture.md", "exec", dont_inherit=True), names)
    network, frames = names["Three"](names["ThreeConfig"](scale=2)), torch.rand(2, 3, 3, 8, 10)
    assert network(frames).shape == (2, 3, 16, 20)
    assert network.stream().restore([0, 0, 1], lambda index: frames[:, index]).shape == (2, 3, 16, 20)


def test_example_of_the_metrics_page() -> None:
    truth = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0))
    frame = 0.9 * truth
    names: dict[str, Any] = {"pred": frame, "gt": truth, "pred_frame": frame, "gt_frame": truth, "bicubic_frame": frame}
    exec(example("metrics.md"), {"boxes": [], **names})


def test_example_of_the_simulator_page() -> None:
    names: dict[str, Any] = {}
    still = ROOT / "data" / "samples" / "stills" / "yellowstone_meadow.webp"
    exec(example("simulator.md").replace("photo.png", str(still)).replace("[256, 384]", "[64, 96]"), names)
    assert names["clip"].size == (64, 96) and len(names["clip"]) == 30 and len(names["layout"].pairs) == 8
