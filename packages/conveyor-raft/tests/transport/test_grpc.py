"""What only a real port can show: reconnects, wrong greetings, damaged streams."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from conveyor_raft.core.membership import Membership
from conveyor_raft.core.messages import InstallSnapshot, SnapshotMeta
from conveyor_raft.core.types import LogIndex, NodeId, Term
from conveyor_raft.transport.codec import encode_greeting, encode_message
from conveyor_raft.transport.grpc import GrpcTransport
from conveyor_raft.wire import raft_pb2 as pb
from conveyor_raft.wire import raft_pb2_grpc

pytestmark = pytest.mark.asyncio
Listener = Any


@asynccontextmanager
async def served(one: Listener) -> AsyncIterator[tuple[GrpcTransport, Any]]:
    """A node's transport, and a bare client of its port."""
    transport = GrpcTransport("127.0.0.1:0")
    one.address = await transport.start(one)
    try:
        async with grpc.aio.insecure_channel(one.address) as channel:
            yield transport, raft_pb2_grpc.RaftStub(channel)
    finally:
        await transport.close()


async def packets(*items: pb.Packet) -> AsyncIterator[pb.Packet]:
    for item in items:
        yield item


async def status_of(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return caught.value.code(), caught.value.details() or ""


async def test_a_peer_that_restarts_is_found_again(listener: Callable[..., Listener]) -> None:
    """The stream is made anew by itself, and the receiver hears of both changes."""
    a, b = listener(1), listener(2)
    first, second = GrpcTransport("127.0.0.1:0"), GrpcTransport("127.0.0.1:0")
    a.address, b.address = await first.start(a), await second.start(b)
    first.connect(a.own, [a.member(), b.member()])
    await a.until(lambda: a.peers.get(2) is True)
    await second.close()
    await a.until(lambda: a.peers.get(2) is False)
    again = GrpcTransport(b.address)
    await again.start(b)
    await a.until(lambda: a.peers.get(2) is True)
    first.send(a.message(2))
    await b.until(lambda: b.messages)
    await first.close()
    await again.close()


async def test_a_peer_that_connects_is_connected_to_at_once(
    listener: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the back-off: a node that has just started hears from its leader."""
    monkeypatch.setattr("conveyor_raft.transport.grpc._BACK_OFF_SECONDS", 10_000)
    monkeypatch.setattr("conveyor_raft.transport.grpc._BACK_OFF_SECONDS_MAX", 10_000)
    a, b = listener(1), listener(2)
    first, second = GrpcTransport("127.0.0.1:0"), GrpcTransport("127.0.0.1:0")
    a.address, b.address = await first.start(a), await second.start(b)
    await second.close()
    first.connect(a.own, [a.member(), b.member()])
    await asyncio.sleep(0.1)
    second = GrpcTransport(b.address)
    await second.start(b)
    second.connect(b.own, [a.member(), b.member()])
    await a.until(lambda: a.peers.get(2) is True)
    await first.close()
    await second.close()


async def test_a_wiped_peer_is_not_the_peer(listener: Callable[..., Listener]) -> None:
    """The same id with another incarnation gets no message."""
    a, b = listener(1), listener(2)
    first, second = GrpcTransport("127.0.0.1:0"), GrpcTransport("127.0.0.1:0")
    a.address, b.address = await first.start(a), await second.start(b)
    known = b.member()._replace(incarnation=b"before the disk was lost")
    first.connect(a.own, [a.member(), known])
    for _ in range(20):
        first.send(a.message(2))
        await asyncio.sleep(0.01)
    assert b.messages == []
    assert not a.peers
    await first.close()
    await second.close()


@pytest.mark.parametrize(
    ("change", "counter", "match"),
    [
        ({"cluster_id": b"s" * 32}, "refused_foreign", "of the cluster 636363"),
        ({"to": 9}, "refused_addressee", "this is node 2, not node 9"),
        ({"sender": 2}, "refused_sender", "another has the same id"),
        ({"protocol": 99}, "refused_protocol", "version 1 of the protocol, not 99"),
    ],
)
async def test_wrong_greetings_are_refused_with_the_reason(
    listener: Callable[..., Listener], change: dict[str, Any], counter: str, match: str
) -> None:
    """Nothing that follows is read, and each is counted by its kind."""
    a, b = listener(1), listener(2)
    async with served(b) as (transport, stub):
        greeting = encode_greeting(a.own, NodeId(2))
        greeting.MergeFrom(pb.Greeting(**change))
        message = pb.Message(heartbeat=pb.Heartbeat(session=1))
        stream = packets(pb.Packet(greeting=greeting, messages=[message]))
        code, details = await status_of(stub.Exchange(stream))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert match in details
        assert transport.statistics()[counter] == 1
    assert b.messages == []


async def test_a_node_without_a_cluster_takes_no_messages(
    listener: Callable[..., Listener],
) -> None:
    """It answers Hello, and that is all."""
    b = listener(2)
    b.own = None
    async with served(b) as (_, stub):
        reply = await stub.Hello(pb.HelloRequest(), timeout=5)
        assert reply.cluster_id == b""
        _, details = await status_of(stub.Exchange(packets(pb.Packet())))
        assert "no cluster yet" in details


async def test_garbage_ends_the_stream_and_not_the_node(listener: Callable[..., Listener]) -> None:
    """Frames whose checksum differs are data loss; the next stream is served."""
    a, b = listener(1), listener(2)
    async with served(b) as (transport, stub):
        greeting = pb.Packet(greeting=encode_greeting(a.own, NodeId(2)))
        bad = pb.Message(append_entries=pb.AppendEntries(frames=b"garbage" * 20))
        stream = packets(greeting, pb.Packet(messages=[bad]))
        code, _ = await status_of(stub.Exchange(stream))
        assert code is grpc.StatusCode.DATA_LOSS
        assert transport.statistics()["refused_corrupt"] == 1
        good = pb.Message(heartbeat=pb.Heartbeat(session=1))
        async for welcome in stub.Exchange(packets(greeting, pb.Packet(messages=[good]))):
            assert welcome.node_id == 2
    assert len(b.messages) == 1


def announced(a: Listener, data: bytes, size: int | None = None) -> pb.SnapshotHeader:
    """The header of a snapshot of node 2."""
    meta = SnapshotMeta(LogIndex(7), Term(3), 0, Membership((a.member(),)))
    return pb.SnapshotHeader(
        greeting=encode_greeting(a.own, NodeId(2)),
        message=encode_message(a.message(2, InstallSnapshot(1, meta))),
        size=len(data) if size is None else size,
        digest=hashlib.sha256(data).digest(),
    )


async def chunks(*items: pb.SnapshotChunk) -> AsyncIterator[pb.SnapshotChunk]:
    for item in items:
        yield item


async def test_a_damaged_snapshot_is_not_handed_over(listener: Callable[..., Listener]) -> None:
    """Too short, too long, another digest, announced too large, or no snapshot at all."""
    a, b = listener(1), listener(2)
    a.address = "a:1"
    header, huge = announced(a, b"abcd"), announced(a, b"", 2**40)
    other = pb.SnapshotHeader(greeting=header.greeting, size=4)
    async with served(b) as (_, stub):
        for head, data in (
            (header, b"abc"),
            (header, b"abcde"),
            (header, b"abcx"),
            (huge, b""),
            (other, b"abcd"),
        ):
            stream = chunks(pb.SnapshotChunk(header=head), pb.SnapshotChunk(data=data))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.SendSnapshot(stream, timeout=5)
            assert caught.value.code() in {
                grpc.StatusCode.DATA_LOSS,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
            }
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.AskSnapshotOffset(other, timeout=5)
    assert b.snapshots == []


async def test_a_broken_snapshot_goes_on_where_it_broke(listener: Callable[..., Listener]) -> None:
    """The second stream brings the rest only; a piece behind a hole is no help."""
    a, b = listener(1), listener(2)
    a.address = "a:1"
    header = announced(a, b"abcdefgh")
    async with served(b) as (transport, stub):
        assert (await stub.AskSnapshotOffset(header, timeout=5)).offset == 0
        broken = chunks(pb.SnapshotChunk(header=header), pb.SnapshotChunk(data=b"abc"))
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.SendSnapshot(broken, timeout=5)
        assert (await stub.AskSnapshotOffset(header, timeout=5)).offset == 3
        for offset, data in ((5, b"fgh"), (3, b"defgh")):
            header.offset = offset
            rest = chunks(pb.SnapshotChunk(header=header), pb.SnapshotChunk(data=data))
            try:
                await stub.SendSnapshot(rest, timeout=5)
            except grpc.aio.AioRpcError as error:
                assert offset == 5, error
        assert transport.statistics()["snapshots_resumed"] == 1
    ((message, data),) = b.snapshots
    assert data == b"abcdefgh"
    assert isinstance(message.body, InstallSnapshot)


async def test_a_peer_that_breaks_inside_is_reported(listener: Callable[..., Listener]) -> None:
    """A mistake in the sending task must not leave the peer silently alone."""
    a, b = listener(1), listener(2)
    first, second = GrpcTransport("127.0.0.1:0"), GrpcTransport("127.0.0.1:0")
    a.address, b.address = await first.start(a), await second.start(b)
    first.connect(a.own, [a.member(), b.member()])
    await a.until(lambda: a.peers.get(2) is True)
    first.send(a.message(2)._replace(term="no number"))
    await a.until(lambda: a.failures)
    await first.close()
    await second.close()
