"""Users' state machines in the simulator: good ones pass, and each kind of mistake is named."""

from __future__ import annotations

import itertools
import json
import random
import re

import pytest

from conveyor_raft import CommandRejected
from conveyor_raft.machines.key_value import KeyValueResult, KeyValueStateMachine
from conveyor_raft.machines.sessions import SessionLayer
from conveyor_raft.testing import SimulationFailed, Workload, simulate
from conveyor_raft.testing.running import run_seed
from conveyor_raft.testing.simulator import main
from conveyor_raft.testing.workload import KeyValueWorkload, load_workload, workload_name

COUNTER = itertools.count()


class Counter:
    """Adds to names; nothing below zero."""

    def __init__(self):
        self.state = {}

    def apply(self, entry):
        name, amount = entry.command
        if self.state.get(name, 0) + amount < 0:
            raise CommandRejected("overdrawn", name)
        self.state[name] = self.state.get(name, 0) + amount
        return self.state[name]

    def snapshot(self):
        return json.dumps(self.state, sort_keys=True).encode()

    def restore(self, data):
        self.state = json.loads(data)

    def encode_command(self, command):
        return json.dumps(command).encode()

    def decode_command(self, data):
        return tuple(json.loads(data))


class Counting(Workload):
    """The workload of a counter; `machine` is replaced by those that are wrong."""

    def machine(self):
        return Counter()

    def command(self, rng, number):
        return rng.choice("ab"), rng.randint(-2, 3)

    def check(self, state):
        assert min(state.values(), default=0) >= 0


class Forgetful(Counter):
    def restore(self, data):
        super().restore(data)
        self.state.pop("b", None)


class Guessing(Counter):
    def apply(self, entry):
        return super().apply(entry) + next(COUNTER)


class Stumbling(Counter):
    def apply(self, entry):
        if entry.command == ("a", 3):
            raise KeyError("three")
        return super().apply(entry)


class Overdrawing(Counter):
    def apply(self, entry):
        name, amount = entry.command
        self.state[name] = self.state.get(name, 0) + amount
        return self.state[name]


class SizeTold(Counter):
    """Answers what the model does not: how many there are, which depends on more than its state."""

    def __init__(self):
        super().__init__()
        self.times = 0

    def apply(self, entry):
        super().apply(entry)
        self.times += 1
        return self.times


def of(machine):
    class Wrong(Counting):
        def machine(self):
            return machine()

    return Wrong()


def test_a_good_state_machine_passes():
    """And the counters say what it has been through."""
    counts = simulate(Counting(), seeds=range(8), events=1_500)
    assert counts["events"] >= 8 * 1_500
    assert counts["calls"] > 500
    assert counts["session_retries"] > 0


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (Forgetful, "does not restore its state|state machine safety"),
        (Guessing, "state machine safety: entry .* had the results"),
        (Stumbling, "a state machine applies every command: .*KeyError: 'three'"),
        (Overdrawing, "the workload's own check: at index"),
        (SizeTold, "state machine safety|linearizability"),
    ],
)
def test_each_kind_of_mistake_is_found_and_named(machine, words):
    """With the seed, and the command that shows it again."""
    with pytest.raises(SimulationFailed, match=words) as failed:
        simulate(of(machine), seeds=range(40), events=2_000)
    assert f"--seed {failed.value.seed} --events 2000 --workload" in str(failed.value)


def test_a_workload_is_found_by_its_name():
    """That is how the command line runs it."""
    name = workload_name(KeyValueWorkload())
    assert name == "conveyor_raft.testing.workload:KeyValueWorkload"
    assert isinstance(load_workload(name), KeyValueWorkload)
    alone = run_seed(1, events=500)
    named = run_seed(1, events=500, workload=load_workload(name))
    assert alone.digest == named.digest


@pytest.mark.parametrize(
    "name", ["nowhere:It", "conveyor_raft.testing.workload:Nothing", "json:JSONDecoder", "json"]
)
def test_a_name_that_is_no_workload_is_refused(name):
    """With the name in the message."""
    with pytest.raises(ValueError, match=re.escape(name)):
        load_workload(name)


def test_the_command_runs_a_workload(capsys):
    """The same flags as for the simulator's own."""
    name = "conveyor_raft.testing.workload:KeyValueWorkload"
    arguments = ["--seeds", "2", "--events", "300", "--jobs", "1", "--workload", name]
    assert main(arguments) == 0
    assert "0 failed" in capsys.readouterr().out


def test_sessions_that_are_missing_from_the_snapshot_are_found(monkeypatch):
    """A call that takes effect twice breaks the rule of exactly once."""
    restore = SessionLayer.restore

    def forget(self, data):
        restore(self, data)
        for session in self._sessions.values():
            session.results.clear()

    monkeypatch.setattr(SessionLayer, "restore", forget)
    monkeypatch.setattr("conveyor_raft.testing.hosted.HostedMachine.restore", _trusting)
    assert any(run_seed(seed, events=4_000).rule == "exactly once" for seed in range(40))


def _trusting(self, captured):
    self._index, self.digest, data = captured
    self._layer.restore(data)


def test_answers_before_agreement_are_not_linearizable(monkeypatch):
    """A machine that answers what was true one command earlier is caught by its clients."""
    apply = KeyValueStateMachine.apply

    def stale(self, entry):
        answer = apply(self, entry)
        last, self.last = getattr(self, "last", None), answer.previous
        return (
            KeyValueResult(answer.changed, last)
            if random.Random(entry.index).random() < 0.01
            else answer
        )

    monkeypatch.setattr(KeyValueStateMachine, "apply", stale)
    found = {"linearizability", "state machine safety"}
    assert any(run_seed(seed, events=2_000).rule in found for seed in range(12))


class Overlooking(KeyValueWorkload):
    """Some reads are answered as if nothing had been written yet."""

    def answer(self, state, question):
        seen = super().answer(state, question)
        return KeyValueResult(False, None) if len(state) % 3 == 0 else seen


def test_reads_are_part_of_the_history():
    """A node that answers from a state of long ago is caught by the clients, not by its index."""
    rules = {run_seed(seed, events=1_500, workload=Overlooking()).rule for seed in range(12)}
    assert rules == {"", "linearizability"}


def test_questions_need_answers():
    """A workload that asks and does not answer is a mistake that is said."""
    with pytest.raises(NotImplementedError, match="answers them"):
        Counting().answer({}, ("a", 0))
    assert Counting().question(random.Random(1)) is None
