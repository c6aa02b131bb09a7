"""What a user of conveyor-raft writes: a state machine, fed with agreed entries one by one.

What for: consensus agrees on a sequence of bytes; a state machine gives them meaning. Every node
applies the same entries in the same order, so all end in the same state, provided that `apply` is
deterministic: no clock (use `entry.timestamp_ms`, stamped by the leader and the same on all nodes),
no randomness, no I/O, no iteration over sets of strings.

A state machine may offer `encode_result` and `decode_result` as well (`machines.results`), so that
sessions can give any result a second time; without them they can for plain values.

Snapshots are bytes, taken between two entries and restored as a whole; a state that has outgrown
memory has outgrown this interface as well.

Theory: Schneider, "Implementing fault-tolerant services using the state machine approach" (1990).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

C = TypeVar("C")
"""The type of the commands."""
R_co = TypeVar("R_co", covariant=True)
"""The type of the results."""
S_co = TypeVar("S_co", covariant=True)
"""The type of the state that readers see."""


@dataclass(slots=True)
class Entry(Generic[C]):
    """One agreed command.

    `timestamp_ms` is the wall time of the leader when it appended the entry. It never decreases
    along the log, and is the only time that `apply` may use.
    """

    index: int
    term: int
    timestamp_ms: int
    command: C


class StateMachine(Protocol[C, R_co, S_co]):
    """Deterministic, synchronous, single-threaded: it lives on the node's event loop.

    The state machine belongs to the node from the moment it is handed over.
    """

    def apply(self, entry: Entry[C]) -> R_co:
        """Change the state and return the result for the proposer.

        Raise `CommandRejected` before changing anything to refuse the command: the proposer gets
        the exception, and the node goes on. Any other exception stops the node, because nobody can
        say whether the other nodes would have failed in the same place.
        """
        ...

    def snapshot(self) -> bytes:
        """Return the whole state. Called between two entries; it must not change anything."""
        ...

    def restore(self, data: bytes) -> None:
        """Replace the whole state by one that `snapshot` returned, here or on another node."""
        ...

    def encode_command(self, command: C) -> bytes:
        """Return the bytes that go into the log; raise `ValueError` for what is no command."""
        ...

    def decode_command(self, data: bytes) -> C:
        """Return the command of the bytes; an unknown one must raise, never be skipped."""
        ...

    @property
    def state(self) -> S_co:
        """The current state, for readers; they must not change it."""
        ...
