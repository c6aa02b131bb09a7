"""What a failing run can do without is left out, and what remains still fails."""

from __future__ import annotations

import re

import pytest

from conveyor_raft.machines.key_value import KeyValueOperation, KeyValueStateMachine
from conveyor_raft.testing.running import run_seed
from conveyor_raft.testing.shrinking import Shrinker
from conveyor_raft.testing.simulator import main
from conveyor_raft.testing.swarm import Knobs
from conveyor_raft.testing.without import CALM, Without
from conveyor_raft.testing.workload import KeyValueWorkload


@pytest.fixture
def planted(monkeypatch):
    """A follower that acknowledges what it has not written yet."""

    def send_at_once(self, write_id, to, body):
        self.send(to, body)

    monkeypatch.setattr("conveyor_raft.core.replica.Replica.send_after", send_at_once)


def failing_seed():
    return next(seed for seed in range(50) if run_seed(seed, events=1_500).failure)


def test_a_planted_bug_is_shown_by_a_few_events(planted):
    """Of all faults and proposals; under the same rule, and again by the printed command."""
    seed = failing_seed()
    shrinker = Shrinker(seed, events=1_500)
    smallest = shrinker.shrink(trace=40)
    assert smallest.result.rule == shrinker.first.result.rule
    assert len(smallest.happened) <= 8
    assert len(smallest.happened) < len(shrinker.first.happened)
    assert smallest.result.events <= shrinker.first.result.events
    assert any("node" in line for line in smallest.world.trace.lines())
    again = run_seed(seed, events=smallest.events, without=Without.parse(str(smallest.without)))
    assert again.digest == smallest.result.digest
    assert again.failure == smallest.result.failure


class Stumbling(KeyValueStateMachine):
    """Cannot delete what is there."""

    def apply(self, entry):
        if entry.command.operation is KeyValueOperation.DELETE and entry.command.key in self.state:
            raise KeyError(entry.command.key)
        return super().apply(entry)


class StumblingWorkload(KeyValueWorkload):
    def machine(self):
        return Stumbling()


def test_a_bug_of_a_state_machine_is_shown_by_its_commands_alone():
    """A put and a delete, perhaps in one proposal; no fault remains, because none is needed."""
    workload = StumblingWorkload()
    seed = next(
        seed for seed in range(50) if run_seed(seed, events=1_000, workload=workload).failure
    )
    smallest = Shrinker(seed, events=1_000, workload=workload).shrink(trace=100)
    assert smallest.result.rule == "a state machine applies every command"
    assert 1 <= len(smallest.happened) <= 3
    assert {name for name, _ in smallest.happened} == {"propose"}
    assert any("======  propose" in line for line in smallest.world.trace.lines())


def test_the_command_prints_what_is_left_and_how_to_see_it_again(planted, capsys):
    """The trace, the rule, the events, one line to replay."""
    seed = failing_seed()
    assert main(["--seed", str(seed), "--events", "1500", "--shrink"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"\d+ faults and proposals of \d+ are left, after \d+ runs: ", out)
    replay = re.search(r"replay: python -m conveyor_raft.testing.simulator (.*)", out)[1]
    arguments = [word.strip("'") for word in replay.split()]
    with pytest.raises(Exception, match=r".+") as failure:
        main(arguments)
    assert str(failure.value) in out


def test_a_seed_that_does_not_fail_is_said(capsys):
    """Nothing can be made smaller."""
    assert main(["--seed", "1", "--events", "200", "--shrink"]) == 0
    assert "seed 1 does not fail within 200 events" in capsys.readouterr().out


def test_what_is_left_out_is_written_and_read():
    """Spans of numbers, and knobs by name."""
    without = Without(
        frozenset({("crash", 1), ("crash", 2), ("disk error", 9)}), frozenset({"drop"})
    )
    assert str(without) == "drop,crash:1-2,disk-error:9-9"
    assert Without.parse(str(without)) == without
    assert Without.parse("crash:4") == Without(frozenset({("crash", 4)}))
    assert Without.parse("") == Without()
    with pytest.raises(ValueError, match="no 'thunder' to leave out"):
        Without.parse("thunder")
    with pytest.raises(ValueError, match="invalid literal"):
        Without.parse("crash:often")


def test_every_knob_can_be_calmed():
    """One by one, in any cluster."""
    knobs = Knobs(drop=0.5, crash_every_ms=100, clock_permille=(1000,))
    for name in CALM:
        assert getattr(Without(knobs=frozenset({name})).calmed(knobs), name) == CALM[name]
    assert "nodes" not in CALM


def test_leaving_one_event_out_does_not_change_what_the_others_are():
    """Each draws from a source of its own."""
    whole = Shrinkable(4)
    less = Shrinkable(4, Without(frozenset({("propose", 2)})))
    assert ("propose", 2) in whole.happened
    assert ("propose", 2) not in less.happened
    assert ("propose", 3) in less.happened


class Shrinkable:
    """A short run, for what happened in it."""

    def __init__(self, seed, without=None):
        from conveyor_raft.testing.world import World

        world = World(seed, without=without)
        assert not run_seed(seed, events=300, world=world).failure
        self.happened = world.happened
