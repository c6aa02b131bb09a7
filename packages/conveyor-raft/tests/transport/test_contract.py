"""What every `RaftTransport` promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.messages import AppendEntries, InstallSnapshot, SnapshotMeta
from conveyor_raft.core.types import ZERO_ID, EntryKind, LogIndex, Member, NodeId, Term
from conveyor_raft.errors import ListenError
from conveyor_raft.transport.base import EntryTrace, RaftTransport
from conveyor_raft.transport.grpc import GrpcTransport
from conveyor_raft.transport.memory import MemoryNetwork, MemoryTransport

pytestmark = pytest.mark.asyncio
MakeTransport = Callable[[], RaftTransport]
Listener = Any


@pytest.fixture(params=["memory", "grpc"])
def make_transport(request: pytest.FixtureRequest) -> MakeTransport:
    if request.param == "grpc":
        return lambda: GrpcTransport("127.0.0.1:0")
    network = MemoryNetwork()
    numbers = iter(range(100))
    return lambda: MemoryTransport(network, f"memory:{next(numbers)}")


@asynccontextmanager
async def connected(
    make: MakeTransport, *listeners: Listener
) -> AsyncIterator[list[RaftTransport]]:
    """Start a transport for each listener, and connect all of them to all."""
    transports = []
    try:
        for one in listeners:
            transport = make()
            transports.append(transport)
            one.address = await transport.start(one)
        members = [one.member() for one in listeners]
        for transport, one in zip(transports, listeners, strict=True):
            transport.connect(one.own, members)
        for one in listeners:
            await one.until(lambda one=one: sum(one.peers.values()) == len(listeners) - 1)
        yield transports
    finally:
        for transport in transports:
            await transport.close()


async def test_messages_arrive_in_order_with_their_traces(
    make_transport: MakeTransport, listener: Callable[..., Listener]
) -> None:
    """Both ways; the envelope is the sender's."""
    a, b = listener(1), listener(2)
    async with connected(make_transport, a, b) as (to_b, to_a):
        for term in range(1, 101):
            to_b.send(a.message(2, term=term))
        frame = Frame.build(LogIndex(1), Term(1), 0, EntryKind.COMMAND, [b"x" * 100_000] * 3)
        entries = AppendEntries(1, ZERO_ID, LogIndex(0), (frame,))
        trace = EntryTrace(LogIndex(1), "00-1-2-01")
        to_b.send(a.message(2, entries), [trace])
        to_a.send(b.message(1))
        await b.until(lambda: len(b.messages) == 101)
        await a.until(lambda: a.messages)
    assert [message.term for message in b.messages[:100]] == list(range(1, 101))
    assert b.messages[100] == a.message(2, entries)
    assert b.traces == [trace]
    assert a.messages == [b.message(1)]


async def test_hello_says_who_is_there(
    make_transport: MakeTransport, listener: Callable[..., Listener]
) -> None:
    """Before anything is connected; and nobody being there is an `OSError`."""
    a, b = listener(1), listener(2)
    transports = [make_transport(), make_transport()]
    a.address = await transports[0].start(a)
    b.address = await transports[1].start(b)
    assert await transports[0].hello(b.address, a.member()) == b.hello()
    b.silent = True
    with pytest.raises(OSError, match="not started yet"):
        await transports[0].hello(b.address, a.member())
    await transports[1].close()
    with pytest.raises(OSError):  # the reason differs
        await transports[0].hello(b.address, a.member())
    await transports[0].close()


async def test_a_snapshot_arrives_whole_or_not_at_all(
    make_transport: MakeTransport, listener: Callable[..., Listener]
) -> None:
    """Larger than any message; a receiver that refuses makes the sending fail."""
    a, b = listener(1), listener(2)
    data = bytes(range(256)) * 40_000
    async with connected(make_transport, a, b) as (to_b, _):
        meta = SnapshotMeta(LogIndex(9), Term(2), 5, Membership((a.member(), b.member())))
        message = a.message(2, InstallSnapshot(3, meta))
        await to_b.send_snapshot(message, data)
        assert b.snapshots == [(message, data)]
        b.refuse_snapshots = True
        with pytest.raises((OSError, Exception), match="no room"):
            await to_b.send_snapshot(message, data)


async def test_messages_of_another_cluster_do_not_arrive(
    make_transport: MakeTransport, listener: Callable[..., Listener]
) -> None:
    """They are refused and counted, on whichever side notices."""
    a, b, stranger = listener(1), listener(2), listener(3, b"s" * 32)
    async with connected(make_transport, a, b) as transports:
        outside = make_transport()
        stranger.address = await outside.start(stranger)
        outside.connect(stranger.own, [stranger.member(), b.member()])

        def refused() -> int:
            every = [*transports, outside]
            return sum(one.statistics().get("refused_foreign", 0) for one in every)

        async with asyncio.timeout(10):
            while not refused():
                outside.send(stranger.message(2))
                await asyncio.sleep(0.01)
        transports[0].send(a.message(2, term=7))
        await b.until(lambda: b.messages)
        await outside.close()
    assert [message.sender for message in b.messages] == [1]


async def test_another_node_at_the_address_gets_nothing(
    make_transport: MakeTransport, listener: Callable[..., Listener]
) -> None:
    """The member list says node 2, node 3 answers there: no message is for it."""
    a, b = listener(1), listener(3)
    transports = [make_transport(), make_transport()]
    a.address = await transports[0].start(a)
    b.address = await transports[1].start(b)
    wrong = Member(NodeId(2), b.address)
    transports[0].connect(a.own, [a.member(), wrong])
    for _ in range(20):
        transports[0].send(a.message(2))
        await asyncio.sleep(0.01)
    assert b.messages == []
    for transport in transports:
        await transport.close()


async def test_an_unknown_addressee_loses_the_message(
    make_transport: MakeTransport, listener: Callable[..., Listener]
) -> None:
    """Sending never raises."""
    a, b = listener(1), listener(2)
    async with connected(make_transport, a, b) as (to_b, _):
        to_b.send(a.message(9))
        to_b.send(a.message(2))
        await b.until(lambda: b.messages)
        assert to_b.statistics()["messages_dropped"] == 1


async def test_closing_twice_is_fine(
    make_transport: MakeTransport, listener: Callable[..., Listener]
) -> None:
    """And closing what never started is."""
    await make_transport().close()
    transport = make_transport()
    await transport.start(listener(1))
    await transport.close()
    await transport.close()


async def test_a_taken_address_is_refused(listener: Callable[..., Listener]) -> None:
    """Two nodes on one port would share each other's messages."""
    first = GrpcTransport("127.0.0.1:0")
    address = await first.start(listener(1))
    with pytest.raises(ListenError, match="choose another"):
        await GrpcTransport(address).start(listener(2))
    await first.close()
    network = MemoryNetwork()
    held = MemoryTransport(network, "a")
    await held.start(listener(1))
    with pytest.raises(ListenError):
        await MemoryTransport(network, "a").start(listener(2))
    await held.close()
