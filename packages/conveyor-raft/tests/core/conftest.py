"""Builders for the core's tests: one core, its peers as plain messages."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.loading import LoadedState, first_state
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.messages import Body, Message, VoteReply
from conveyor_raft.core.options import CoreOptions
from conveyor_raft.core.output import Output
from conveyor_raft.core.raft_core import RaftCore
from conveyor_raft.core.types import (
    ClusterId,
    EntryKind,
    HardState,
    Identity,
    Incarnation,
    LogIndex,
    Member,
    NodeId,
    RaftRole,
    Term,
)

CLUSTER = ClusterId(b"test")


@dataclass
class Harness:
    """A core under test. Writes complete when the test says so; `sent` is what has left."""

    core: RaftCore
    node_id: NodeId
    now_ms: int = 0
    sent: list[Message] = field(default_factory=list)
    held: list[tuple[int, Message]] = field(default_factory=list)
    written: int = 0
    outputs: list[Output] = field(default_factory=list)

    def take(self, *, write: bool = True) -> Output:
        out = self.core.take(write=write)
        self.outputs.append(out)
        self.sent += out.messages
        self.held += out.messages_after
        return out

    def tick(self, ms: int) -> Output:
        self.now_ms += ms
        self.core.tick(self.now_ms)
        return self.take()

    def expire(self) -> Output:
        deadline = self.core.next_deadline
        assert deadline is not None
        return self.tick(max(0, deadline - self.now_ms))

    def hear(self, sender: int, term: int, body: Body, **changes: Any) -> Output:
        message = Message(
            CLUSTER,
            NodeId(sender),
            Incarnation(b""),
            self.node_id,
            Term(term),
            body,
        )._replace(**changes)
        self.core.step(message)
        return self.take()

    def flush(self) -> Output:
        """Let everything handed out become durable."""
        ids = [out.write.write_id for out in self.outputs if out.write is not None]
        self.written = max([self.written, *ids])
        self.sent += [message for write_id, message in self.held if write_id <= self.written]
        self.held = [(write_id, m) for write_id, m in self.held if write_id > self.written]
        self.core.on_written(self.written)
        return self.take()

    def bodies(self, to: int | None = None) -> list[Body]:
        """What has left since the last call, without envelopes."""
        bodies = [message.body for message in self.sent if to in {None, message.to}]
        self.sent.clear()
        return bodies

    def lead(self) -> None:
        """Win the next election with everybody's vote."""
        self.expire()
        self.flush()
        membership = self.core.membership
        assert membership is not None
        for voter in membership.voters:
            if voter != 1 and self.core.role is RaftRole.CANDIDATE:
                self.hear(voter, self.core.term, VoteReply(granted=True))
        assert self.core.role is RaftRole.LEADER


@pytest.fixture
def membership() -> Callable[[int], Membership]:
    def build(nodes: int) -> Membership:
        return Membership(
            tuple(Member(NodeId(node), f"node-{node}:1") for node in range(1, nodes + 1))
        )

    return build


@pytest.fixture
def frame() -> Callable[..., Frame]:
    """`frame(3, 2, "a", "b")`: entries 3 and 4 of term 2."""

    def build(first: int, term: int, *payloads: str, timestamp_ms: int = 0) -> Frame:
        data = [payload.encode() for payload in payloads] or [b"x"]
        return Frame.build(LogIndex(first), Term(term), timestamp_ms, EntryKind.COMMAND, data)

    return build


@pytest.fixture
def harness(membership: Callable[[int], Membership]) -> Callable[..., Harness]:
    """Node 1 (or another) of a fresh cluster, or with more frames behind the first entry.

    Its elections are the paper's, without pre-votes and without loyalty, unless `options` say so.
    """

    def build(
        nodes: int = 3,
        *,
        frames: Sequence[Frame] = (),
        term: int | None = None,
        voted_for: int | None = None,
        loaded: LoadedState | None = None,
        node_id: int = 1,
        seed: int = 1,
        **options: int,
    ) -> Harness:
        if loaded is None:
            first = first_state(membership(nodes))
            newest = frames[-1].term if frames else Term(1)
            vote = None if voted_for is None else NodeId(voted_for)
            hard_state = HardState(Term(newest if term is None else term), vote)
            loaded = LoadedState(hard_state, None, (*first.frames, *frames))
        options = {"pre_vote": False, "check_quorum": False, **options}
        identity = Identity(CLUSTER, NodeId(node_id), Incarnation(b""))
        core = RaftCore(identity, CoreOptions(**options), random.Random(seed), loaded, 0)
        return Harness(core, NodeId(node_id))

    return build
