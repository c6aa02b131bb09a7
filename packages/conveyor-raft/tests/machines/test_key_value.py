"""The key-value state machine: what each command does, and that bytes keep their meaning."""

from __future__ import annotations

import pytest

from conveyor_raft import Entry, KeyValueCommand, KeyValueResult, KeyValueStateMachine


def applied(*commands: KeyValueCommand) -> tuple[KeyValueStateMachine, list[KeyValueResult]]:
    machine = KeyValueStateMachine()
    results = [
        machine.apply(Entry(index, 1, 0, machine.decode_command(machine.encode_command(command))))
        for index, command in enumerate(commands, 1)
    ]
    return machine, results


def test_put_and_delete_report_what_was_there() -> None:
    """The result tells the proposer what its command replaced."""
    machine, results = applied(
        KeyValueCommand.put("a", b"1"),
        KeyValueCommand.put("a", b"2"),
        KeyValueCommand.delete("a"),
        KeyValueCommand.delete("a"),
    )
    assert results == [(True, None), (True, b"1"), (True, b"2"), (False, None)]
    assert machine.state == {}


@pytest.mark.parametrize(
    ("expected", "value", "changed", "state"),
    [
        (b"1", b"2", True, {"a": b"2"}),
        (b"9", b"2", False, {"a": b"1"}),
        (None, b"2", False, {"a": b"1"}),
        (b"1", None, True, {}),
        (b"1", b"1", False, {"a": b"1"}),
    ],
)
def test_compare_and_set(
    expected: bytes | None, value: bytes | None, changed: bool, state: dict[str, bytes]
) -> None:
    """It changes the key only from the expected value; None stands for "absent"."""
    machine, results = applied(
        KeyValueCommand.put("a", b"1"), KeyValueCommand.compare_and_set("a", expected, value)
    )
    assert results[1] == (changed, b"1")
    assert machine.state == state


def test_an_absent_key_can_be_claimed_once() -> None:
    """Two claims, one winner."""
    claim = [KeyValueCommand.compare_and_set("lock", None, owner) for owner in (b"x", b"y")]
    machine, results = applied(*claim)
    assert [result.changed for result in results] == [True, False]
    assert machine.state == {"lock": b"x"}


def test_a_snapshot_restores_everything() -> None:
    """Empty keys, empty values and other alphabets included; equal states have equal bytes."""
    machine, _ = applied(
        KeyValueCommand.put("", b"empty key"),
        KeyValueCommand.put("empty value", b""),
        KeyValueCommand.put("ключ", b"\x00\xff"),
    )
    other = KeyValueStateMachine()
    other.restore(machine.snapshot())
    assert other.state == machine.state
    assert other.snapshot() == machine.snapshot()


@pytest.mark.parametrize("data", [b"", b"\x07abc"])
def test_unknown_versions_are_refused(data: bytes) -> None:
    """Neither a command nor a snapshot of another release is guessed at."""
    machine = KeyValueStateMachine()
    with pytest.raises(ValueError, match="run the release that wrote it"):
        machine.decode_command(data)
    with pytest.raises(ValueError, match="run the release that wrote it"):
        machine.restore(data)


def test_the_bytes_of_a_command_are_fixed() -> None:
    """They are in logs: golden bytes."""
    machine = KeyValueStateMachine()
    command = KeyValueCommand.compare_and_set("k", b"old", b"new!")
    assert (
        machine.encode_command(command).hex()
        == "01030100" + "04000000" + "03000000" + (b"k" + b"new!" + b"old").hex()
    )
