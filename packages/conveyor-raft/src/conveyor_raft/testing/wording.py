"""Messages and outputs in words, for transcripts and traces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.messages import (
    AppendAck,
    AppendConflict,
    AppendEntries,
    Body,
    Heartbeat,
    InstallSnapshot,
    Message,
    PreVote,
    PreVoteReply,
    ReadReply,
    ReadRequest,
    RequestVote,
    VoteReply,
)
from conveyor_raft.core.output import Output, Write
from conveyor_raft.core.types import Applied, RaftRole, ReadReady, Transferred, Withdrawn


def describe_message(message: Message) -> str:
    """Say who tells whom what, in which term."""
    return f"{message.sender}->{message.to} {_describe_wire_body(message)}"


def describe_wire(message: Message) -> str:
    """Say what is told to whom."""
    return f"to {message.to}: {_describe_wire_body(message)}"


def describe_output(node_id: int, out: Output) -> Iterator[str]:
    """Say, line by line, what a core wants done."""
    if out.soft is not None:
        role, leader_id, term = out.soft
        whom = f" of {leader_id}" if leader_id is not None and role is RaftRole.FOLLOWER else ""
        yield f"node {node_id} is {role.value}{whom} in term {term}"
    if out.write is not None:
        yield f"writes {_describe_write(out.write)}"
    for message in out.messages:
        yield f"sends {describe_wire(message)}"
    for write_id, message in out.messages_after:
        yield f"after write {write_id}, {describe_wire(message)}"
    if out.install is not None:
        yield f"restores the snapshot at {out.install.index}"
    if out.apply is not None:
        yield f"commits and applies {out.apply[0]}..{out.apply[1]}"
    for send in out.send_snapshot:
        yield f"offers node {send.peer} its snapshot at {send.meta.index}"
    for token, outcome in out.finished:
        if isinstance(outcome, Applied):
            yield f"token {token} is applied"
        elif isinstance(outcome, Withdrawn):
            yield f"token {token} is withdrawn: {outcome.reason}"
        else:
            yield f"token {token} has an unknown outcome: {outcome.reason}"
    for token, read in out.reads:
        if isinstance(read, ReadReady):
            yield f"read {token} may run, from {read.index} on"
        else:
            yield f"read {token} fails: {read.reason}"
    for token, transfer in out.transfers:
        if isinstance(transfer, Transferred):
            yield f"transfer {token} is done: node {transfer.leader_id} leads"
        else:
            yield f"transfer {token} fails: {transfer.reason}"
    if out.recovered:
        yield f"node {node_id} is trusted again"
    if out.compact_through is not None:
        yield f"forgets the log up to {out.compact_through}"


def _describe_wire_body(message: Message) -> str:
    details = _describe_body(message.body)
    return f"{type(message.body).__name__} in term {message.term}{details and ': '}{details}"


def _describe_body(body: Body) -> str:
    if isinstance(body, RequestVote):
        why = ", the leader asked me to" if body.forced else ""
        return f"my log ends at {body.last.index} of term {body.last.term}{why}"
    if isinstance(body, PreVote):
        return f"in term {body.term}? My log ends at {body.last.index} of term {body.last.term}"
    if isinstance(body, PreVoteReply):
        return f"{'yes' if body.granted else 'no'}, in term {body.term}"
    if isinstance(body, ReadRequest):
        return "I may have lost what I acknowledged" if body.suspect else ""
    if isinstance(body, ReadReply):
        return f"from {body.index} on"
    if isinstance(body, VoteReply):
        return "granted" if body.granted else "refused"
    if isinstance(body, AppendEntries):
        entries = f" {_describe_frames(body.frames)}" if body.frames else " nothing"
        return f"after {body.prev.index} of term {body.prev.term}{entries}, commit {body.commit}"
    if isinstance(body, AppendAck):
        return f"equal up to {body.match}"
    if isinstance(body, AppendConflict):
        if body.conflict_term:
            own = f"mine has term {body.conflict_term}, from {body.conflict_index} on"
        else:
            own = f"my log ends before {body.conflict_index}"
        return f"{body.prev_index} differs, {own}"
    if isinstance(body, Heartbeat):
        return f"commit {body.commit}"
    if isinstance(body, InstallSnapshot):
        return f"everything up to {body.meta.index} of term {body.meta.term}"
    return ""


def _describe_frames(frames: Sequence[Frame]) -> str:
    return ", ".join(
        f"{frame.kind.name} {frame.first_index}..{frame.last_index} of term {frame.term}"
        for frame in frames
    )


def _describe_write(write: Write) -> str:
    parts = [str(write.write_id)]
    if write.hard_state is not None:
        vote = write.hard_state.voted_for
        parts.append(f"term {write.hard_state.term} {f'vote {vote}' if vote else 'no vote'}")
    if write.snapshot is not None:
        parts.append(f"snapshot at {write.snapshot.index}")
    if write.truncate_from is not None:
        parts.append(f"cut from {write.truncate_from}")
    if write.frames:
        parts.append(_describe_frames(write.frames))
    return "; ".join(parts).replace("; ", ": ", 1)
