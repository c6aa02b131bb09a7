"""Every message survives the wire; what is none is refused."""

from __future__ import annotations

import pytest

from conveyor_raft.core import messages as m
from conveyor_raft.core.frames import Frame
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.types import (
    ClusterId,
    EntryKind,
    Identity,
    Incarnation,
    LogId,
    LogIndex,
    Member,
    NodeId,
    Term,
)
from conveyor_raft.errors import Corrupt
from conveyor_raft.formation import Answer
from conveyor_raft.transport import codec
from conveyor_raft.transport.base import EntryTrace
from conveyor_raft.wire import raft_pb2 as pb

IDENTITY = Identity(ClusterId(b"c" * 32), NodeId(7), Incarnation(b"i" * 16))
MEMBER = Member(NodeId(1), "a:1", "b:2", Incarnation(b"x" * 16))
FRAMES = tuple(
    Frame.build(LogIndex(first), Term(2), 99, EntryKind.COMMAND, [b"one", b"", b"three"])
    for first in (5, 8)
)
META = m.SnapshotMeta(LogIndex(9), Term(2), 77, Membership((MEMBER,)))
APPEND = m.AppendEntries(2**63, LogId(LogIndex(4), Term(1)), LogIndex(3), FRAMES)
BODIES: list[m.Body] = [
    m.RequestVote(LogId(LogIndex(3), Term(2))),
    m.RequestVote(LogId(LogIndex(3), Term(2)), forced=True),
    m.PreVote(LogId(LogIndex(3), Term(2)), Term(5), 77),
    m.PreVoteReply(True, Term(5), 77),
    m.PreVoteReply(False, Term(5), 77),
    m.VoteReply(granted=True),
    m.VoteReply(granted=False),
    APPEND,
    m.AppendEntries(1, LogId(LogIndex(0), Term(0)), LogIndex(0), ()),
    m.AppendAck(5, LogIndex(8)),
    m.AppendConflict(5, LogIndex(8), Term(3), LogIndex(2)),
    m.Heartbeat(5, LogIndex(8), 12),
    m.HeartbeatReply(5, 12),
    m.InstallSnapshot(5, META),
    m.TermNotice(),
    m.TimeoutNow(),
    m.ReadRequest(2**60),
    m.ReadRequest(2**60, suspect=True),
    m.ReadReply(2**60, LogIndex(8)),
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_every_body_survives(body: m.Body) -> None:
    """Encode, serialise, parse, decode: the same message, envelope included."""
    message = m.Message(*IDENTITY, NodeId(2), Term(4), body)
    greeting = codec.encode_greeting(IDENTITY, NodeId(2))
    wire = pb.Message.FromString(codec.encode_message(message).SerializeToString())
    assert codec.decode_message(wire, greeting) == message


def test_every_kind_of_body_is_tested() -> None:
    """A new body needs a line above."""
    assert {type(body) for body in BODIES} == set(m.Body.__args__)


def test_traces_travel_with_entries_only() -> None:
    """Marks come back as they were."""
    traces = [EntryTrace(LogIndex(5), "00-a-b-01")]
    message = m.Message(*IDENTITY, NodeId(2), Term(4), APPEND)  # type: ignore[arg-type]
    assert codec.decode_traces(codec.encode_message(message, traces)) == traces
    assert codec.decode_traces(pb.Message(heartbeat=pb.Heartbeat())) == []


def test_an_empty_or_damaged_message_is_corrupt() -> None:
    """No body, and frames with a flipped bit."""
    greeting = codec.encode_greeting(IDENTITY, NodeId(2))
    with pytest.raises(Corrupt, match="unknown to this release"):
        codec.decode_message(pb.Message(term=1), greeting)
    data = bytearray(FRAMES[0].data)
    data[-1] ^= 1
    damaged = pb.Message(append_entries=pb.AppendEntries(frames=bytes(data)))
    with pytest.raises(Corrupt, match="checksum"):
        codec.decode_message(damaged, greeting)


def test_answers_survive() -> None:
    """With a cluster, and without one."""
    for cluster_id, roster in ((ClusterId(b"c" * 32), (MEMBER, MEMBER)), (None, ())):
        answer = Answer(MEMBER, b"boot", cluster_id, roster)
        assert codec.decode_answer(codec.encode_answer(answer)) == answer
