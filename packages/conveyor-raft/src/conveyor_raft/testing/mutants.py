"""Does the simulator find bugs? Known ones are planted, and it must find each.

    python -m conveyor_raft.testing.mutants --seeds 2000

Each mutant is a text patch of one line or two that must match exactly once. It is applied to a copy
of the package, and the simulator runs on the copy until it reports a broken rule. A simulator that
lets one of them live proves nothing about the code that it praises.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_PACKAGE = Path(__file__).parents[1]
_FOUND = re.compile(r"^seed (\d+) after (\d+) events: (.*)$", re.MULTILINE)


class Mutant(NamedTuple):
    """One bug. `old` stands exactly once in `module`, a path within the package."""

    name: str
    module: str
    old: str
    new: str


class Catch(NamedTuple):
    """How a mutant was found."""

    seeds: int
    events: int
    rule: str


MUTANTS = (
    Mutant(
        "reply before the vote is durable",
        "core/ballot.py",
        "replica.promise(message.sender, VoteReply(granted))",
        "replica.send(message.sender, VoteReply(granted))",
    ),
    Mutant(
        "count old-term entries",
        "core/leader.py",
        "if stored >= self._first_index and stored > replica.commit_index:",
        "if stored > replica.commit_index:",
    ),
    Mutant(
        "forget the vote on restart",
        "core/replica.py",
        "self.term, self.voted_for = loaded.hard_state",
        "self.term, self.voted_for = loaded.hard_state.term, None",
    ),
    Mutant(
        "truncate on a stale append",
        "core/follower.py",
        """            if missing > frame.last_index:
                continue
""",
        """            if missing > frame.last_index:
                if frame.last_index < log.last_index:
                    replica.truncate_from(LogIndex(frame.last_index + 1))
                continue
""",
    ),
    Mutant(
        "acknowledge an unwritten entry",
        "core/replica.py",
        "self.send_after(write_id, to, AppendAck(session, match))",
        "self.send(to, AppendAck(session, match))",
    ),
    Mutant(
        "the leader counts its own copy before it is durable",
        "core/leader.py",
        "replica.ledger.durable_index",
        "replica.log.last_index",
    ),
    Mutant(
        "vote for a candidate whose log lacks entries",
        "core/ballot.py",
        "granted = free and at_least_as_complete(request.last, replica.log.last_id)",
        "granted = free",
    ),
    Mutant(
        "a late completion marks other entries as durable",
        "core/durability.py",
        "deque((write, min(last, standing)) for write, last in self._in_flight)",
        "deque(self._in_flight)",
    ),
    Mutant(
        "a heartbeat carries any commit index",
        "core/leader.py",
        "commit = min(progress.match, replica.commit_index)",
        "commit = replica.commit_index",
    ),
    Mutant(
        "a snapshot commits whatever stands at its index",
        "core/follower.py",
        "if replica.log.contains(meta.last_id):",
        "if meta.index <= replica.log.last_index:",
    ),
)


def plant(mutant: Mutant, folder: Path) -> None:
    """Put a copy of the package with the bug into the folder.

    Raises:
        ValueError: the patch does not match exactly once.
    """
    copy = folder / _PACKAGE.name
    shutil.copytree(_PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    module = copy / mutant.module
    text = module.read_text()
    found = text.count(mutant.old)
    if found != 1:
        raise ValueError(f"{mutant.name}: {mutant.module} holds the patched text {found} times")
    module.write_text(text.replace(mutant.old, mutant.new))


def hunt(mutant: Mutant, *, seeds: int, events: int) -> Catch | None:
    """Plant a bug and run the simulator until it finds it; None if it does not.

    Raises:
        ValueError: the patch does not match exactly once.
        RuntimeError: the patched code fails by itself, which is not a find.
    """
    with tempfile.TemporaryDirectory() as name:
        plant(mutant, Path(name))
        command = (
            *(sys.executable, "-m", "conveyor_raft.testing.simulator", "--stop", "--jobs", "1"),
            *("--seeds", str(seeds), "--events", str(events)),
        )
        environment = {**os.environ, "PYTHONPATH": name, "PYTHONDONTWRITEBYTECODE": "1"}
        run = subprocess.run(
            command, env=environment, cwd=name, capture_output=True, text=True, check=False
        )
    found = _FOUND.search(run.stdout)
    if found is None:
        if run.returncode:
            raise RuntimeError(f"the simulator did not run: {run.stderr}")
        return None
    if not found[3].startswith(("Violated", "InvariantViolation")):
        raise RuntimeError(f"{mutant.name}: the patched code does not run: {found[3]}")
    return Catch(int(found[1]) + 1, int(found[2]), found[3])


def main(argv: Sequence[str] | None = None) -> int:
    """Hunt all mutants; return 1 if one lives."""
    parser = argparse.ArgumentParser(prog="python -m conveyor_raft.testing.mutants")
    parser.add_argument("--seeds", type=int, default=2_000, help="give up after so many seeds")
    parser.add_argument("--events", type=int, default=5_000, help="events of each seed")
    arguments = parser.parse_args(argv)
    alive = 0
    for mutant in MUTANTS:
        catch = hunt(mutant, seeds=arguments.seeds, events=arguments.events)
        if catch is None:
            alive += 1
            print(f"ALIVE  {mutant.name}: not found in {arguments.seeds} seeds")
        else:
            print(f"found  {mutant.name}: in {catch.seeds} seeds, by {catch.rule[:120]}")
    print(f"{len(MUTANTS) - alive} of {len(MUTANTS)} mutants found")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
