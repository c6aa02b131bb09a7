"""Messages of the core as protobuf, and back.

Rules kept: frames stay the bytes that they are in the log, so a follower parses none of the
entries; the envelope (cluster, sender, incarnation, addressee) is said once for each stream, in its
greeting, and put around every message that arrives on it; what cannot be decoded is `Corrupt`.
"""

from __future__ import annotations

from collections.abc import Sequence

from conveyor_raft.core import messages as m
from conveyor_raft.core.frames import decode_frames, encode_frames
from conveyor_raft.core.types import (
    ClusterId,
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
from conveyor_raft.snapshots import decode_meta, encode_meta
from conveyor_raft.transport.base import EntryTrace
from conveyor_raft.wire import raft_pb2 as pb

PROTOCOL_VERSION = 1
_ANY = Incarnation(b"")


def encode_greeting(
    identity: Identity, to: NodeId, to_incarnation: Incarnation = _ANY
) -> pb.Greeting:
    """Return what begins a stream."""
    return pb.Greeting(
        cluster_id=identity.cluster_id,
        sender=identity.node_id,
        incarnation=identity.incarnation,
        to=to,
        to_incarnation=to_incarnation,
        protocol=PROTOCOL_VERSION,
    )


def encode_message(message: m.Message, traces: Sequence[EntryTrace] = ()) -> pb.Message:
    """Return a message without its envelope."""
    body = message.body
    wire = pb.Message(term=message.term)
    match body:
        case m.AppendEntries():
            append = wire.append_entries
            append.session, append.commit = body.session, body.commit
            append.prev.index, append.prev.term = body.prev
            append.frames = encode_frames(body.frames)
            for index, traceparent in traces:
                append.traces.add(index=index, traceparent=traceparent)
        case m.AppendAck():
            wire.append_ack.session, wire.append_ack.match = body
        case m.Heartbeat():
            beat = wire.heartbeat
            beat.session, beat.commit, beat.beat = body
        case m.HeartbeatReply():
            wire.heartbeat_reply.session, wire.heartbeat_reply.beat = body
        case m.RequestVote():
            wire.request_vote.last.index, wire.request_vote.last.term = body.last
            wire.request_vote.forced = body.forced
        case m.PreVote():
            wire.pre_vote.last.index, wire.pre_vote.last.term = body.last
            wire.pre_vote.term, wire.pre_vote.round = body.term, body.round
        case m.PreVoteReply():
            answer = wire.pre_vote_reply
            answer.granted, answer.term, answer.round = body
        case m.VoteReply():
            wire.vote_reply.granted = body.granted
        case m.AppendConflict():
            conflict = wire.append_conflict
            conflict.session, conflict.prev_index = body.session, body.prev_index
            conflict.conflict_term = body.conflict_term
            conflict.conflict_index = body.conflict_index
        case m.InstallSnapshot():
            wire.install_snapshot.session = body.session
            wire.install_snapshot.meta = encode_meta(body.meta)
        case m.TimeoutNow():
            wire.timeout_now.SetInParent()
        case m.ReadRequest():
            wire.read_request.batch, wire.read_request.suspect = body
        case m.ReadReply():
            wire.read_reply.batch, wire.read_reply.index = body
        case m.TermNotice():
            wire.term_notice.SetInParent()
    return wire


def decode_message(wire: pb.Message, greeting: pb.Greeting) -> m.Message:
    """Return the message within the envelope of its stream.

    Raises:
        Corrupt: the bytes are no message of this protocol.
    """
    return m.Message(
        ClusterId(greeting.cluster_id),
        NodeId(greeting.sender),
        Incarnation(greeting.incarnation),
        NodeId(greeting.to),
        Term(wire.term),
        _decode_body(wire),
        Incarnation(greeting.to_incarnation),
    )


def decode_traces(wire: pb.Message) -> list[EntryTrace]:
    """Return the traces that came with the entries of a message."""
    if wire.WhichOneof("body") != "append_entries":
        return []
    return [EntryTrace(LogIndex(t.index), t.traceparent) for t in wire.append_entries.traces]


def _decode_body(wire: pb.Message) -> m.Body:
    match wire.WhichOneof("body"):
        case "append_entries":
            append = wire.append_entries
            return m.AppendEntries(
                append.session,
                _log_id(append.prev),
                LogIndex(append.commit),
                decode_frames(append.frames),
            )
        case "append_ack":
            return m.AppendAck(wire.append_ack.session, LogIndex(wire.append_ack.match))
        case "heartbeat":
            beat = wire.heartbeat
            return m.Heartbeat(beat.session, LogIndex(beat.commit), beat.beat)
        case "heartbeat_reply":
            return m.HeartbeatReply(wire.heartbeat_reply.session, wire.heartbeat_reply.beat)
        case "request_vote":
            return m.RequestVote(_log_id(wire.request_vote.last), wire.request_vote.forced)
        case "pre_vote":
            asked = wire.pre_vote
            return m.PreVote(_log_id(asked.last), Term(asked.term), asked.round)
        case "pre_vote_reply":
            answer = wire.pre_vote_reply
            return m.PreVoteReply(answer.granted, Term(answer.term), answer.round)
        case "vote_reply":
            return m.VoteReply(wire.vote_reply.granted)
        case "append_conflict":
            conflict = wire.append_conflict
            return m.AppendConflict(
                conflict.session,
                LogIndex(conflict.prev_index),
                Term(conflict.conflict_term),
                LogIndex(conflict.conflict_index),
            )
        case "install_snapshot":
            install = wire.install_snapshot
            return m.InstallSnapshot(install.session, decode_meta(install.meta))
        case "timeout_now":
            return m.TimeoutNow()
        case "read_request":
            return m.ReadRequest(wire.read_request.batch, wire.read_request.suspect)
        case "read_reply":
            return m.ReadReply(wire.read_reply.batch, LogIndex(wire.read_reply.index))
        case "term_notice":
            return m.TermNotice()
        case unknown:
            raise Corrupt(f"a message has the body {unknown!r}, unknown to this release")


def _log_id(wire: pb.LogId) -> LogId:
    return LogId(LogIndex(wire.index), Term(wire.term))


def encode_member(member: Member) -> pb.Member:
    """Return a member record."""
    return pb.Member(
        node_id=member.node_id,
        raft_address=member.raft_address,
        client_address=member.client_address,
        incarnation=member.incarnation,
    )


def decode_member(wire: pb.Member) -> Member:
    """Return a member record."""
    return Member(
        NodeId(wire.node_id),
        wire.raft_address,
        wire.client_address,
        Incarnation(wire.incarnation),
    )


def encode_answer(answer: Answer) -> pb.HelloReply:
    """Return an answer to Hello."""
    return pb.HelloReply(
        member=encode_member(answer.member),
        boot=answer.boot,
        cluster_id=answer.cluster_id or b"",
        roster=map(encode_member, answer.roster),
    )


def decode_answer(wire: pb.HelloReply) -> Answer:
    """Return an answer to Hello."""
    return Answer(
        decode_member(wire.member),
        wire.boot,
        ClusterId(wire.cluster_id) if wire.cluster_id else None,
        tuple(map(decode_member, wire.roster)),
    )
