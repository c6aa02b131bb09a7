"""Every task of the repository; CI and people run the same words.

    nox -s tests       everything a change must pass: static checks, unit tests of the built wheels,
                       a short simulation, the integration cluster and the one-month demo
    nox -s demo        the main job on real records, with processes killed on the way
    nox --list         the rest

Packages are discovered, never listed. Each session needs nox alone: it installs uv, builds the
wheels and tests those. What a session is given after `--` goes to the tool it runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
PYTHONS = ["3.11", "3.12", "3.13"]
SOURCES = [f"packages/{package}/src" for package in PACKAGES]
DIST = ROOT / "dist"
# The tests of the simulators run seeds themselves: they belong to the budget of the simulation.
SIMULATIONS = sorted(
    str(path.relative_to(ROOT))
    for name in ("testing", "mutants")
    for path in ROOT.glob(f"packages/*/tests/{name}")
)

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests"]
nox.options.reuse_existing_virtualenvs = True


# Parts and their budgets -------------------------------------------------------------------------

BUDGET_MINUTES = {"static": 2.0, "build and unit": 4.0, "simulation": 6.0, "integration": 6.0}


@contextlib.contextmanager
def part(session: nox.Session, name: str) -> Iterator[None]:
    """Time one part of the run; fail the session when the part outgrew its budget."""
    started = time.monotonic()
    session.log(f"── {name}")
    yield
    minutes = (time.monotonic() - started) / 60
    budget = BUDGET_MINUTES[name]
    session.log(f"── {name}: {minutes:.1f} of {budget:.1f} minutes")
    if minutes > budget:
        session.error(f"the part {name!r} took {minutes:.1f} minutes; its budget is {budget:.1f}")


# Set-up ------------------------------------------------------------------------------------------


def uv(session: nox.Session, *arguments: str, **options: object) -> None:
    """Run uv from the session's own environment."""
    session.run("uv", *arguments, silent=True, **options)  # type: ignore[arg-type]


def install_locked(session: nox.Session, *extra: str) -> None:
    """Install the locked third-party packages, the development tools included."""
    session.install("uv", silent=True)
    requirements = Path(session.create_tmp()) / "requirements.txt"
    uv(
        session,
        "export",
        "--locked",
        "--all-packages",
        "--all-extras",
        "--no-emit-workspace",
        "--no-hashes",
        "--output-file",
        str(requirements),
    )
    uv(session, "pip", "install", "--requirement", str(requirements), *extra)


def build_wheels(session: nox.Session) -> list[str]:
    """Build all wheels from the source tree into `dist/` and return their paths."""
    session.install("uv", silent=True)
    shutil.rmtree(DIST, ignore_errors=True)
    uv(session, "build", "--all-packages", "--wheel", "--no-sources", "--out-dir", str(DIST))
    return sorted(str(path) for path in DIST.glob("*.whl"))


def install_wheels(session: nox.Session) -> None:
    """Install everything a test needs: locked dependencies, then our own wheels."""
    install_locked(session)
    wheels = build_wheels(session)
    uv(session, "pip", "install", "--no-deps", "--reinstall", *wheels)


# Parts -------------------------------------------------------------------------------------------


def run_lint(session: nox.Session) -> None:
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run(
        "codespell",
        "packages",
        "docs",
        "examples",
        "integration-tests",
        "proto",
        *(str(path.name) for path in ROOT.glob("*.md")),
    )


def run_types(session: nox.Session) -> None:
    session.run("mypy", *SOURCES, *session.posargs)


def run_imports(session: nox.Session) -> None:
    session.run("lint-imports")
    session.run("pytest", "-q", "tools/tests")


def run_proto(session: nox.Session, *arguments: str) -> None:
    session.run("python", "tools/protos.py", *arguments)
    session.run("buf", "lint")


def run_static(session: nox.Session) -> None:
    with part(session, "static"):
        run_lint(session)
        session.run("mypy", *SOURCES)
        run_imports(session)
        session.run("python", "tools/tidy.py")
        run_proto(session, "--check")


def run_unit(session: nox.Session, *arguments: str) -> None:
    session.run("pytest", "-q", *(f"packages/{package}/tests" for package in PACKAGES), *arguments)


def run_simulations(session: nox.Session, *arguments: str) -> None:
    jobs = ("--jobs", str(os.cpu_count() or 1))
    for module in ("conveyor_raft.testing.simulator", "conveyor_sidecar.testing.simulator"):
        session.run("python", "-m", module, *jobs, *arguments)


def run_integration(session: nox.Session, *arguments: str) -> None:
    session.run("pytest", "-q", "integration-tests", *arguments)


# Sessions ----------------------------------------------------------------------------------------


@nox.session
def tests(session: nox.Session) -> None:
    """Everything a change must pass, from static checks to real clusters."""
    session.install("uv", silent=True)
    install_locked(session)
    with part(session, "build and unit"):
        uv(session, "pip", "install", "--no-deps", "--reinstall", *build_wheels(session))
        run_standalone(session)
        run_unit(session, *(f"--ignore={path}" for path in SIMULATIONS))
    run_static(session)
    with part(session, "simulation"):
        session.run("pytest", "-q", *SIMULATIONS)
        run_simulations(session, "--seeds", "300")
    with part(session, "integration"):
        run_integration(session)


def run_standalone(session: nox.Session) -> None:
    """Prove that conveyor-raft works by itself: alone in an empty environment."""
    environment = Path(session.create_tmp()) / "standalone"
    python = environment / "bin" / "python"
    uv(session, "venv", "--clear", "--python", sys.executable, str(environment))
    uv(
        session,
        "pip",
        "install",
        "--python",
        str(python),
        *map(str, DIST.glob("conveyor_raft-*.whl")),
    )
    session.run(str(python), "-c", STANDALONE, external=True, env={"PYTHONPATH": ""})


STANDALONE = """
import asyncio, importlib.metadata, sys
from conveyor_raft import RaftConfig, RaftNode, RouterCommand, RouterStateMachine

async def main():
    async with RaftNode(RaftConfig(node_id=1), RouterStateMachine(), peers=[]) as node:
        await node.wait_for_leader(timeout=5)

asyncio.run(main())
installed = {d.name for d in importlib.metadata.distributions() if d.name.startswith("conveyor")}
assert installed == {"conveyor-raft"}, installed
print("conveyor-raft works alone")
"""


@nox.session(python=PYTHONS)
@nox.parametrize("package", PACKAGES, ids=PACKAGES)
def unit(session: nox.Session, package: str) -> None:
    """One package's unit tests on one Python, against its wheel."""
    install_wheels(session)
    session.run("pytest", "-q", f"packages/{package}/tests", *session.posargs)


@nox.session
def minimums(session: nox.Session) -> None:
    """The unit tests with the lowest versions that the packages declare."""
    session.install("uv", silent=True)
    wheels = build_wheels(session)
    requirements = Path(session.create_tmp()) / "minimums.txt"
    projects = [f"packages/{package}/pyproject.toml" for package in PACKAGES]
    lowest = ("--resolution", "lowest-direct", "--no-sources", "--find-links", str(DIST))
    uv(session, "pip", "compile", *lowest, "--all-extras", "-o", str(requirements), *projects)
    session.log(requirements.read_text())
    uv(session, "pip", "install", "--find-links", str(DIST), "--requirement", str(requirements))
    uv(session, "pip", "install", "--no-deps", "--reinstall", *wheels)
    uv(session, "pip", "install", "pytest", "pytest-asyncio", "pytest-timeout", "hypothesis")
    run_unit(session, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting and spelling."""
    install_locked(session)
    run_lint(session)


@nox.session
def types(session: nox.Session) -> None:
    """The type checker, strict."""
    install_wheels(session)
    run_types(session)


@nox.session
def imports(session: nox.Session) -> None:
    """Import contracts: direction, pure cores, independence, declared dependencies."""
    install_wheels(session)
    run_imports(session)


@nox.session
def tidy(session: nox.Session) -> None:
    """The rules of the house that no other tool checks."""
    session.run("python", "tools/tidy.py", *session.posargs)


@nox.session
def proto(session: nox.Session) -> None:
    """Generate the protobuf modules; `-- --check` only compares."""
    install_locked(session)
    run_proto(session, *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Source archives and wheels of all packages, each checked and installed alone."""
    session.install("uv", "twine", silent=True)
    shutil.rmtree(DIST, ignore_errors=True)
    uv(session, "build", "--all-packages", "--no-sources", "--out-dir", str(DIST))
    session.run(
        "twine", "check", "--strict", *map(str, [*DIST.glob("*.whl"), *DIST.glob("*.tar.gz")])
    )
    for package in PACKAGES:
        environment = Path(session.create_tmp()) / package
        python = str(environment / "bin" / "python")
        uv(session, "venv", "--clear", "--python", sys.executable, str(environment))
        uv(session, "pip", "install", "--python", python, "--find-links", str(DIST), package)
        session.run(python, "-c", f"import {package.replace('-', '_')}", external=True)


@nox.session
def simulate(session: nox.Session) -> None:
    """Seeded simulations of the Raft core and of the delivery engine: `-- --seeds 300`."""
    install_wheels(session)
    run_simulations(session, *(session.posargs or ["--seeds", "300"]))


@nox.session
def mutants(session: nox.Session) -> None:
    """Plant each known bug in a copy of the cores and show that the suites find it.

    `-- WORD` plants only those of the Raft core whose names hold the word.
    """
    install_wheels(session)
    session.run("python", "-m", "conveyor_raft.testing.mutants", *session.posargs)
    if not session.posargs:
        session.run("pytest", "-q", "-s", "packages/conveyor-sidecar/tests/testing")


@nox.session
def coverage(session: nox.Session) -> None:
    """Branch coverage of the Raft core by its tests, scripts and simulations together."""
    install_wheels(session)
    measure = ("coverage", "run", "--branch", "--append", "--source=conveyor_raft.core", "-m")
    tests = "packages/conveyor-raft/tests"
    session.run("coverage", "erase")
    session.run(*measure, "pytest", "-q", f"{tests}/core", f"{tests}/testing/test_scripts.py")
    session.run(*measure, "conveyor_raft.testing.simulator", "--seeds", "30", "--jobs", "1")
    session.run("coverage", "report", "--show-missing", "--fail-under=98", *session.posargs)


@nox.session
def integration(session: nox.Session) -> None:
    """Real clusters: processes, sockets, disks and kill -9; `-- -k name` picks a test."""
    install_wheels(session)
    run_integration(session, *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Benchmarks against peers in the same run: `-- [NAME] --json FILE`."""
    install_wheels(session)
    uv(session, "pip", "install", "pysyncobj")
    session.run("python", "benchmarks/run.py", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """The main job: three routers, real flights, processes killed on the way. `-- --help`."""
    install_wheels(session)
    session.run("python", "examples/flights/demo.py", *session.posargs)


@nox.session
def matrix(session: nox.Session) -> None:
    """Print the unit sessions as JSON, for the hosted workflow's matrix."""
    names = [f"unit-{python}({package})" for python in PYTHONS for package in PACKAGES]
    line = "sessions=" + json.dumps(names)
    print(line)
    if output := os.environ.get("GITHUB_OUTPUT"):
        with Path(output).open("a") as file:
            file.write(line + "\n")


@nox.session
def release(session: nox.Session) -> None:
    """Build one package for publishing: `-- NAME`, or the one that the pushed tag names."""
    tag = os.environ.get("GITHUB_REF_NAME", "")
    package = session.posargs[0] if session.posargs else tag.rpartition("-v")[0]
    if package not in PACKAGES:
        session.error(f"no package {package!r}; name one of {', '.join(PACKAGES)}")
    version = tomllib.loads((ROOT / "packages" / package / "pyproject.toml").read_text())[
        "project"
    ]["version"]
    if tag and tag != f"{package}-v{version}":
        session.error(f"the tag {tag} does not name {package} {version}")
    session.install("uv", "twine", silent=True)
    shutil.rmtree(DIST, ignore_errors=True)
    uv(session, "build", "--package", package, "--no-sources", "--out-dir", str(DIST))
    session.run(
        "twine", "check", "--strict", *map(str, DIST.glob(f"{package.replace('-', '_')}-*"))
    )
