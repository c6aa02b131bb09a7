"""A small state machine that is useful by itself: names, values, and compare-and-set.

    await node.propose(KeyValueCommand.put("colour", b"green"))
    await node.propose(KeyValueCommand.compare_and_set("colour", b"green", b"blue"))
    (await node.state())["colour"]

Rules kept: a command is encoded by hand in a few bytes, in one version; the result of each is an
`Outcome`; the state is a plain dict that readers must not change.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from conveyor_raft.machines.base import Entry

_VERSION = 1
_COMMAND = struct.Struct("<BBHii")
_PAIR = struct.Struct("<II")
_ABSENT = -1


class KeyValueOperation(enum.IntEnum):
    """What a command does; the numbers are in the log."""

    PUT = 1
    DELETE = 2
    COMPARE_AND_SET = 3


@dataclass(frozen=True, slots=True)
class KeyValueCommand:
    """One change. `None` as a value means that the key is absent."""

    operation: KeyValueOperation
    key: str
    value: bytes | None = None
    expected: bytes | None = None

    @classmethod
    def put(cls, key: str, value: bytes) -> KeyValueCommand:
        """Set the key."""
        return cls(KeyValueOperation.PUT, key, value)

    @classmethod
    def delete(cls, key: str) -> KeyValueCommand:
        """Remove the key, if it is there."""
        return cls(KeyValueOperation.DELETE, key)

    @classmethod
    def compare_and_set(
        cls, key: str, expected: bytes | None, value: bytes | None
    ) -> KeyValueCommand:
        """Set the key if it has the expected value; None stands for "absent" in both places."""
        return cls(KeyValueOperation.COMPARE_AND_SET, key, value, expected)


class KeyValueResult(NamedTuple):
    """What a command did: whether the key was changed, and what it held before."""

    changed: bool
    previous: bytes | None


class KeyValueStateMachine:
    """A `StateMachine` over a dict."""

    def __init__(self) -> None:
        self._data: dict[str, bytes] = {}

    @property
    def state(self) -> Mapping[str, bytes]:
        """The current content."""
        return self._data

    def apply(self, entry: Entry[KeyValueCommand]) -> KeyValueResult:
        """Perform one command."""
        command = entry.command
        previous = self._data.get(command.key)
        conditional = command.operation is KeyValueOperation.COMPARE_AND_SET
        if conditional and previous != command.expected:
            return KeyValueResult(changed=False, previous=previous)
        if command.value is None:
            self._data.pop(command.key, None)
        else:
            self._data[command.key] = command.value
        return KeyValueResult(previous != command.value, previous)

    def snapshot(self) -> bytes:
        """Return all pairs, sorted by key."""
        parts = [bytes([_VERSION])]
        for key, value in sorted(self._data.items()):
            name = key.encode()
            parts += (_PAIR.pack(len(name), len(value)), name, value)
        return b"".join(parts)

    def restore(self, data: bytes) -> None:
        """Replace all pairs."""
        _check_version(data)
        restored = {}
        position = 1
        while position < len(data):
            name_length, length = _PAIR.unpack_from(data, position)
            position += _PAIR.size
            name = data[position : position + name_length].decode()
            position += name_length
            restored[name] = data[position : position + length]
            position += length
        self._data = restored

    def encode_result(self, result: KeyValueResult) -> bytes:
        """Return a result as bytes, for sessions."""
        flags = result.changed | (result.previous is not None) << 1
        return bytes([_VERSION, flags]) + (result.previous or b"")

    def decode_result(self, data: bytes) -> KeyValueResult:
        """Return the result of the bytes."""
        _check_version(data)
        return KeyValueResult(bool(data[1] & 1), data[2:] if data[1] & 2 else None)

    def encode_command(self, command: KeyValueCommand) -> bytes:
        """Return the command as bytes."""
        name = command.key.encode()
        value, expected = command.value, command.expected
        head = _COMMAND.pack(
            _VERSION,
            command.operation,
            len(name),
            _ABSENT if value is None else len(value),
            _ABSENT if expected is None else len(expected),
        )
        return b"".join((head, name, value or b"", expected or b""))

    def decode_command(self, data: bytes) -> KeyValueCommand:
        """Return the command of the bytes."""
        _check_version(data)
        _, operation, name_length, value_length, expected_length = _COMMAND.unpack_from(data)
        start = _COMMAND.size
        parts: list[bytes | None] = []
        for length in (name_length, value_length, expected_length):
            parts.append(None if length == _ABSENT else data[start : start + length])
            start += max(length, 0)
        name, value, expected = parts
        assert name is not None
        return KeyValueCommand(KeyValueOperation(operation), name.decode(), value, expected)


def _check_version(data: bytes) -> None:
    if not data or data[0] != _VERSION:
        raise ValueError(
            f"key-value data of version {data[0] if data else 'none'}, this release knows"
            f" {_VERSION}; run the release that wrote it"
        )
