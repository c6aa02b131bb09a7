"""The checker against brute force, its witness, its reductions, and how far it carries."""

from __future__ import annotations

import random
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conveyor_raft.machines.key_value import (
    KeyValueCommand,
    KeyValueResult,
    KeyValueStateMachine,
)
from conveyor_raft.testing.histories import (
    KeyValueModel,
    Operation,
    RegisterModel,
    StateMachineModel,
)
from conveyor_raft.testing.linearizability import (
    Answer,
    check,
    check_by_search,
    check_witness,
)

REGISTER = RegisterModel()


def explains(model, order):
    """Whether the order keeps real time and gives every result."""
    state, newest = model.initial(), -1
    for one in order:
        if one.returned is not None and one.returned < newest:
            return False
        newest = max(newest, one.invoked)
        state, result = model.step(state, one.command)
        if one.returned is not None and result != one.result:
            return False
    return True


def brute_force(model, operations):
    """Try every order of every set of unknown operations."""
    known = [one for one in operations if one.returned is not None]
    unknown = [one for one in operations if one.returned is None]
    for chosen in range(1 << len(unknown)):
        some = [one for bit, one in enumerate(unknown) if chosen >> bit & 1]
        if any(explains(model, order) for order in permutations(known + some)):
            return True
    return False


def history(rng, *, count, clients, values, model=REGISTER, unknown=0.0, lie=0.0, ties=True):
    """Clients that are always busy; linearizable unless `lie` plants a lie."""
    moments = []
    clock = [0] * clients
    for number in range(count):
        client = number % clients
        begin = clock[client] + rng.randint(0 if ties else 1, 2)
        point = begin + rng.randint(0, 2 * clients)
        end = point + rng.randint(0, 2 * clients)
        clock[client] = end + (0 if ties else 1)
        kind = rng.random()
        if kind < 0.5:
            command = ("read",)
        elif kind < 0.75:
            command = ("cas", rng.choice(values), rng.choice(values) if len(values) < 9 else number)
        else:
            command = ("write", rng.choice(values) if len(values) < 9 else number)
        moments.append((point, number, client, command, begin, end))
    state = model.initial()
    operations = []
    for point, _, client, command, begin, end in sorted(moments):
        lost = rng.random() < unknown
        result = None
        if not lost or rng.random() < 0.5:
            state, result = model.step(state, command)
        if not lost and command[0] != "write" and rng.random() < lie:
            result = rng.choice(values)
        operations.append(
            Operation(client, command, result, begin, None if lost else end, index=point + 1)
        )
    return operations


@pytest.mark.parametrize("seed", range(8))
def test_it_agrees_with_brute_force(seed):
    """On thousands of small histories, at least three in ten of them with a violation."""
    rng = random.Random(seed)
    bad = 0
    for _ in range(400):
        operations = history(
            rng,
            count=rng.randint(2, 6),
            clients=rng.randint(2, 4),
            values=(1, 2, None),
            unknown=rng.choice((0, 0.2, 0.5)),
            lie=rng.choice((0, 0.5, 0.9)),
        )
        truth = brute_force(REGISTER, operations)
        bad += not truth
        found = check_by_search(REGISTER, operations)
        assert bool(found) == truth, [str(one) for one in operations]
        witnessed = check_witness(REGISTER, operations)
        assert not witnessed or truth
        assert bool(check(REGISTER, operations)) == truth
        if not truth:
            assert found.answer is Answer.VIOLATED
            assert found.stuck in operations
            assert explains(REGISTER, found.prefix)
    assert bad >= 0.3 * 400


COMMANDS = st.one_of(
    st.just(("read",)),
    st.tuples(st.just("write"), st.integers(1, 2)),
    st.tuples(st.just("cas"), st.integers(1, 2), st.integers(1, 2)),
)
OPERATIONS = st.builds(
    lambda command, result, invoked, length, known: Operation(
        0,
        command,
        None if command[0] == "write" else result,
        invoked,
        invoked + length if known else None,
    ),
    COMMANDS,
    st.sampled_from([None, 1, 2]),
    st.integers(0, 8),
    st.integers(0, 5),
    st.booleans() | st.just(True),
)


@given(st.lists(OPERATIONS, max_size=6))
@settings(max_examples=400, deadline=None)
def test_any_small_history_gets_the_verdict_of_brute_force(operations):
    """Also those that no system would produce."""
    assert bool(check_by_search(REGISTER, operations)) == brute_force(REGISTER, operations)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0.0, 0.02])
def test_ten_thousand_operations_of_fifteen_clients_on_one_key(lost):
    """Within a number of steps that takes seconds, whatever the machine."""
    operations = history(
        random.Random(1), count=10_000, clients=15, values=range(40), unknown=lost, ties=False
    )
    verdict = check_by_search(REGISTER, operations, steps_max=2_000_000)
    assert verdict, verdict.explain()


def test_a_stale_read_is_found_and_explained():
    """The longest order that fits, then the read that does not."""
    write = Operation(1, ("write", 1), None, 0, 1)
    read = Operation(2, ("read",), None, 2, 3)
    verdict = check(REGISTER, [write, read])
    assert verdict.answer is Answer.VIOLATED
    assert verdict.stuck == read
    assert "does not  client 2 [2..3]: ('read',) -> None" in verdict.explain()
    assert "state     1" in verdict.explain()
    together = Operation(2, ("read",), None, 1, 3)
    assert check(REGISTER, [write, together])


def test_an_unknown_write_may_take_effect_late_or_never():
    """But not twice, and not before its begin."""
    write = Operation(1, ("write", 1), None, 5, None)

    def read(at, result):
        return Operation(2, ("read",), result, at, at)

    assert check(REGISTER, [write, read(6, None), read(7, 1)])
    assert check(REGISTER, [write, read(6, None), read(7, None)])
    assert not check(REGISTER, [write, read(4, 1)])
    assert not check(REGISTER, [write, read(6, 1), read(7, None)])


def test_keys_are_checked_apart():
    """What goes wrong with one key is said of that key."""
    operations = [Operation(n, ("write", n), None, 2 * n, 2 * n + 1, key=n % 3) for n in range(30)]
    assert check(REGISTER, operations)
    lie = Operation(99, ("read",), -1, 100, 101, key=2)
    verdict = check(REGISTER, [*operations, lie])
    assert verdict.answer is Answer.VIOLATED
    assert verdict.key == 2
    assert "key 2" in verdict.explain()


def test_a_witness_is_a_hint_and_never_believed():
    """A wrong one costs a search; results and times decide."""
    write = Operation(1, ("write", 1), None, 0, 9, index=1)
    read = Operation(2, ("read",), None, 0, 9, index=2)
    assert check_witness(REGISTER, [write, read]).answer is Answer.VIOLATED
    assert check(REGISTER, [write, read])
    late = Operation(2, ("write", 2), None, 20, 21, index=1)
    early = Operation(1, ("write", 1), None, 0, 9, index=2)
    assert not check_witness(REGISTER, [late, early])
    without = Operation(1, ("write", 1), None, 0, 9)
    assert check_witness(REGISTER, [without, read]) is None


def test_reads_at_an_index_see_the_write_of_that_index():
    """A read that was served at an index comes after the entry there, in the order of time."""
    write = Operation(1, ("write", 1), None, 0, 9, index=7)
    reads = [
        Operation(2, ("read",), 1, 3, 9, index=7, reads=True),
        Operation(3, ("read",), None, 1, 9, index=6, reads=True),
    ]
    assert check_witness(REGISTER, [*reads, write])


def test_an_unknown_operation_that_the_log_does_not_have_never_happened():
    """Its place in the log is what the witness goes by."""
    lost = Operation(1, ("write", 1), None, 0, None)
    kept = Operation(2, ("write", 2), None, 0, None, index=3)
    read = Operation(3, ("read",), 2, 5, 6, index=4)
    assert check_witness(REGISTER, [lost, kept, read])


def test_too_many_steps_are_no_success():
    """Whoever cannot decide says so."""
    operations = history(random.Random(4), count=60, clients=6, values=range(40))
    verdict = check_by_search(REGISTER, operations, steps_max=10)
    assert verdict.answer is Answer.UNDECIDED
    assert not verdict
    assert "undecided after" in verdict.explain()


def test_a_history_without_operations_is_linearizable():
    """Nothing was promised."""
    assert check(REGISTER, [])
    assert check_by_search(REGISTER, [])


KEY_VALUE = KeyValueModel()
CAS = KeyValueCommand.compare_and_set


def test_the_key_value_model_is_the_state_machine():
    """Two independent texts of one specification."""
    rng = random.Random(7)
    by_machine = StateMachineModel(KeyValueStateMachine)
    state, snapshot = KEY_VALUE.initial(), by_machine.initial()
    values = (None, b"1", b"2")
    for _ in range(300):
        command = rng.choice(
            (
                KeyValueCommand.put("k", rng.choice(values[1:])),
                KeyValueCommand.delete("k"),
                CAS("k", rng.choice(values), rng.choice(values)),
            )
        )
        state, expected = KEY_VALUE.step(state, command)
        snapshot, result = by_machine.step(snapshot, command)
        assert result == expected


def test_a_state_machine_is_its_own_model():
    """Whatever answers by its state alone can be checked without another text."""
    first = Operation(1, CAS("k", None, b"1"), KeyValueResult(True, None), 0, 9)
    second = Operation(2, CAS("k", None, b"2"), KeyValueResult(False, b"1"), 0, 9)
    model = StateMachineModel(KeyValueStateMachine)
    assert check(model, [second, first])
    twice = Operation(2, CAS("k", None, b"2"), KeyValueResult(True, None), 0, 9)
    assert not check(model, [first, twice])


def test_unknown_writes_that_nobody_saw_are_left_out():
    """One that is expected by another one that was seen stays."""
    write = Operation(1, KeyValueCommand.put("k", b"1"), None, 0, None)
    swap = Operation(2, CAS("k", b"1", b"2"), None, 0, None)
    idle = Operation(3, KeyValueCommand.put("k", b"3"), None, 0, None)
    read = Operation(4, CAS("k", None, None), KeyValueResult(False, b"2"), 5, 6)
    assert set(KEY_VALUE.without_idle([write, swap, idle, read])) == {write, swap, read}
    assert check(KEY_VALUE, [write, swap, idle, read])
    assert not check(KEY_VALUE, [swap, idle, read])


def test_a_command_that_is_none_is_said():
    """A workload that speaks another language is a mistake of the test."""
    with pytest.raises(ValueError, match="no command of a register"):
        REGISTER.step(None, ("increment",))
