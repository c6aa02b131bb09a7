"""Declared dependencies follow the same graph as the imports do (ARCHITECTURE.md)."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Who may import whom, directly: every lower layer of ARCHITECTURE.md.
LAYERS = [
    {"conveyor-raft", "conveyor-sdk"},
    {"conveyor-registry"},
    {"conveyor-grpc", "conveyor-config"},
    {"conveyor-router", "conveyor-sidecar", "conveyor-cli"},
]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))


def layer(package: str) -> int:
    return next(level for level, names in enumerate(LAYERS) if package in names)


def declared(package: str) -> set[str]:
    """Return the Conveyor distributions that `package` declares as dependencies."""
    project = tomllib.loads((ROOT / "packages" / package / "pyproject.toml").read_text())["project"]
    names = (re.split(r"[\[<>=!~; ]", text)[0] for text in project["dependencies"])
    return {name for name in names if name.startswith("conveyor-")}


def imported(package: str) -> set[str]:
    """Return the Conveyor distributions that the sources of `package` import."""
    found: set[str] = set()
    for path in (ROOT / "packages" / package / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
            elif isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
    own = package.replace("-", "_")
    return {
        name.replace("_", "-") for name in found if name.startswith("conveyor_") and name != own
    }


def test_every_package_has_a_layer() -> None:
    """A new distribution must be placed before it can be imported."""
    assert set(PACKAGES) == set().union(*LAYERS)


@pytest.mark.parametrize("package", PACKAGES)
def test_dependencies_point_downwards(package: str) -> None:
    """No distribution depends on a sibling or on a layer above."""
    assert all(layer(other) < layer(package) for other in declared(package))


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_imported_is_declared_and_what_is_declared_is_imported(package: str) -> None:
    """The metadata that pip reads says exactly what the sources import."""
    assert declared(package) == imported(package)
