"""Two nodes that only listen: what the transport tests look at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from conveyor_raft.core.messages import Body, Heartbeat, Message
from conveyor_raft.core.types import (
    ClusterId,
    Identity,
    Incarnation,
    LogIndex,
    Member,
    NodeId,
    Term,
)
from conveyor_raft.errors import Corrupt
from conveyor_raft.formation import Answer
from conveyor_raft.transport.base import EntryTrace


class Listener:
    """A `Receiver` that remembers."""

    def __init__(self, node_id: int, cluster: bytes = b"c" * 32) -> None:
        incarnation = Incarnation(bytes([node_id]) * 16)
        self.own: Identity | None = Identity(ClusterId(cluster), NodeId(node_id), incarnation)
        self.node_id = NodeId(node_id)
        self.incarnation = incarnation
        self.address = ""
        self.messages: list[Message] = []
        self.traces: list[EntryTrace] = []
        self.snapshots: list[tuple[Message, bytes]] = []
        self.peers: dict[int, bool] = {}
        self.refuse_snapshots = False
        self.silent = False
        self.failures: list[BaseException] = []
        self.changed = asyncio.Event()

    def hello(self, asker: Member | None = None) -> Answer | None:
        if self.silent:
            return None
        cluster = None if self.own is None else self.own.cluster_id
        return Answer(self.member(), b"boot", cluster, (self.member(),))

    def identity(self) -> Identity | None:
        return self.own

    def receive(self, messages: Sequence[Message], traces: Sequence[EntryTrace] = ()) -> None:
        self.messages.extend(messages)
        self.traces.extend(traces)
        self.changed.set()

    async def receive_snapshot(self, message: Message, data: bytes) -> None:
        if self.refuse_snapshots:
            raise Corrupt("no room for it")
        self.snapshots.append((message, data))

    def peer_changed(self, peer: NodeId, *, up: bool) -> None:
        self.peers[peer] = up
        self.changed.set()

    def transport_failed(self, error: BaseException) -> None:
        self.failures.append(error)
        self.changed.set()

    def member(self) -> Member:
        return Member(self.node_id, self.address, "client", self.incarnation)

    def message(self, to: int, body: Body | None = None, term: int = 1) -> Message:
        assert self.own is not None
        body = body or Heartbeat(1, LogIndex(term))
        meant = Incarnation(bytes([to]) * 16)
        return Message(*self.own, NodeId(to), Term(term), body, meant)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
def listener() -> Callable[..., Listener]:
    return Listener
