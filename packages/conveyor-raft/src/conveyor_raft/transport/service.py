"""`RaftTransportService`: the receiving half of the gRPC transport.

Rules kept: a stream says in its first message who speaks, to whom, and in which cluster, and is
refused with a status that says what is wrong before anything else of it is read. A snapshot is kept
in memory while it arrives, so its announced size is bounded and one is received at a time; what
has arrived of it outlives its stream, and the next one goes on from there.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable

import grpc

from conveyor_raft.core.incoming import Incoming, SnapshotName
from conveyor_raft.core.messages import InstallSnapshot, Message
from conveyor_raft.core.types import NodeId
from conveyor_raft.errors import Corrupt, RaftError
from conveyor_raft.transport.base import Receiver
from conveyor_raft.transport.codec import (
    PROTOCOL_VERSION,
    decode_member,
    decode_message,
    decode_traces,
    encode_answer,
)
from conveyor_raft.wire import raft_pb2 as pb
from conveyor_raft.wire import raft_pb2_grpc

_SNAPSHOT_BYTES_MAX = 1024 * 1024 * 1024

_Exchange = grpc.aio.ServicerContext[pb.Packet, pb.Welcome]
_Snapshot = grpc.aio.ServicerContext[pb.SnapshotChunk, pb.SnapshotReceipt]
_Offset = grpc.aio.ServicerContext[pb.SnapshotHeader, pb.SnapshotReceipt]
_Hello = grpc.aio.ServicerContext[pb.HelloRequest, pb.HelloReply]


class RaftTransportService(raft_pb2_grpc.RaftServicer):
    """Serves the raft port of one node; register it on a `grpc.aio` server."""

    def __init__(
        self, receiver: Receiver, greeted: Callable[[NodeId], None] = lambda node_id: None
    ) -> None:
        self._receiver = receiver
        self._greeted = greeted
        self._receiving = asyncio.Lock()
        self._incoming = Incoming()
        self.counters: Counter[str] = Counter()
        self._stopping = asyncio.Event()

    def hang_up(self) -> None:
        """End the streams of all peers, so that the server can stop without breaking them."""
        self._stopping.set()

    async def Hello(self, request: pb.HelloRequest, context: _Hello) -> pb.HelloReply:  # noqa: N802
        """Say who this node is."""
        answer = self._receiver.hello(decode_member(request.member))
        if answer is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the node has not started yet")
        return encode_answer(answer)

    async def Exchange(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.Packet], context: _Exchange
    ) -> AsyncIterator[pb.Welcome]:
        """Take the messages of one peer for as long as it keeps the stream."""
        packets = aiter(request_iterator)
        first = await anext(packets, pb.Packet())
        greeting = first.greeting
        if problem := self._problem(greeting):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, problem)
        identity = self._receiver.identity()
        assert identity is not None
        self._greeted(NodeId(greeting.sender))
        yield pb.Welcome(node_id=identity.node_id, incarnation=identity.incarnation)
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._read(packets, greeting))
            stopping = group.create_task(self._stopping.wait())
            await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
            reading.cancel()
            stopping.cancel()
        if not reading.cancelled() and (problem := reading.result()):
            await context.abort(grpc.StatusCode.DATA_LOSS, problem)

    async def _read(self, packets: AsyncIterator[pb.Packet], greeting: pb.Greeting) -> str:
        """Hand over what arrives until the stream ends; return why it must not go on."""
        receiver, counters = self._receiver, self.counters
        async for packet in packets:
            try:
                messages = [decode_message(wire, greeting) for wire in packet.messages]
            except Corrupt as error:
                counters["refused_corrupt"] += 1
                return str(error)
            traces = [trace for wire in packet.messages for trace in decode_traces(wire)]
            counters["messages_received"] += len(messages)
            receiver.receive(messages, traces)
        return ""

    async def SendSnapshot(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.SnapshotChunk], context: _Snapshot
    ) -> pb.SnapshotReceipt:
        """Take one whole snapshot."""
        chunks = aiter(request_iterator)
        header = (await anext(chunks, pb.SnapshotChunk())).header
        if problem := self._problem(header.greeting):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, problem)
        if header.size > _SNAPSHOT_BYTES_MAX:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the snapshot has {header.size} bytes, at most {_SNAPSHOT_BYTES_MAX} are taken",
            )
        if self._receiving.locked():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "another snapshot is arriving")
        async with self._receiving:
            try:
                message, name = _named(header)
                offset = header.offset
                async for chunk in chunks:
                    self._incoming.add(name, offset, chunk.data)
                    offset += len(chunk.data)
                    if offset > header.size:
                        break
                if offset != header.size:
                    raise Corrupt(f"the stream ended at byte {offset} of {header.size}")
                await self._receiver.receive_snapshot(message, self._incoming.take(name))
            except Corrupt as error:
                self.counters["refused_corrupt"] += 1
                await context.abort(grpc.StatusCode.DATA_LOSS, str(error))
            except RaftError as error:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        self.counters["snapshots_received"] += 1
        return pb.SnapshotReceipt()

    async def AskSnapshotOffset(  # noqa: N802
        self, request: pb.SnapshotHeader, context: _Offset
    ) -> pb.SnapshotReceipt:
        """Say how much of a snapshot is here, from a stream that broke."""
        if problem := self._problem(request.greeting):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, problem)
        try:
            _, name = _named(request)
        except Corrupt as error:
            await context.abort(grpc.StatusCode.DATA_LOSS, str(error))
        offset = self._incoming.offset(name)
        self.counters["snapshots_resumed"] += offset > 0
        return pb.SnapshotReceipt(offset=offset)

    def _problem(self, greeting: pb.Greeting) -> str:
        """Return why this stream is refused, or nothing."""
        identity = self._receiver.identity()
        if identity is None:
            return "this node has no cluster yet"
        if greeting.protocol != PROTOCOL_VERSION:
            self.counters["refused_protocol"] += 1
            return (
                f"this node speaks version {PROTOCOL_VERSION} of the protocol,"
                f" not {greeting.protocol}"
            )
        if greeting.cluster_id != identity.cluster_id:
            self.counters["refused_foreign"] += 1
            return (
                f"this is node {identity.node_id} of the cluster {identity.cluster_id.hex()[:12]},"
                f" not of {greeting.cluster_id.hex()[:12]}"
            )
        if greeting.to != identity.node_id:
            self.counters["refused_addressee"] += 1
            return f"this is node {identity.node_id}, not node {greeting.to}"
        if greeting.sender == identity.node_id:
            self.counters["refused_sender"] += 1
            return f"node {greeting.sender} is this node itself; another has the same id"
        return ""


def _named(header: pb.SnapshotHeader) -> tuple[Message, SnapshotName]:
    """Return what a header announces; raise `Corrupt` if that is no snapshot."""
    message = decode_message(header.message, header.greeting)
    if not isinstance(message.body, InstallSnapshot):
        raise Corrupt("the header announces no snapshot")
    return message, SnapshotName(message.body.meta.last_id, header.size, header.digest)
