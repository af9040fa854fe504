"""Metadata of the package: one version, one range of every dependency, type information in every package."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
tomllib = pytest.importorskip("tomllib")  # from Python 3.11
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements(*files: str) -> set[str]:
    lines = [line.split("#")[0].strip() for file in files for line in (ROOT / file).read_text().splitlines()]
    return {line for line in lines if line and not line.startswith("-")}


def test_extras_have_the_ranges_that_were_tried():
    extras = [name for group in PROJECT["project"]["optional-dependencies"].values() for name in group]
    assert len(extras) >= 6
    assert set(extras) <= requirements("requirements-geo.txt", "requirements-dev.txt")


def test_versions_agree():
    version = PROJECT["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_package_is_installed_and_typed():
    patterns = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    for folder in (pattern.rstrip("*") for pattern in patterns):
        assert (ROOT / folder / "__init__.py").is_file() and (ROOT / folder / "py.typed").is_file()
    imported = {path.stem for path in ROOT.glob("*.py")} & {
        "cli",
        "errors",
        "formulas",
        "hubconf",
        "settings",
        "strict_yaml",
    }
    assert imported == set(PROJECT["tool"]["setuptools"]["py-modules"])
    low, high = re.findall(r"3\.(\d+)", PROJECT["project"]["requires-python"])
    assert int(low) <= sys.version_info.minor < int(high)
