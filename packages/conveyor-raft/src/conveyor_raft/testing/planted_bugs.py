"""Planted bugs: deliberate faults, kept as text patches and applied to a copy of the package.

What for: a suite that lets a known bug live proves nothing about the code that it praises. The
shipped code has no switches for this; a patch is text in `planted/*.txt`:

    the name of the bug, a sentence                          (then, until the next empty line:)
    in core/ballot.py
    found by simulation                                      or: found by tests/core/test_x.py ...
    -    replica.promise(message.sender, VoteReply(granted))
    +    replica.send(message.sender, VoteReply(granted))

Lines that begin with `-` are replaced by those that begin with `+`; lines that begin with a blank
stay and only say where. The old lines must stand exactly once in the module, and the new ones must
be Python that runs: a patch that fails by itself (a name that does not exist) is no find, and
neither is a seed that fails without the patch.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_PACKAGE = Path(__file__).parents[1]
_SIMULATION = "simulation"
_FAILED_SEED = re.compile(r"^seed (\d+) after (\d+) events: (.*)$", re.MULTILINE)
_FAILED_TEST = re.compile(r"^(?:FAILED|ERROR) (\S*?::[^\n]*?)( - .*)?$", re.MULTILINE)
_ERROR = re.compile(r"^E +([\w.]+)", re.MULTILINE)
_OWN_FAILURE = ("NameError", "UnboundLocalError", "ImportError", "SyntaxError")
_SECONDS_MAX = 1_800


class PlantedBug(NamedTuple):
    """One bug. `old` stands exactly once in `module`, a path within the package.

    `tests` are the paths of the tests that find it, within the folder of the package's tests; empty
    where the simulator must.
    """

    name: str
    module: str
    tests: tuple[str, ...]
    old: str
    new: str


class Find(NamedTuple):
    """How a bug was found; `seeds` is 0 where a test found it."""

    seeds: int
    events: int
    by: str
    seconds: float


def read_bugs(folder: Path | None = None) -> list[PlantedBug]:
    """Return all bugs of a folder, by default those that are shipped.

    Raises:
        ValueError: a patch is not written as it should be, or a name is used twice.
    """
    bugs: list[PlantedBug] = []
    for file in sorted((folder or _PACKAGE / "testing" / "planted").glob("*.txt")):
        for block in re.split(r"\n{2,}", file.read_text().strip()):
            lines = [line for line in block.split("\n") if not line.startswith("#")]
            if lines:
                bugs.append(_parse(lines, file))
    names = [bug.name for bug in bugs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two bugs are called {name!r}")
    return bugs


def _parse(lines: Sequence[str], file: Path) -> PlantedBug:
    name = lines[0]
    try:
        module = lines[1].removeprefix("in ")
        finder = lines[2].removeprefix("found by ")
        patch = lines[3:]
        if module == lines[1] or finder == lines[2] or any(line[0] not in "+- " for line in patch):
            raise ValueError
    except (IndexError, ValueError):
        raise ValueError(f"{file.name}: {name!r} is not name, `in`, `found by`, patch") from None
    old = "".join(f"{line[1:]}\n" for line in patch if line[0] != "+")
    new = "".join(f"{line[1:]}\n" for line in patch if line[0] != "-")
    if not old or old == new:
        raise ValueError(f"{file.name}: {name!r} changes nothing")
    tests = () if finder == _SIMULATION else tuple(finder.split())
    return PlantedBug(name, module, tests, old, new)


def patch(bug: PlantedBug) -> str:
    """Return the text of the bug's module with the bug.

    Raises:
        ValueError: the patch does not match exactly once.
        SyntaxError: the patched module does not compile.
    """
    text = "\n" + (_PACKAGE / bug.module).read_text()
    found = text.count(f"\n{bug.old}")
    if found != 1:
        raise ValueError(f"{bug.name}: {bug.module} holds the patched text {found} times")
    patched = text.replace(f"\n{bug.old}", f"\n{bug.new}")[1:]
    compile(patched, bug.module, "exec")
    return patched


def plant(bug: PlantedBug, folder: Path) -> None:
    """Put a copy of the package with the bug into the folder; raises what `patch` raises."""
    patched = patch(bug)
    copy = folder / _PACKAGE.name
    shutil.copytree(_PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / bug.module).write_text(patched)


def hunt(bug: PlantedBug, *, seeds: int, events: int, tests: Path) -> Find | None:
    """Plant a bug and let the suite find it; None if it does not.

    Raises:
        ValueError: the patch does not match exactly once.
        SyntaxError: the patched module does not compile.
        RuntimeError: the patched code fails by itself, which is not a find.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        plant(bug, Path(name))
        if bug.tests:
            found = _test(bug, Path(name), tests)
        else:
            found = _simulate(bug, Path(name), seeds=seeds, events=events)
    return None if found is None else found._replace(seconds=time.monotonic() - started)


def _simulate(bug: PlantedBug, folder: Path, *, seeds: int, events: int) -> Find | None:
    run = _run(
        folder,
        *("conveyor_raft.testing.simulator", "--stop", "--jobs", "1"),
        *("--seeds", str(seeds), "--events", str(events)),
    )
    found = _FAILED_SEED.search(run.stdout)
    if found is None:
        if run.returncode:
            raise RuntimeError(f"{bug.name}: the simulator did not run: {run.stderr}")
        return None
    if found[3].startswith((*_OWN_FAILURE, "AttributeError")):
        raise RuntimeError(f"{bug.name}: the patched code does not run: {found[3]}")
    replay = ("--seed", found[1], "--events", str(events))
    if _run(_PACKAGE.parent, "conveyor_raft.testing.simulator", *replay).returncode:
        raise RuntimeError(f"{bug.name}: seed {found[1]} fails without the bug, too: {found[3]}")
    return Find(int(found[1]) + 1, int(found[2]), found[3], 0.0)


def _test(bug: PlantedBug, folder: Path, tests: Path) -> Find | None:
    paths = [str((tests / path).resolve()) for path in bug.tests]
    options = ("-x", "-q", "-p", "no:cacheprovider", "--tb=short", "--timeout=60")
    root = f"--rootdir={tests.resolve()}"
    run = _run(folder, "pytest", *options, root, "--import-mode=importlib", *paths)
    found = _FAILED_TEST.search(run.stdout)
    if found is None:
        if run.returncode:
            raise RuntimeError(f"{bug.name}: the tests did not run: {run.stdout}{run.stderr}")
        return None
    for error in _ERROR.findall(run.stdout):
        if error.startswith(_OWN_FAILURE):
            raise RuntimeError(f"{bug.name}: the patched code does not run: {error} in {found[1]}")
    return Find(0, 0, found[1].rpartition("/")[2], 0.0)


def _run(folder: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        (sys.executable, "-m", module, *arguments),
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS_MAX,
    )


def select(bugs: Sequence[PlantedBug], words: Sequence[str]) -> Iterator[PlantedBug]:
    """Yield the bugs whose names hold one of the words; all, without words."""
    for bug in bugs:
        if not words or any(word in bug.name for word in words):
            yield bug
