"""`GrpcTransport`: nodes reach each other over gRPC, one lasting stream for each direction.

What for: a stream costs a third of a call for each message, keeps their order, and pipelines. What
accumulates while one message is being written leaves as the next one, so a slow link gets larger
messages instead of a longer queue.

Rules kept:

* The port belongs to one process: `grpc.so_reuseport` is off, else two nodes could bind the same
  port without an error and share its messages.
* gRPC's own back-off, made for the internet, is replaced by a jittered one of at most a second,
  and a peer that connects to this node is connected to at once: a follower that has just started
  must hear its leader before its patience ends.
* Both ends of a stream check who is at the other one before a message passes.
* A snapshot has a connection of its own, so that no heartbeat queues behind its chunks.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress

import grpc
import tenacity

from conveyor_raft.core.messages import Message
from conveyor_raft.core.types import Identity, Member, NodeId
from conveyor_raft.errors import ListenError
from conveyor_raft.formation import Answer
from conveyor_raft.transport.base import EntryTrace, Receiver
from conveyor_raft.transport.codec import (
    decode_answer,
    encode_greeting,
    encode_member,
    encode_message,
)
from conveyor_raft.transport.outbox import Outbox
from conveyor_raft.transport.service import RaftTransportService
from conveyor_raft.wire import raft_pb2 as pb
from conveyor_raft.wire import raft_pb2_grpc

_logger = logging.getLogger(__name__)

_MESSAGE_BYTES_MAX = 16 * 1024 * 1024
_PACKET_BYTES = 1024 * 1024
_HELLO_SECONDS = 1.0
_CONNECT_SECONDS = 2.0
_SNAPSHOT_SECONDS = 600.0
_STOP_SECONDS = 0.5
_BACK_OFF_SECONDS = 0.05
_BACK_OFF_SECONDS_MAX = 1.0
_COMMON_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
)
_SERVER_OPTIONS = (
    *_COMMON_OPTIONS,
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
_CLIENT_OPTIONS = (
    *_COMMON_OPTIONS,
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)

_Stream = grpc.aio.StreamStreamCall[pb.Packet, pb.Welcome]


class _RefusedError(Exception):
    """The connection could not be made, or somebody else answers there; try again later."""


class GrpcTransport:
    """A `RaftTransport` over gRPC.

    `advertise` is what `start` returns as this node's address; without it, the bound one.
    """

    def __init__(
        self,
        listen: str,
        *,
        advertise: str | None = None,
        outbox_bytes_max: int = 16 * 1024 * 1024,
        chunk_bytes: int = 256 * 1024,
    ) -> None:
        self._listen = listen
        self._advertise = advertise
        self._outbox_bytes_max = outbox_bytes_max
        self._chunk_bytes = chunk_bytes
        self._server: grpc.aio.Server | None = None
        self._service: RaftTransportService | None = None
        self._receiver: Receiver | None = None
        self._identity: Identity | None = None
        self._peers: dict[NodeId, _Peer] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._counters: Counter[str] = Counter()

    async def start(self, receiver: Receiver) -> str:
        """Bind the port and serve it."""
        server = grpc.aio.server(options=_SERVER_OPTIONS)
        try:
            port = server.add_insecure_port(self._listen)
        except RuntimeError as error:
            await server.stop(None)
            raise ListenError(
                f"cannot listen on {self._listen}: the port is taken by another process, or the"
                " address is not one of this machine's; stop the other process or choose another"
                " address"
            ) from error
        self._receiver = receiver
        self._service = RaftTransportService(receiver, self._nudge)
        raft_pb2_grpc.add_RaftServicer_to_server(self._service, server)
        await server.start()
        self._server = server
        return self._advertise or f"{self._listen.rpartition(':')[0]}:{port}"

    async def hello(self, address: str, own: Member) -> Answer:
        """Ask who is there, on a connection of its own."""
        async with grpc.aio.insecure_channel(address, options=_CLIENT_OPTIONS) as channel:
            stub = raft_pb2_grpc.RaftStub(channel)
            try:
                request = pb.HelloRequest(member=encode_member(own))
                reply = await stub.Hello(request, timeout=_HELLO_SECONDS)
            except grpc.aio.AioRpcError as error:
                raise ConnectionError(_reason(error)) from error
        return decode_answer(reply)

    def connect(self, identity: Identity, members: Sequence[Member]) -> None:
        """Keep a stream to each of these members."""
        assert self._receiver is not None
        self._identity = identity
        wanted = {m.node_id: m for m in members if m.node_id != identity.node_id}
        for node_id, peer in list(self._peers.items()):
            if wanted.get(node_id) != peer.member:
                del self._peers[node_id]
                self._counters["messages_dropped"] += peer.outbox.dropped
                self._leaving.add(peer.stop())
        for node_id, member in wanted.items():
            if node_id not in self._peers:
                outbox = Outbox(self._outbox_bytes_max)
                self._peers[node_id] = _Peer(identity, member, self._receiver, outbox)

    def send(self, message: Message, traces: Sequence[EntryTrace] = ()) -> None:
        """Queue the message for its addressee."""
        peer = self._peers.get(message.to)
        if peer is None:
            self._counters["messages_dropped"] += 1
        else:
            peer.outbox.put(message, traces)

    async def send_snapshot(self, message: Message, data: bytes) -> None:
        """Stream the snapshot to its addressee, from where an earlier stream broke."""
        peer = self._peers.get(message.to)
        if peer is None or self._identity is None:
            raise ConnectionError(f"node {message.to} is no peer of this node")
        address = peer.member.raft_address
        header = pb.SnapshotHeader(
            greeting=encode_greeting(self._identity, message.to, message.to_incarnation),
            message=encode_message(message),
            size=len(data),
            digest=hashlib.sha256(data).digest(),
        )
        async with grpc.aio.insecure_channel(address, options=_CLIENT_OPTIONS) as channel:
            stub = raft_pb2_grpc.RaftStub(channel)
            try:
                receipt = await stub.AskSnapshotOffset(header, timeout=_HELLO_SECONDS)
                header.offset = min(receipt.offset, len(data))
                await stub.SendSnapshot(self._chunks(header, data), timeout=_SNAPSHOT_SECONDS)
            except grpc.aio.AioRpcError as error:
                raise ConnectionError(_reason(error)) from error
        self._counters["snapshots_sent"] += 1

    async def close(self) -> None:
        """Stop listening and let go of every peer."""
        for peer in self._peers.values():
            self._leaving.add(peer.stop())
        self._peers.clear()
        if self._leaving:
            await asyncio.gather(*self._leaving, return_exceptions=True)
            self._leaving.clear()
        server, self._server = self._server, None
        if server is not None and self._service is not None:
            self._service.hang_up()
            await server.stop(_STOP_SECONDS)

    def statistics(self) -> Mapping[str, int]:
        """Return counters since the start."""
        total = self._counters.copy()
        if self._service is not None:
            total.update(self._service.counters)
        for peer in self._peers.values():
            total["messages_dropped"] += peer.outbox.dropped
            total["messages_sent"] += peer.messages_sent
            total["packets_sent"] += peer.packets_sent
        return dict(total)

    def _nudge(self, node_id: NodeId) -> None:
        """A peer that has just connected can be connected to."""
        if (peer := self._peers.get(node_id)) is not None:
            peer.nudge()

    async def _chunks(
        self, header: pb.SnapshotHeader, data: bytes
    ) -> AsyncIterator[pb.SnapshotChunk]:
        yield pb.SnapshotChunk(header=header)
        for start in range(header.offset, len(data), self._chunk_bytes):
            yield pb.SnapshotChunk(data=data[start : start + self._chunk_bytes])


class _Peer:
    """The stream to one member, made again whenever it ends."""

    def __init__(
        self, identity: Identity, member: Member, receiver: Receiver, outbox: Outbox
    ) -> None:
        self.member = member
        self.outbox = outbox
        self.messages_sent = 0
        self.packets_sent = 0
        self._identity = identity
        self._receiver = receiver
        self._told = ""
        self._nudged = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(
            self._run(), name=f"raft peer {member.node_id}"
        )
        self._task.add_done_callback(self._ended)

    def stop(self) -> asyncio.Task[None]:
        """Begin to end the stream; await the returned task."""
        self._task.cancel()
        return self._task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Only `stop` may end the task; anything else would leave the peer without a word."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._receiver.transport_failed(error)

    def nudge(self) -> None:
        """The member is there: do not wait any longer before the next attempt."""
        self._nudged.set()

    async def _run(self) -> None:
        node_id = self.member.node_id
        while True:
            async with AsyncExitStack() as connection:
                stream = await self._connect(connection)
                self._told = ""
                self.outbox.connected = True
                self._receiver.peer_changed(node_id, up=True)
                try:
                    await self._pump(stream)
                except* (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                    _logger.info("the stream to node %s ended: %s", node_id, error.exceptions[0])
                finally:
                    self.outbox.connected = False
                    self.outbox.clear()
                    self._receiver.peer_changed(node_id, up=False)

    async def _connect(self, connection: AsyncExitStack) -> _Stream:
        """Return a stream whose other end is the member; try until there is one."""
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_RefusedError),
            wait=tenacity.wait_random_exponential(_BACK_OFF_SECONDS, _BACK_OFF_SECONDS_MAX),
            sleep=self._pause,
        ):
            with attempt:
                # A channel for each attempt: an old one would wait for gRPC's own back-off.
                async with AsyncExitStack() as stack:
                    channel = grpc.aio.insecure_channel(
                        self.member.raft_address, options=_CLIENT_OPTIONS
                    )
                    await stack.enter_async_context(channel)
                    stream = await self._greet(raft_pb2_grpc.RaftStub(channel))
                    stack.callback(stream.cancel)
                    await connection.enter_async_context(stack.pop_all())
                    return stream
        raise AssertionError("unreachable: the attempts never end")

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._nudged.wait()
        self._nudged.clear()

    async def _greet(self, stub: raft_pb2_grpc.RaftAsyncStub) -> _Stream:
        stream: _Stream = stub.Exchange()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                greeting = encode_greeting(
                    self._identity, self.member.node_id, self.member.incarnation
                )
                await stream.write(pb.Packet(greeting=greeting))
                welcome = await stream.read()
        except (TimeoutError, grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise self._refused(_reason(error)) from error
        known = self.member.incarnation
        if not isinstance(welcome, pb.Welcome):
            raise self._refused("it ended the stream")
        if welcome.node_id != self.member.node_id or known not in {b"", welcome.incarnation}:
            raise self._refused(f"node {welcome.node_id} with another data directory answers there")
        return stream

    def _refused(self, reason: str) -> _RefusedError:
        if reason != self._told:
            self._told = reason
            _logger.info(
                "no connection to node %s at %s yet: %s",
                self.member.node_id,
                self.member.raft_address,
                reason,
            )
        return _RefusedError(reason)

    async def _pump(self, stream: _Stream) -> None:
        """Write what the outbox holds until the stream ends."""
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(self._write(stream))
            # The other side says nothing more; reading returns when the stream has ended.
            await stream.read()
            writer.cancel()

    async def _write(self, stream: _Stream) -> None:
        outbox = self.outbox
        while True:
            batch = await outbox.take(_PACKET_BYTES)
            messages = [encode_message(message, traces) for message, traces in batch]
            await stream.write(pb.Packet(messages=messages))
            self.messages_sent += len(messages)
            self.packets_sent += 1


def _reason(error: BaseException) -> str:
    """Return one line on why a call failed."""
    if isinstance(error, grpc.aio.AioRpcError):
        # gRPC nests its reasons; the last one is what a person looks for.
        details = error.details() or ""
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            details = details.rpartition(": ")[2]
        return f"{error.code().name}: {details}"
    return str(error) or type(error).__name__
