"""The words of the algorithm: ids, terms, indexes, roles, members, and the outcomes of a proposal.

Everything here is a value: immutable, comparable, free of behaviour. Numbers that must not be
mixed up are `NewType`s, so a term never passes for an index.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, NewType, Protocol

NodeId = NewType("NodeId", int)
"""Names one member; unique within its cluster, positive."""

Term = NewType("Term", int)
"""Raft's logical clock: at most one leader for each; 0 before the first election."""

LogIndex = NewType("LogIndex", int)
"""The position of an entry, counted from 1; 0 means "before the first entry"."""

ClusterId = NewType("ClusterId", bytes)
"""Names one cluster for ever; messages of another are dropped."""

Incarnation = NewType("Incarnation", bytes)
"""Drawn once for each data directory: a node that lost its disk is not the one that it was."""


class RaftRole(enum.Enum):
    """What a node is at the moment."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    """Asks whether it would be elected; its term is still the old one."""
    CANDIDATE = "candidate"
    LEADER = "leader"


class EntryKind(enum.IntEnum):
    """What the payload of an entry means. The numbers are on disk and on the wire."""

    NOOP = 0
    """Empty; a new leader appends one, to have an entry of its own term to count (Raft §5.4.2)."""
    COMMAND = 1
    """Opaque bytes for the state machine."""
    CONFIG = 2
    """A `Membership`; in force from the moment it is appended, on every node that appends it."""


class LogId(NamedTuple):
    """One entry of one leader: two entries with equal ids are the same entry."""

    index: LogIndex  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    term: Term


ZERO_ID = LogId(LogIndex(0), Term(0))
"""The id "before the first entry"."""


class HardState(NamedTuple):
    """What a node must never forget: the newest term it has seen, and its vote in that term."""

    term: Term
    voted_for: NodeId | None


class Identity(NamedTuple):
    """Who a node is; it stands in every message that the node sends."""

    cluster_id: ClusterId
    node_id: NodeId
    incarnation: Incarnation


class Member(NamedTuple):
    """One node as the log knows it.

    An empty `incarnation` accepts messages of any incarnation of the node.
    """

    node_id: NodeId
    raft_address: str
    client_address: str = ""
    incarnation: Incarnation = Incarnation(b"")


class LogEntry(NamedTuple):
    """One entry, taken out of its frame. `timestamp_ms` never decreases along the log."""

    index: LogIndex  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    term: Term
    timestamp_ms: int
    kind: EntryKind
    payload: bytes


class RefusedReason(enum.Enum):
    """Why a proposal was not appended."""

    NOT_LEADER = "not leader"
    BUSY = "busy"
    TRANSFERRING = "the office is being handed over"
    """`Refused.leader_id` is who is to take it."""
    NO_TARGET = "no such other voter"
    NO_LEASE = "no lease"
    FAILED = "failed"
    NOT_READY = "no entry of this term is committed yet"
    CHANGE_IN_PROGRESS = "another change of the membership is on its way"
    CONFIGURATION_MOVED = "the membership is not the expected one"


class Proposed(NamedTuple):
    """The payloads are in the leader's log; the token will end as `Applied` or `Unknown`.

    A change of the membership that must wait for learners first has no entry at this moment:
    `last_index` is below `first_index`. It may also end as `Withdrawn`.
    """

    first_index: LogIndex
    last_index: LogIndex
    term: Term


class Refused(NamedTuple):
    """Nothing was appended, the commands surely have no effect; the token is not used again."""

    reason: RefusedReason
    leader_id: NodeId | None
    term: Term


ProposeResult = Proposed | Refused


class Transferred(NamedTuple):
    """The office was handed over as wished."""

    leader_id: NodeId
    term: Term


class NotTransferred(NamedTuple):
    """It was not, or not to the wished node; `reason` is a sentence."""

    reason: str


TransferOutcome = Transferred | NotTransferred
"""How the token of a transfer ends."""


class ReadReady(NamedTuple):
    """The state machine of this node holds everything up to `index`: the read may run."""

    index: LogIndex  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


class ReadFailed(NamedTuple):
    """Nobody could confirm the read; trying again is harmless."""

    reason: str


ReadOutcome = ReadReady | ReadFailed
"""How the token of a read ends."""


class Applied(NamedTuple):
    """Every entry of the proposal is committed, and applied on this node."""

    first_index: LogIndex
    last_index: LogIndex


class Unknown(NamedTuple):
    """The entries may or may not be committed, now or later; nobody here can say."""

    first_index: LogIndex
    last_index: LogIndex
    term: Term
    reason: str


class Withdrawn(NamedTuple):
    """A change of the membership surely does not take place; learners that it added may stay."""

    reason: str


Outcome = Applied | Unknown | Withdrawn
"""How a token that was `Proposed` ends; each one ends exactly once."""


class RandomSource(Protocol):
    """Where chance comes from; `random.Random` is one."""

    def randint(self, a: int, b: int, /) -> int:
        """Return a number from `a` to `b`, both included."""
        ...
