"""Does the suite find bugs? Known ones are planted, and each must be found.

    python -m conveyor_raft.testing.mutants --tests packages/conveyor-raft/tests [WORD...]

Prints a table: what was planted, what found it (a rule of the simulator after so many seeds, or a
test), and how long that took. A bug that lives is a hole in the suite, to be closed there.
`planted_bugs` describes the patches.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conveyor_raft.testing.planted_bugs import Find, PlantedBug, hunt, read_bugs, select

_BY_WIDTH = 100


def describe(bug: PlantedBug, find: Find | None, seeds: int) -> str:
    """Return the bug's row of the table."""
    if find is None:
        return f"| {bug.name} | **ALIVE** | not in {seeds if not bug.tests else 'these tests'} |"
    effort = f"{find.seeds} seeds" if find.seeds else "test"
    by = find.by if len(find.by) <= _BY_WIDTH else f"{find.by[:_BY_WIDTH]}…"
    return f"| {bug.name} | {effort} | {by.replace('|', '/')} |"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m conveyor_raft.testing.mutants")
    parser.add_argument("words", nargs="*", help="only bugs whose names hold one of these")
    parser.add_argument("--seeds", type=int, default=2_000, help="give up after so many seeds")
    parser.add_argument("--events", type=int, default=5_000, help="events of each seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument(
        "--tests",
        type=Path,
        default=Path("packages/conveyor-raft/tests"),
        help="where the tests of conveyor-raft are",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Hunt all bugs; return 1 if one lives or cannot be planted."""
    arguments = _arguments(argv)
    bugs = list(select(read_bugs(), arguments.words))
    started = time.monotonic()
    unfound = 0

    def search(bug: PlantedBug) -> tuple[bool, str]:
        try:
            find = hunt(bug, seeds=arguments.seeds, events=arguments.events, tests=arguments.tests)
        except (ValueError, RuntimeError, SyntaxError) as error:
            return False, f"| {bug.name} | **NOT PLANTED** | {error} |"
        except subprocess.TimeoutExpired:
            return False, f"| {bug.name} | **ENDLESS** | the patched code does not come to an end |"
        return find is not None, describe(bug, find, arguments.seeds)

    print("| planted | found in | by |\n|---|---|---|")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for found, row in pool.map(search, bugs):
            unfound += not found
            print(row, flush=True)
    minutes = (time.monotonic() - started) / 60
    print(f"\n{len(bugs) - unfound} of {len(bugs)} planted bugs found in {minutes:.1f} minutes")
    return 1 if unfound else 0


if __name__ == "__main__":
    sys.exit(main())
