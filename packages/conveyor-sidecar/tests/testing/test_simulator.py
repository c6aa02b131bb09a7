"""The simulated worlds: clean, repeatable, and told so that a failure can be replayed."""

import os
import subprocess
import sys

import pytest

from conveyor_sidecar.testing import simulator
from conveyor_sidecar.testing.ledger import Broken, Ledger
from conveyor_sidecar.testing.records import expected_ends, source_name
from conveyor_sidecar.testing.scenario import FAULTS, scenario


@pytest.mark.slow
def test_seeds_are_clean() -> None:
    """The engine keeps its laws in a hundred worlds of every kind."""
    problems = {o.seed: o.problem for o in simulator.run_seeds(0, 100, 1, 60) if o.problem}
    assert problems == {}


def test_every_fault_occurs_in_the_first_seeds() -> None:
    """A fault that no seed has is a fault that nobody tests."""
    kinds = {kind for seed in range(100) for kind in scenario(seed).faults}
    assert kinds == set(FAULTS)


@pytest.mark.slow
def test_a_seed_reproduces_everything() -> None:
    """The digest of a world depends on its seed alone, not on the process or its hashes."""
    code = (
        "from conveyor_sidecar.testing.simulator import run; print([run(s).digest for s in (3, 8)])"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": str(number)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for number in (1, 2)
    }
    assert digests == {f"{[simulator.run(seed).digest for seed in (3, 8)]}\n"}


def test_the_command_tells_the_tale_of_a_seed(capsys: pytest.CaptureFixture[str]) -> None:
    """One seed is replayed with everything that happened."""
    assert simulator.main(["--seed", "1"]) == 0
    told = capsys.readouterr().out
    assert "TableChanged" in told
    assert "seed 1 is clean" in told


def test_the_command_counts_seeds_and_faults(capsys: pytest.CaptureFixture[str]) -> None:
    """The sum says how much was tried."""
    assert simulator.main(["--seeds", "3", "--first", "5"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("3 seeds, ")
    assert "clean in" in told


def test_a_spent_budget_ends_the_run() -> None:
    """The time is bounded, however many seeds were asked for."""
    assert list(simulator.run_seeds(0, 10**6, 1, 0.0)) == []


@pytest.mark.slow
def test_two_jobs_run_all_seeds_in_order() -> None:
    """Processes share the work and lose none of it."""
    seeds = [outcome.seed for outcome in simulator.run_seeds(7, 45, 2, 60)]
    assert seeds == list(range(7, 52))


def test_the_ledger_refuses_a_commit_ahead_of_the_sinks() -> None:
    """The law itself: a position may not pass a record that has not ended."""
    plan = next(s for s in map(scenario, range(1_000)) if _has_an_end(s.seed))
    with pytest.raises(Broken, match="committed ahead of the sinks"):
        Ledger(plan).commit("p0", 1, False)


def test_the_ledger_misses_what_is_lost() -> None:
    """At the end every record must be somewhere."""
    plan = next(s for s in map(scenario, range(1_000)) if _has_an_end(s.seed))
    with pytest.raises(Broken, match="a record is lost"):
        Ledger(plan).check_end()


def _has_an_end(seed: int) -> bool:
    return bool(expected_ends(scenario(seed).stages, "reader", source_name("p0", 0), set()))
