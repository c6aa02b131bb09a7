"""The order of effects: what may leave at once, and what waits for the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from conveyor_raft import KeyValueStateMachine, Member, MemoryLogStorage, MemoryNetwork, RaftConfig
from conveyor_raft.core.loading import first_state
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.messages import Heartbeat, Message
from conveyor_raft.core.output import Output, Write
from conveyor_raft.core.types import ClusterId, Identity, Incarnation, LogIndex, NodeId, Term
from conveyor_raft.driver import Driver
from conveyor_raft.transport.base import EntryTrace
from conveyor_raft.transport.memory import MemoryTransport
from conveyor_raft.watch import Watchers

pytestmark = pytest.mark.asyncio
IDENTITY = Identity(ClusterId(b"c"), NodeId(1), Incarnation(b"i"))


class Recording(MemoryTransport):
    """Remembers the terms of what would be sent."""

    def __init__(self) -> None:
        super().__init__(MemoryNetwork(), "a")
        self.sent: list[int] = []

    def send(self, message: Message, traces: Sequence[EntryTrace] = ()) -> None:
        self.sent.append(message.term)


class Gated(MemoryLogStorage):
    """Every write waits for its permission."""

    def __init__(self) -> None:
        super().__init__()
        self.permits = asyncio.Semaphore(0)
        self.writes: list[int] = []

    async def write(self, write: Write) -> None:
        self.writes.append(write.write_id)
        await self.permits.acquire()
        await super().write(write)


def message(term: int) -> Message:
    return Message(*IDENTITY, NodeId(2), Term(term), Heartbeat(1, LogIndex(0)))


def make(transport: Recording, storage: MemoryLogStorage) -> Driver:
    members = (Member(NodeId(1), "a"), Member(NodeId(2), "b"), Member(NodeId(3), "c"))
    return Driver(
        RaftConfig(node_id=1, election_timeout_min_ms=60_000, election_timeout_max_ms=90_000),
        IDENTITY,
        first_state(Membership(members)),
        state_machine=KeyValueStateMachine(),
        storage=storage,
        transport=transport,
        watchers=Watchers(10),
        meet=list,
    )


async def test_what_waits_for_a_write_leaves_when_it_is_durable() -> None:
    """At once, after the write, and after a write that is not even handed out: in this order."""
    transport, storage = Recording(), Gated()
    driver = make(transport, storage)
    lane = asyncio.create_task(driver._lane.run())
    driver._perform(
        Output(
            write=Write(1, None, None, None, ()),
            messages=[message(10)],
            messages_after=[(1, message(11)), (2, message(12))],
        )
    )
    await asyncio.sleep(0)
    assert (storage.writes, transport.sent) == ([1], [10])
    storage.permits.release()
    while driver._lane.busy:
        await asyncio.sleep(0)
    assert transport.sent == [10, 11]
    driver._perform(Output(write=Write(2, None, None, None, ())))
    storage.permits.release()
    while driver._lane.busy:
        await asyncio.sleep(0)
    assert transport.sent == [10, 11, 12]
    lane.cancel()
    await asyncio.wait([lane])


async def test_a_message_for_a_write_that_has_just_ended_does_not_wait() -> None:
    """The core may not have heard of the end yet when it names the write."""
    transport = Recording()
    driver = make(transport, MemoryLogStorage())
    driver._written(5)
    driver._perform(Output(messages_after=[(5, message(20)), (6, message(21))]))
    assert transport.sent == [20]
    driver._written(6)
    assert transport.sent == [20, 21]


async def test_too_many_messages_are_dropped_and_counted() -> None:
    """The inbox is bounded, whatever the peers do."""
    driver = make(Recording(), MemoryLogStorage())
    for _ in range(20):
        driver.receive([message(1)] * 1_000)
    assert driver.counters["messages_overrun"] == 4_000
