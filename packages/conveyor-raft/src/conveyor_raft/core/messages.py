"""What nodes say to each other.

A `Message` is an envelope around one body. The envelope carries what every receiver must check or
obey before it looks inside: the cluster, sender and addressee with their incarnations, and the
sender's term. Bodies that belong to one stream of replication carry its `session`: a leader draws a
new number for each follower it begins to replicate to, and an answer that names another one speaks
of another stream and is dropped.

Messages are values; they may be lost, duplicated, delayed and reordered, and nothing breaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.types import ClusterId, Incarnation, LogId, LogIndex, NodeId, Term


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """What a snapshot stands for: the log up to and including `index`."""

    index: LogIndex
    term: Term
    timestamp_ms: int
    """The timestamp of the entry at `index`; the log goes on from there."""
    membership: Membership

    @property
    def last_id(self) -> LogId:
        """The id of the last entry that the snapshot covers."""
        return LogId(self.index, self.term)


class RequestVote(NamedTuple):
    """A candidate asks for the receiver's vote in the envelope's term.

    `forced`: the leader itself has asked it to (`TimeoutNow`), so loyalty to that leader is no
    reason to refuse.
    """

    last: LogId
    forced: bool = False


class VoteReply(NamedTuple):
    """The answer; the envelope's term says in which election."""

    granted: bool


class PreVote(NamedTuple):
    """Would the receiver vote for the sender in `term`? The envelope has the sender's own term.

    `round` tells one attempt from the next; the answer repeats both.
    """

    last: LogId
    term: Term
    round: int


class PreVoteReply(NamedTuple):
    """The answer, which binds nobody; the envelope has the own term of who gives it."""

    granted: bool
    term: Term
    round: int


class AppendEntries(NamedTuple):
    """The leader's entries after `prev`; without frames it only asks whether `prev` matches."""

    session: int
    prev: LogId
    commit: LogIndex
    frames: tuple[Frame, ...]


class AppendAck(NamedTuple):
    """The sender's log equals the leader's up to `match`, durably. Says nothing about the rest."""

    session: int
    match: LogIndex


class AppendConflict(NamedTuple):
    """The sender's log does not contain `prev_index` in the term that the leader named.

    Where it has another entry there, `conflict_term` is that entry's term and `conflict_index` the
    first index of that term; where its log is shorter, `conflict_term` is 0 and `conflict_index`
    the first index that it lacks. So the leader skips a whole term with each round trip.
    """

    session: int
    prev_index: LogIndex
    conflict_term: Term
    conflict_index: LogIndex


class Heartbeat(NamedTuple):
    """The leader is alive; `commit` never exceeds what the receiver is known to have.

    `beat` counts the leader's rounds of heartbeats within its term.
    """

    session: int
    commit: LogIndex
    beat: int = 0


class HeartbeatReply(NamedTuple):
    """The sender followed when it got heartbeat `beat`; a stalled stream may go on."""

    session: int
    beat: int = 0


class InstallSnapshot(NamedTuple):
    """The leader's snapshot has arrived here, whole and verified; it replaces the log up to it.

    The bytes do not travel in this message: the driver sends them by a stream of their own, and
    hands the message to the receiving core when it holds all of them.
    """

    session: int
    meta: SnapshotMeta


class TermNotice(NamedTuple):
    """The receiver's term is over; the envelope carries the newer one."""


class TimeoutNow(NamedTuple):
    """The leader of the envelope's term asks the receiver to campaign at once, in the next one."""


class ReadRequest(NamedTuple):
    """A follower asks up to which index it must have applied before its reads may run.

    `suspect`: it may have lost entries that it has acknowledged; the leader is to forget that.
    """

    batch: int
    suspect: bool = False


class ReadReply(NamedTuple):
    """The leader was still the leader after the question arrived, with this commit index."""

    batch: int
    index: LogIndex  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


Body = (
    RequestVote
    | VoteReply
    | PreVote
    | PreVoteReply
    | AppendEntries
    | AppendAck
    | AppendConflict
    | Heartbeat
    | HeartbeatReply
    | InstallSnapshot
    | TermNotice
    | TimeoutNow
    | ReadRequest
    | ReadReply
)


class Message(NamedTuple):
    """The envelope.

    `to_incarnation` is the addressee as the sender's configuration has it; a node that lost its
    disk is not meant by what was said to it before. Empty: whoever has the id.
    """

    cluster_id: ClusterId
    sender: NodeId
    incarnation: Incarnation
    to: NodeId
    term: Term
    body: Body
    to_incarnation: Incarnation = Incarnation(b"")
